"""The cache of any model: the solution holds for all, and common formulas are recognised."""

import pytest
from grades import hint_of

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


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (lambda g: 2 * g.n_kv_heads * g.head_dim, ["no windows", "in MLA"]),
        (lambda g: 2 * g.n_heads * g.head_dim, ["query heads", "in MLA", "no windows"]),
        (lambda g: 2 * g.d_model, ["d_model for", "no windows"]),
        (
            lambda g: (
                g.kv_lora_rank + g.qk_rope_head_dim
                if g.kv_lora_rank
                else 2 * g.n_kv_heads * g.head_dim
            ),
            ["no windows"],
        ),
    ],
)
def test_formulas_without_windows_are_recognised(numbers, words):
    """Catches hints that only the exercise's own code gets."""
    hint = hint_of(grade_any_cache(lambda g, tokens: 2 * numbers(g) * g.n_layers * tokens))
    assert all(word in hint for word in words), hint
