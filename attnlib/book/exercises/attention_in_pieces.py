"""Exercises on attention in pieces: block by block in one pass, and two parts merged."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from attnlib.book.exercises.grading import Exercise, Grade, Mistake

Pass = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def one_pass(
    *,
    shrink_out: bool = True,
    shrink_total: bool = True,
    running: bool = True,
    divide: bool = True,
    log: Callable[[Tensor, Tensor], Tensor] = lambda largest, total: largest + total.log(),
) -> Pass:
    """An answer that goes through the keys once.

    Args:
        shrink_out: whether the output so far shrinks when a larger score comes.
        shrink_total: whether the sum so far does.
        running: whether the maximum runs over all blocks, not over each.
        divide: whether the output is divided by the sum at the end.
        log: of the sum of exponentials, from the largest score and the sum.

    Returns:
        A function as ``grade_one_pass`` takes it.
    """

    def answer(scores: Tensor, values: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
        T = len(scores)
        largest = torch.full((T, 1), -torch.inf, dtype=scores.dtype)
        total, out = torch.zeros_like(largest), torch.zeros(T, values.shape[1]).to(scores)
        for start in range(0, scores.shape[1], block_size):
            part = scores[:, start : start + block_size]
            new = part.amax(dim=1, keepdim=True)
            new = torch.maximum(largest, new) if running else new
            factor, weights = (largest - new).exp(), (part - new).exp()
            one = torch.ones_like(factor)
            total = total * (factor if shrink_total else one) + weights.sum(1, keepdim=True)
            added = weights @ values[start : start + block_size]
            out, largest = out * (factor if shrink_out else one) + added, new
        out = out / total if divide else out
        return out, log(largest, total)[:, 0]

    return answer


def mean_of_blocks(scores: Tensor, values: Tensor, block_size: int) -> tuple[Tensor, Tensor]:
    """Each block's own softmax, and their mean."""
    parts = zip(scores.split(block_size, dim=1), values.split(block_size), strict=True)
    outs = [part.softmax(dim=1) @ of for part, of in parts]
    return torch.stack(outs).mean(dim=0), scores.logsumexp(dim=1)


def block_case(block_size: int, size: float, seed: int = 0) -> tuple[Tensor, Tensor, int]:
    """Scores of three queries and eight keys, values two wide."""
    draw = torch.Generator().manual_seed(seed)
    scores = size * torch.randn(3, 8, generator=draw, dtype=torch.float64)
    return scores, torch.randn(8, 2, generator=draw, dtype=torch.float64), block_size


ONE_PASS = Exercise(
    answer=one_pass(),
    cases={
        "blocks of 4": block_case(4, 1.0),
        "one key at a time": block_case(1, 2.0, 1),
        "blocks of 3, 3 and 2": block_case(3, 1.0, 2),
        "one block": block_case(8, 1.0, 3),
        "scores of 1,000": (block_case(4, 1.0)[0] + 1000, *block_case(4, 1.0)[1:]),
    },
    mistakes=[
        Mistake("the output so far does not shrink. What was added up belongs to the old"
                " maximum: multiply it by exp(old - new), as you do with the sum.",
                one_pass(shrink_out=False)),
        Mistake("the sum so far does not shrink. It belongs to the old maximum, too: multiply"
                " it by exp(old - new).", one_pass(shrink_total=False)),
        Mistake("neither sum nor output shrinks when a larger score comes.",
                one_pass(shrink_out=False, shrink_total=False)),
        Mistake("the mean of the blocks' own softmaxes. A block with larger scores has to"
                " count more.", mean_of_blocks),
        Mistake("the output is not divided by the sum at the end.", one_pass(divide=False)),
        Mistake("the logarithm of the sum without the maximum, which was taken out of every"
                " term: add it again.",
                one_pass(log=lambda largest, total: total.log())),
        Mistake("the sum instead of its logarithm.",
                one_pass(log=lambda largest, total: total * largest.exp())),
        Mistake("no maximum is taken out, so large scores overflow.",
                lambda scores, values, size: (
                    scores.exp() @ values / scores.exp().sum(1, keepdim=True),
                    scores.exp().sum(1).log())),
    ],
)  # fmt: skip


def grade_one_pass(function: Pass) -> Grade:
    """Grade a softmax over blocks of keys in one pass (Attention in pieces).

    Args:
        function: takes ``(scores, values, block_size)`` of shapes ``(T, S)`` and ``(S, D)``;
            returns the output ``(T, D)`` and the logarithm of each row's sum of exponentials,
            ``(T,)``.

    Returns:
        The grade.
    """
    return ONE_PASS.grade(function)


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
    """Grade the merging of two attentions over different keys (Attention in pieces).

    Args:
        function: takes ``(out_a, lse_a, out_b, lse_b)``, outputs of shape ``(T, D)`` and
            logarithms of the sums of exponentials, shape ``(T,)``; returns the output over all
            keys.

    Returns:
        The grade.
    """
    return MERGE.grade(function)
