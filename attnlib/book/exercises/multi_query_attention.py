"""Exercise on multi-query attention: share keys and values without a copy of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnlib.book.exercises.grading import (
    ATTENTION_CHECKS,
    FunctionLayer,
    Grade,
    LayerExercise,
    attention_layer,
    running_line,
)
from attnlib.core import attention
from attnlib.testing import FAILS, HOLDS, Report
from attnlib.testing.allocations import AllocationRecorder


def repeats_nothing(layer: FunctionLayer) -> Report:
    """Check that attention wrote no K or V for each query head into memory.

    Args:
        layer: around the reader's function.

    Returns:
        The report; a failure names the line that made the copy.
    """
    check = "nothing repeated"
    B, H, S, D = 2, layer.n_heads, 64, 8  # far more keys than queries, as when decoding
    generator = torch.Generator().manual_seed(0)
    k, v = (torch.randn(B, layer.n_kv_heads, S, D, generator=generator) for _ in "kv")
    for T in (1, 2):
        q = torch.randn(B, H, T, D, generator=generator)
        with AllocationRecorder(running_line) as recorder:
            layer.function(q, k, v, mask=None)
        for tensor in recorder.allocations:
            if tensor.stored >= B * H * S * D:
                found = (
                    f"`{tensor.line or tensor.operator}` made a tensor of {tensor.stored:,}"
                    " numbers, no fewer than a K of its own for each query head has"
                )
                hint = (
                    "each query head got its own K or V: repeat, repeat_interleave, an index,"
                    " or a product that had to stretch an axis of heads. Let the queries that"
                    " share a head be rows of one matrix."
                )
                return Report(check, FAILS, found, hint)
    return Report(check, HOLDS, f"no tensor as large as K of {H} heads was made")


def unrepeated(n_kv_heads: int) -> LayerExercise:
    """The exercise for a number of KV heads."""
    return LayerExercise(
        answer=attention,
        build=lambda function: attention_layer(function, n_kv_heads),
        checks=ATTENTION_CHECKS,
        last_check=repeats_nothing,
    )


def grade_unrepeated(
    function: Callable[..., tuple[Tensor, Tensor] | Tensor], *, n_kv_heads: int
) -> Grade:
    """Grade attention that shares keys and values without a copy of them.

    It belongs to two chapters, Multi-query attention and Grouped-query attention.

    Args:
        function: as in :class:`attnlib.book.exercises.grading.FunctionLayer`.
        n_kv_heads: KV heads of k and v; there are 6 query heads, so 1, 2 or 3.

    Returns:
        The grade. Whether K or V was repeated is checked once the answers are right.
    """
    return unrepeated(n_kv_heads).grade(function)
