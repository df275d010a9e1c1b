"""The grader of chapter 9: right code is solved, and typical mistakes are named."""

from dataclasses import replace

import pytest

from attnlib import MODELS, kv_cache_bytes
from attnlib.book.exercises import grade_any_cache


def my_cache_bytes(g, tokens):
    """As the worked solution has it."""
    latent = g.kv_lora_rank is not None
    numbers = g.kv_lora_rank + g.qk_rope_head_dim if latent else 2 * g.n_kv_heads * g.head_dim
    kept = (g.n_layers - g.n_window_layers) * tokens
    if g.window is not None:
        kept += g.n_window_layers * min(tokens, g.window)
    return 2 * numbers * kept


@pytest.mark.parametrize("tokens", [1, 700, 100_000])
def test_the_solution_holds_for_every_model(tokens):
    """Catches a task whose text leaves out what some model needs."""
    for name, model in MODELS.items():
        g = model.geometry
        assert my_cache_bytes(g, tokens) == kv_cache_bytes(g, tokens), name


def test_right_code_is_solved():
    assert grade_any_cache(my_cache_bytes).solved


def plain(g, tokens, numbers=None):
    """Every layer keeps everything."""
    return 2 * (numbers or 2 * g.n_kv_heads * g.head_dim) * g.n_layers * tokens


def changed(**sizes):
    """The right answer for other sizes."""

    def wrong(g, tokens):
        return my_cache_bytes(replace(g, **{k: f(g) for k, f in sizes.items()}), tokens)

    return wrong


def twice_for_latents(g, tokens):
    return (2 if g.kv_lora_rank else 1) * my_cache_bytes(g, tokens)


def no_windows(g, tokens):
    return plain(g, tokens, g.kv_lora_rank and g.kv_lora_rank + g.qk_rope_head_dim)


MISTAKES = [
    (twice_for_latents, "factor 2 for latents"),
    (no_windows, "no windows"),
    (plain, "two at once"),  # no windows, and keys and values of all heads in MLA
    (changed(n_kv_heads=lambda g: g.n_heads), "count n_kv_heads"),
    (changed(head_dim=lambda g: g.d_model // g.n_heads), "published width"),
    (changed(n_window_layers=lambda g: g.n_layers if g.window else 0), "in all layers"),
    (lambda g, tokens: my_cache_bytes(g, tokens) / 2, "one byte"),
]


@pytest.mark.parametrize(("mistake", "words"), MISTAKES)
def test_a_mistake_is_named(mistake, words):
    grade = grade_any_cache(mistake)
    assert not grade.solved
    assert words in " ".join(grade.text.partition("known mistake")[2].split()), grade
