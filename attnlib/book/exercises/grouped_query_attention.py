"""Exercises on grouped-query attention: where sharing halves a step, and the order of heads."""

from __future__ import annotations

import copy
from collections.abc import Callable
from operator import floordiv, truediv

import torch
from torch import Tensor, nn

from attnlib.book.exercises.grading import Exercise, Grade, Mistake, name_of, stopped
from attnlib.testing import FAILS, HOLDS, BrokenError, Report, Reports, kind_of, nothing
from attnlib.variants.mha import MultiHeadAttention


def tokens(
    weights: int, saved: int, divide: Callable[[int, int], float] = lambda a, b: -(-a // b)
) -> float | None:
    """The least S with saved * S >= weights; ``None`` if a token saves nothing."""
    return divide(weights, saved) if saved > 0 else None


def half_step(d_model: int, n_heads: int, n_kv_heads: int) -> float | None:
    """The right answer."""
    return tokens(2 * d_model * n_kv_heads, n_heads - 2 * n_kv_heads)


CACHE_ALONE = (
    "the cache alone. A step reads the weights as well, and sharing makes only two of the four"
    " matrices smaller."
)

HALF_STEP = Exercise(
    answer=half_step,
    cases={
        "4096 wide, 32 and 8": (4096, 32, 8),
        "4096 wide, 32 and 1": (4096, 32, 1),
        "8192 wide, 64 and 8": (8192, 64, 8),
        "2048 wide, 16 and 8": (2048, 16, 8),
        "2048 wide, 16 and 16": (2048, 16, 16),
        "2560 wide, 32 and 8": (2560, 32, 8),
    },
    mistakes=[
        Mistake("rounded down. With that many tokens a step still reads a little more than"
                " half.",
                lambda d_model, H, H_kv: tokens(2 * d_model * H_kv, H - 2 * H_kv, floordiv)),
        Mistake(CACHE_ALONE, lambda d_model, H, H_kv: 0 if 2 * H_kv <= H else None),
        Mistake(CACHE_ALONE, lambda d_model, H, H_kv: 1 if 2 * H_kv <= H else None),
        Mistake("no whole number. Round up: with fewer tokens a step still reads more than"
                " half.",
                lambda d_model, H, H_kv: tokens(2 * d_model * H_kv, H - 2 * H_kv, truediv)),
        Mistake("the same weights in both layers. The projections of K and V are narrower with"
                " fewer KV heads.",
                lambda d_model, H, H_kv: tokens(2 * d_model * H, H - 2 * H_kv)),
        Mistake("keys without values. The cache and the projections have both.",
                lambda d_model, H, H_kv: tokens(4 * d_model * H_kv, H - 2 * H_kv)),
        Mistake("the size of a group instead of the number of groups, which is n_kv_heads.",
                lambda d_model, H, H_kv: half_step(d_model, H, H // H_kv)),
    ],
)  # fmt: skip


def grade_half_step(function: Callable[[int, int, int], int | None]) -> Grade:
    """Grade from how many tokens on sharing halves what a decode step reads.

    It belongs to the chapter Grouped-query attention.

    Args:
        function: takes ``(d_model, n_heads, n_kv_heads)``; returns the least number of cached
            tokens with which the layer reads at most half of what the same layer with all
            ``n_heads`` KV heads reads, weights and cache together, or ``None``.

    Returns:
        The grade.
    """
    return HALF_STEP.grade(function)


def grade_head_order(function: Callable[[MultiHeadAttention, list[int]], nn.Module]) -> Grade:
    """Grade a multi-head layer with its heads in another order (Grouped-query attention).

    Args:
        function: takes ``(layer, order)``; returns a new layer, the same function, whose head i
            is head ``order[i]`` of ``layer``.

    Returns:
        The grade.
    """
    name, order = name_of(function), [4, 0, 5, 2, 1, 3]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = MultiHeadAttention(22, 6, head_dim=4)
        x = torch.randn(2, 5, 22)
    before = copy.deepcopy(layer)
    expected = before(x)
    try:
        made = function(layer, list(order))
        if made is None:
            raise nothing()
        if not isinstance(made, MultiHeadAttention):
            found = f"expected a MultiHeadAttention, got {kind_of(made)}"
            raise BrokenError(found, "return the layer.")
        made_output = made(x)
    except Exception as error:
        return Grade(name, Reports(), stopped(error))
    weights, after, given = (m.state_dict() for m in (before, made, layer))
    reports = [
        *(moved(key, weights[key], after[key], order) for key in weights),
        verdict(
            "layer given",
            all(torch.equal(given[key], weights[key]) for key in weights),
            "left as it was",
            "make a new layer, or a copy, and write into that one.",
        ),
        verdict(
            "output",
            made_output.shape == expected.shape
            and torch.allclose(made_output, expected, atol=1e-6),
            "the same as before",
            "all four projections have to agree on the order.",
        ),
    ]
    return Grade(name, Reports(reports))


def moved(name: str, before: Tensor, after: Tensor, order: list[int]) -> Report:
    """Check that the 6 heads of one weight stand in the new order."""
    axis, lines = (1, "columns") if name.startswith("o_proj") else (0, "rows")
    heads = before.unflatten(axis, (6, 4))

    def ordered(order: list[int]) -> Tensor:
        return heads.index_select(axis, torch.tensor(order)).flatten(axis, axis + 1)

    hint = f"a head is 4 {lines} side by side: unflatten({axis}, (n_heads, head_dim))."
    if torch.equal(after, before):
        hint = f"nothing moved here, and the {lines} of a head have to move with it."
    elif torch.equal(after, ordered([order.index(h) for h in range(6)])):
        hint = "moved the other way: head i of the new layer is head order[i] of the old."
    holds = torch.equal(after, ordered(order))
    return verdict(name, holds, f"{lines} in the order of the heads", hint)


def verdict(check: str, holds: bool, found: str, hint: str) -> Report:
    """A report that says what holds, or that it does not."""
    return Report(check, HOLDS, found) if holds else Report(check, FAILS, f"not {found}", hint)
