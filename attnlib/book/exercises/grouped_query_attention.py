"""Exercise on grouped-query attention: where sharing halves a step."""

from __future__ import annotations

from collections.abc import Callable
from operator import floordiv, truediv

from attnlib.book.exercises.grading import Exercise, Grade, Mistake


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
