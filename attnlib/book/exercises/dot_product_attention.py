# ruff: noqa: D103  The hint of a mistake says what its function does.
"""Exercise on dot-product attention: merge two attentions over different keys."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnlib.book.exercises.grading import Exercise, Grade, Mistake


def merge(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
    """The right answer."""
    share = torch.stack([lse_a, lse_b]).softmax(dim=0)[..., None]  # (2, T, 1)
    return share[0] * out_a + share[1] * out_b


def weighted_by_logarithms(
    out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor
) -> Tensor:
    return (lse_a[:, None] * out_a + lse_b[:, None] * out_b) / (lse_a + lse_b)[:, None]


def undivided(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
    largest = torch.maximum(lse_a, lse_b)  # (T,)
    a, b = ((lse - largest).exp()[:, None] for lse in (lse_a, lse_b))  # (T, 1)
    return a * out_a + b * out_b


def softmax_over_queries(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
    return lse_a.softmax(dim=0)[:, None] * out_a + lse_b.softmax(dim=0)[:, None] * out_b


def overflowing(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
    a, b = lse_a.exp()[:, None], lse_b.exp()[:, None]
    return (a * out_a + b * out_b) / (a + b)


def two_blocks(split: int, shift: float) -> tuple[Tensor, ...]:
    """Outputs and logarithms over the first keys and over the others, with shifted scores."""
    q, k, v = torch.randn(
        3, 8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    arguments: list[Tensor] = []
    for keys in (slice(0, split), slice(split, 8)):
        scores = q[:4] @ k[keys].T + shift  # (T, S)
        arguments += [
            scores.softmax(dim=-1) @ v[keys],
            scores.logsumexp(dim=-1),
        ]  # (T, D), (T,)
    return tuple(arguments)


MERGE = Exercise(
    answer=merge,
    cases={
        "blocks of 4 keys": two_blocks(4, 0.0),
        "blocks of 2 and 6": two_blocks(2, 0.0),
        "scores of 1,000": two_blocks(4, 1000.0),
    },
    mistakes=[
        Mistake(
            "the mean of the two outputs. A block whose keys fit better has to count more.",
            lambda out_a, lse_a, out_b, lse_b: (out_a + out_b) / 2,
        ),
        Mistake(
            "outputs weighted by the logarithms. The sums themselves are the weights.",
            weighted_by_logarithms,
        ),
        Mistake(
            "the sum of the two outputs. Each is a mean over its own keys, so weight them.",
            lambda out_a, lse_a, out_b, lse_b: out_a + out_b,
        ),
        Mistake(
            "each output has the other block's weight.",
            lambda out_a, lse_a, out_b, lse_b: merge(out_a, lse_b, out_b, lse_a),
        ),
        Mistake(
            "outputs with weights that do not sum to 1. Divide by the sum of the weights.",
            undivided,
        ),
        Mistake(
            "softmax over the queries. The two blocks share the weight of one query, so the"
            " softmax goes over the two lse of that query.",
            softmax_over_queries,
        ),
        Mistake(
            "e to the power of lse, taken first and divided later, overflows. Subtract the same"
            " amount from both lse before you take the exponential.",
            overflowing,
        ),
    ],
)


def grade_merge(function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Grade:
    """Grade the merging of two attentions over different keys (Dot-product attention).

    Args:
        function: takes ``(out_a, lse_a, out_b, lse_b)``, outputs of shape ``(T, D)`` and
            logarithms of the sums of exponentials, shape ``(T,)``; returns the output over all
            keys.

    Returns:
        The grade.
    """
    return MERGE.grade(function)
