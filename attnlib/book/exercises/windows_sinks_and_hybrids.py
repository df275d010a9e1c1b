"""Exercises on windows: what a ring holds, and a sink as a gate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnlib.book.exercises.grading import Exercise, Grade, Mistake

Ring = Callable[[int, int, int], Tensor]


def ring(row_of: Callable[[int, int, int], int], *, empty: int = -1, rows: int = 0) -> Ring:
    """An answer that stores the tokens one after another."""

    def held(seen: int, window: int, first: int) -> Tensor:
        found = torch.full((first + window + rows,), empty)
        for token in range(seen):
            found[row_of(token, window, first)] = token
        return found

    return held


def row_of(token: int, window: int, first: int) -> int:
    """The right row."""
    return token if token < first else first + (token - first) % window


def by_age(seen: int, window: int, first: int) -> Tensor:
    """What is kept, the oldest in the first row."""
    found = torch.full((first + window,), -1)
    kept = [*range(min(first, seen)), *range(max(first, seen - window), seen)]
    found[: len(kept)] = torch.tensor(kept, dtype=torch.long)
    return found


RING = Exercise(
    answer=ring(row_of),
    cases={
        "3 tokens, W = 4": (3, 4, 0),
        "6 tokens, W = 4": (6, 4, 0),
        "11 tokens, W = 4": (11, 4, 0),
        "5 tokens, W = 4, 2 first": (5, 4, 2),
        "11 tokens, W = 4, 2 first": (11, 4, 2),
        "30 tokens, W = 8, 3 first": (30, 8, 3),
    },
    mistakes=[
        Mistake("by age. A ring moves nothing: the new token takes the row of the one that"
                " leaves, wherever that is.", by_age),
        Mistake("the first tokens are overwritten. They keep their rows forever.",
                ring(lambda token, W, first: token % (first + W))),
        Mistake("the ring begins at the wrong token. Its first row is for token first, so"
                " count from there: (token - first) % window.",
                ring(lambda token, W, first: token if token < first else first + token % W)),
        Mistake("the first tokens' rows come out of the window. They are kept beside it.",
                lambda seen, W, first: torch.cat([
                    ring(row_of)(seen, W - first, first), torch.full((first,), -1)])),
        Mistake("0 in empty rows. That is a token; an empty row holds -1.",
                ring(row_of, empty=0)),
        Mistake("a row too many. W counts the newest token, too.",
                ring(lambda token, W, first: row_of(token, W + 1, first), rows=1)),
        Mistake("the ring stops once it is full. A new token replaces the oldest.",
                ring(lambda token, W, first: min(token, first + W - 1))),
    ],
)  # fmt: skip


def grade_ring(function: Ring) -> Grade:
    """Grade what a ring buffer holds (Windows, sinks and hybrids).

    Args:
        function: takes ``(seen, window, first)``; returns the position that each row holds
            after so many tokens, int64, shape ``(first + window,)``, with -1 in empty rows.

    Returns:
        The grade.
    """
    return RING.grade(function)


def gate(factor: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """An answer that multiplies the output."""
    return lambda out, lse, sinks: out * factor(lse, sinks[:, None])[..., None]


def sink_case(seed: int, size: float) -> tuple[Tensor, Tensor, Tensor]:
    """Output, log-sum-exp and sinks of four heads and four queries."""
    draw = torch.Generator().manual_seed(seed)
    out = torch.randn(2, 4, 4, 3, generator=draw, dtype=torch.float64)
    lse = 1 + torch.randn(2, 4, 4, generator=draw, dtype=torch.float64)
    return out, lse, size * torch.randn(4, generator=draw, dtype=torch.float64)


SINK = Exercise(
    answer=gate(lambda lse, s: torch.sigmoid(lse - s)),
    cases={
        "sinks near 0": sink_case(0, 0.1),
        "large and small sinks": sink_case(1, 3.0),
        "no sink: minus infinity": (*sink_case(2, 1.0)[:2], torch.full((4,), -torch.inf,
                                                                       dtype=torch.float64)),
    },
    mistakes=[
        Mistake("the sink's share. What is left for the keys is 1 minus that:"
                " sigmoid(lse - s), not sigmoid(s - lse).",
                gate(lambda lse, s: torch.sigmoid(s - lse))),
        Mistake("the same for all queries. A query with strong scores gives the sink less:"
                " lse belongs into the sigmoid.",
                gate(lambda lse, s: torch.sigmoid(-s).expand_as(lse))),
        Mistake("one sink per query. Each head has one: sinks[:, None] stands for all queries.",
                lambda out, lse, sinks: out * torch.sigmoid(lse - sinks)[..., None]),
        Mistake("a ratio of logarithms. The sums are exp(lse) and exp(s).",
                gate(lambda lse, s: lse / (lse + s))),
        Mistake("the ratio of the two sums. Divide by both together:"
                " exp(lse) / (exp(lse) + exp(s)).",
                gate(lambda lse, s: torch.exp(lse - s))),
        Mistake("the sink as a probability. It is a logit, like a score: exp(s) in the sum.",
                gate(lambda lse, s: (1 - s).expand_as(lse))),
    ],
)  # fmt: skip


def grade_sink(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Grade:
    """Grade a learned sink as a gate on the output (Windows, sinks and hybrids).

    Args:
        function: takes attention's output ``(B, H, T, D)``, the log-sum-exp of each row of
            scores ``(B, H, T)`` and the sinks ``(H,)``; returns the output with sinks,
            ``(B, H, T, D)``.

    Returns:
        The grade.
    """
    return SINK.grade(function)
