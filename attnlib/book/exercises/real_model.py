# ruff: noqa: D103  The hint of a mistake says what its function does.
"""Exercises on the real model: rows in another order, and weight on the first token."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnlib.book.exercises.grading import Exercise, Grade, Mistake
from attnlib.labs.heads import first_share
from attnlib.labs.rotary import to_half_split


def rows_of(n_heads: int, head_dim: int, seed: int) -> tuple[Tensor, int]:
    """The weight of a projection, and how many heads it makes."""
    generator = torch.Generator().manual_seed(seed)
    shape = n_heads * head_dim, 5
    return torch.randn(shape, generator=generator, dtype=torch.float64), n_heads


def back_to_interleaved(rows: Tensor, n_heads: int) -> Tensor:
    halves: Tensor = rows.unflatten(0, (n_heads, 2, -1))
    return halves.transpose(1, 2).flatten(0, 2)


HALF_SPLIT = Exercise(
    answer=to_half_split,
    cases={
        "one head of 6": rows_of(1, 6, seed=0),
        "three heads of 8": rows_of(3, 8, seed=1),
    },
    mistakes=[
        Mistake("the way back. These rows are put from halves to neighbours, and the file has"
                " neighbours.", back_to_interleaved),
        Mistake("all heads in one. The pairs of each head stay within its own rows, so cut the"
                " rows into heads first.", lambda rows, n_heads: to_half_split(rows, 1)),
        Mistake("the second partners come before the first. Rows 0, 2, 4, ... of a head go"
                " first.", lambda rows, n_heads: rows.unflatten(0, (n_heads, -1, 2)).flip(2)
                .transpose(1, 2).flatten(0, 2)),
        Mistake("columns in another order. Columns are the inputs; what a head makes are the"
                " rows.", lambda rows, n_heads: torch.cat([rows[:, 0::2], rows[:, 1::2]], 1)),
        Mistake("nothing is moved. A view to pairs and back leaves all rows where they were.",
                lambda rows, n_heads: rows.clone()),
        Mistake("the first half of all rows, then the second. The partners of a pair are"
                " neighbours in the file.",
                lambda rows, n_heads: torch.cat([rows[1::2], rows[0::2]])),
    ],
)  # fmt: skip


def grade_half_split(function: Callable[[Tensor, int], Tensor]) -> Grade:
    """Grade the order of rows from interleaved to half-split pairs (A real model).

    Args:
        function: takes ``(rows, n_heads)``, the weight of q or k of shape
            ``(n_heads * D, d_model)`` whose neighbouring rows make a pair; returns the same
            rows so that row i of a head and row i + D / 2 do.

    Returns:
        The grade.
    """
    return HALF_SPLIT.grade(function)


def causal_weights(layers: int, heads: int, tokens: int, seed: int) -> Tensor:
    """Attention weights of a causal model, some of which rest on the first token."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(
        layers, heads, tokens, tokens, generator=generator, dtype=torch.float64
    )
    scores[:, 0, :, 0] += 4  # a head that rests
    hidden = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    return scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)


FIRST_SHARE = Exercise(
    answer=first_share,
    cases={
        "from query 4 on": (causal_weights(2, 3, 9, seed=0), 4),
        "from query 1 on": (causal_weights(1, 2, 6, seed=1), 1),
    },
    mistakes=[
        Mistake("early queries count. Query 0 sees one key and gives it everything, so leave"
                " out all queries before start.",
                lambda weights, start: weights[..., 0].mean(dim=-1)),
        Mistake("the row of the first query, not the column of the first key. Rows are queries,"
                " columns are keys.", lambda weights, start: weights[..., 0, start:].mean(-1)),
        Mistake("the mean over all keys. A row sums to 1, so that is 1 / T for every head.",
                lambda weights, start: weights[..., start:, :].mean(dim=(-2, -1))),
        Mistake("the mean over heads and layers as well. Each head has a number of its own.",
                lambda weights, start: weights[..., start:, 0].mean()),
        Mistake("the sum over the queries. Divide by how many there are.",
                lambda weights, start: weights[..., start:, 0].sum(dim=-1)),
        Mistake("the last key. The first token is key 0.",
                lambda weights, start: weights[..., start:, -1].mean(dim=-1)),
        Mistake("query start itself is left out. It is the first that counts.",
                lambda weights, start: weights[..., start + 1 :, 0].mean(dim=-1)),
        Mistake("the largest weight, not the mean.",
                lambda weights, start: weights[..., start:, 0].amax(dim=-1)),
    ],
)  # fmt: skip


def grade_first_share(function: Callable[[Tensor, int], Tensor]) -> Grade:
    """Grade how much weight each head gives to the first token (A real model).

    Args:
        function: takes ``(weights, start)``, causal attention weights of shape
            ``(n_layers, H, T, T)`` and the first query that counts; returns the mean weight on
            the first token, ``(n_layers, H)``.

    Returns:
        The grade.
    """
    return FIRST_SHARE.grade(function)
