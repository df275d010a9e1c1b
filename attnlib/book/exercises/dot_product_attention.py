"""Exercise on dot-product attention: merge two attentions over different keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attnlib.book.exercises.grading import Exercise, Grade, Mistake


def mixed(weigh: Callable[[Tensor, Tensor], Sequence[Tensor]]) -> Callable[..., Tensor]:
    """An answer that mixes the outputs by two weights per query, made from the logarithms."""

    def merge(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
        a, b = weigh(lse_a, lse_b)  # (T,) each
        return a[:, None] * out_a + b[:, None] * out_b

    return merge


def shares(a: Tensor, b: Tensor) -> Tensor:
    """The right weights, shape ``(2, T)``."""
    return torch.stack([a, b]).softmax(dim=0)


def exponentials(a: Tensor, b: Tensor, lowered_by: Tensor | float = 0.0) -> Tensor:
    """The sums of exponentials from their logarithms, shape ``(2, T)``."""
    return (torch.stack([a, b]) - lowered_by).exp()


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
    answer=mixed(shares),
    cases={
        "blocks of 4 keys": two_blocks(4, 0.0),
        "blocks of 2 and 6": two_blocks(2, 0.0),
        "scores of 1,000": two_blocks(4, 1000.0),
    },
    mistakes=[
        Mistake("the mean of the two outputs. A block whose keys fit better has to count more.",
                mixed(lambda a, b: torch.full((2, len(a)), 0.5))),
        Mistake("outputs weighted by the logarithms. The sums themselves are the weights.",
                mixed(lambda a, b: (a / (a + b), b / (a + b)))),
        Mistake("the sum of the two outputs. Each is a mean over its own keys, so weight them.",
                mixed(lambda a, b: torch.ones(2, len(a)))),
        Mistake("each output has the other block's weight.", mixed(lambda a, b: shares(b, a))),
        Mistake("outputs with weights that do not sum to 1. Divide by the sum of the weights.",
                mixed(lambda a, b: exponentials(a, b, lowered_by=torch.maximum(a, b)))),
        Mistake("softmax over the queries. The two blocks share the weight of one query, so"
                " the softmax goes over the two lse of that query.",
                mixed(lambda a, b: (a.softmax(dim=0), b.softmax(dim=0)))),
        Mistake("e to the power of lse, taken first and divided later, overflows. Subtract the"
                " same amount from both lse before you take the exponential.",
                mixed(lambda a, b: exponentials(a, b) / exponentials(a, b).sum(dim=0))),
    ],
)  # fmt: skip


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
