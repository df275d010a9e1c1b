"""The exercises whose answers need more than one of the graders: cases, and typical mistakes.

Each function grades the code for one exercise of a chapter and returns a
:class:`attnlib.grading.Grade`, which prints itself at the end of a cell.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnlib.grading import Grade, grade_function


def grade_merge(mine: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Grade:
    """Grade the merging of two attentions over different keys (chapter 1).

    Args:
        mine: takes ``(out_a, lse_a, out_b, lse_b)``, outputs of shape ``(T, D)`` and logarithms
            of the sums of exponentials, shape ``(T,)``; returns the output over all keys.

    Returns:
        The grade.
    """
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 8, 6, generator=generator, dtype=torch.float64)

    def block(keys: slice, shift: float) -> tuple[Tensor, Tensor]:
        scores = q[:4] @ k[keys].T + shift  # (T, S)
        return scores.softmax(dim=-1) @ v[keys], scores.logsumexp(dim=-1)  # (T, D), (T,)

    def right(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
        share = torch.stack([lse_a, lse_b]).softmax(dim=0)[..., None]  # (2, T, 1)
        return share[0] * out_a + share[1] * out_b

    def by_lse(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
        return (lse_a[:, None] * out_a + lse_b[:, None] * out_b) / (lse_a + lse_b)[:, None]

    def unguarded(out_a: Tensor, lse_a: Tensor, out_b: Tensor, lse_b: Tensor) -> Tensor:
        a, b = lse_a.exp()[:, None], lse_b.exp()[:, None]
        return (a * out_a + b * out_b) / (a + b)

    return grade_function(
        mine,
        right,
        {
            "blocks of 4 keys": (*block(slice(0, 4), 0.0), *block(slice(4, 8), 0.0)),
            "blocks of 2 and 6": (*block(slice(0, 2), 0.0), *block(slice(2, 8), 0.0)),
            "scores of 1,000": (*block(slice(0, 4), 1000.0), *block(slice(4, 8), 1000.0)),
        },
        look_alikes={
            "the mean of the two outputs. A block whose keys fit better has to count more.": (
                lambda out_a, _, out_b, __: (out_a + out_b) / 2
            ),
            "outputs weighted by the logarithms. The sums themselves are the weights.": by_lse,
            "e to the power of lse, taken first and divided later, overflows. Lower both lse by"
            " the same amount before.": unguarded,
        },
    )
