"""The cache of any model: the solution holds, and common formulas are recognised."""

import pytest
from grades import hint_of

from attnlib import MODELS, cache_size
from attnlib.book.exercises import grade_any_cache


def my_cache_bytes(layers, tokens):
    """As the worked solution has it."""
    numbers = 0
    for kind in layers:
        if kind.borrows:
            continue
        if kind.kv_lora_rank:
            entry = kind.kv_lora_rank + kind.qk_rope_head_dim
        else:
            entry = kind.n_kv_heads * (kind.head_dim + (kind.v_head_dim or kind.head_dim))
        kept = tokens if kind.window is None else min(tokens, kind.window)
        numbers += kind.n_layers * kept * entry
    return 2 * numbers


@pytest.mark.parametrize("tokens", [1, 700, 100_000])
def test_the_solution_holds_for_every_model_with_these_parts(tokens):
    """Catches a task whose text leaves out what one of its models needs."""
    asked = {"windows", "shared between layers"}
    some = {name: model for name, model in MODELS.items() if set(model.traits) <= asked}
    some = {n: m for n, m in some.items() if not any(k.conv_numbers for k in m.layers)}
    assert len(some) > 100
    for name, model in some.items():
        assert my_cache_bytes(model.layers, tokens) == cache_size(model, tokens).once, name


def test_right_code_is_solved():
    assert grade_any_cache(my_cache_bytes).solved


def total(numbers, layers, tokens):
    return sum(2 * k.n_layers * numbers(k) * tokens for k in layers)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (
            lambda layers, n: total(
                lambda k: (
                    k.kv_lora_rank + k.qk_rope_head_dim
                    if k.kv_lora_rank
                    else k.n_kv_heads * (k.head_dim + (k.v_head_dim or k.head_dim))
                ),
                layers,
                n,
            ),
            ["no windows", "layers that borrow"],
        ),
        (
            lambda layers, n: total(
                lambda k: (
                    2 * (k.kv_lora_rank + k.qk_rope_head_dim)
                    if k.kv_lora_rank
                    else k.n_kv_heads * (k.head_dim + (k.v_head_dim or k.head_dim))
                ),
                layers,
                n,
            ),
            ["factor 2 for latents", "no windows", "layers that borrow"],
        ),
        (
            lambda layers, n: my_cache_bytes([k for k in layers if not k.window], n),
            ["layers with a window are left out"],
        ),
    ],
)
def test_formulas_that_forget_something_are_recognised(function, words):
    """Catches hints that only the exercise's own code gets."""
    hint = hint_of(grade_any_cache(function))
    assert all(word in hint for word in words), hint
