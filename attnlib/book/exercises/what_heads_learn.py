# ruff: noqa: D103  The hint of a mistake says what its function does.
"""Exercises on what heads learn: the share of each head, and an induction circuit by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, einsum

from attnlib.book.exercises.grading import Exercise, Grade, Mistake
from attnlib.core import merge_heads


def shares(heads: Tensor, w_o: Tensor) -> Tensor:
    """The right answer."""
    return einsum("bhtd,mhd->bhtm", heads, w_o.unflatten(1, (3, 4)))


def shares_joined_by_view(heads: Tensor, w_o: Tensor) -> Tensor:
    alone = torch.eye(3, dtype=heads.dtype)[:, None, :, None, None] * heads  # (H, B, H, T, D)
    return (alone.reshape(3, 2, 5, 12) @ w_o.T).transpose(0, 1)


def heads_and_weight(d_model: int, seed: int) -> tuple[Tensor, Tensor]:
    """Results of 3 heads, 4 wide, and an output projection."""
    generator = torch.Generator().manual_seed(seed)
    heads = torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64)
    return heads, torch.randn(d_model, 12, generator=generator, dtype=torch.float64)


SHARES = Exercise(
    answer=shares,
    cases={
        "W_O is square": heads_and_weight(12, seed=0),
        "W_O is 14 x 12": heads_and_weight(14, seed=1),
    },
    mistakes=[
        Mistake(
            "rows of W_O. Its input is the merged heads, and inputs are columns: head h has"
            " columns h * D to (h + 1) * D.",
            lambda heads, w_o: einsum("bhtd,hdm->bhtm", heads, w_o[:12].unflatten(0, (3, 4))),
        ),
        Mistake("every H-th column. The merged heads lie one after the other, and so do the"
                " columns of a head.",
                lambda heads, w_o: einsum("bhtd,mdh->bhtm", heads, w_o.unflatten(1, (4, 3)))),
        Mistake("a view of W_O that begins with the heads. Its memory runs along the rows, so"
                " cut the columns: view to (d_model, H, D).",
                lambda heads, w_o: einsum("bhtd,hdm->bhtm", heads, w_o.reshape(3, 4, -1))),
        Mistake(
            "equal parts of the whole output. The heads add different shares.",
            lambda heads, w_o: (merge_heads(heads) @ w_o.T / 3)[:, None].expand(-1, 3, -1, -1),
        ),
        Mistake("tokens before heads. The exercise asks for (B, H, T, d_model).",
                lambda heads, w_o: shares(heads, w_o).transpose(1, 2)),
        Mistake("heads joined by a view alone. Swap the axes to (B, T, H, D) before the last"
                " two are joined.", shares_joined_by_view),
        Mistake("each share divided by the number of heads. The output is their sum, so"
                " nothing is divided.", lambda heads, w_o: shares(heads, w_o) / heads.shape[1]),
        Mistake("the sum over the heads. The exercise asks for each share by itself.",
                lambda heads, w_o: merge_heads(heads) @ w_o.T),
    ],
)  # fmt: skip


def grade_shares(function: Callable[[Tensor, Tensor], Tensor]) -> Grade:
    """Grade the share of each head in a layer's output (What heads learn).

    Args:
        function: takes ``(heads, w_o)``, the heads' results of shape ``(B, H, T, D)`` and the
            weight of the output projection, ``(d_model, H * D)``; returns what each head adds
            to the output, ``(B, H, T, d_model)``.

    Returns:
        The grade.
    """
    return SHARES.grade(function)


def one_hot(word: str) -> Tensor:
    """A word as rows with a single 1 in them, shape ``(T, 5)``; its letters are A to E."""
    return torch.eye(5, dtype=torch.float64)[["ABCDE".index(letter) for letter in word]]


def token_before(x: Tensor) -> Tensor:
    """The row of the token before each token; zeros for the first."""
    return torch.cat([torch.zeros_like(x[:1]), x[:-1]])  # (T, V)


def token_after(x: Tensor) -> Tensor:
    return torch.cat([x[1:], torch.zeros_like(x[:1])])  # (T, V)


def attend(q: Tensor, k: Tensor, v: Tensor, *, dim: int = -1, seen: int | None = 0) -> Tensor:
    """Attention with scores times 20; a query sees the keys up to ``seen`` places later."""
    scores = 20 * q @ k.T  # (T, T)
    if seen is not None:
        hidden = torch.ones_like(scores).triu(seen + 1).bool()
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores.softmax(dim=dim) @ v  # (T, V)


INDUCTION = Exercise(
    answer=lambda x: attend(x, token_before(x), x),
    cases={
        "ABCABC": (one_hot("ABCABC"),),
        "two successors: ABACA": (one_hot("ABACA"),),
        "no copies: ABCDE": (one_hot("ABCDE"),),
    },
    mistakes=[
        Mistake("the key is the token itself. So a query finds copies of its own token, and not"
                " what followed them. The key is the note.", lambda x: attend(x, x, x)),
        Mistake("the value is the note. It says what the query knew already, its own token. The"
                " value is the token at the place that was found.",
                lambda x: attend(x, token_before(x), token_before(x))),
        Mistake("query and key have changed places. The query is the token, and the key is the"
                " note.", lambda x: attend(token_before(x), x, x)),
        Mistake("query and key are both the note. The query is the token itself: it looks for a"
                " place whose note is that token.",
                lambda x: attend(token_before(x), token_before(x), x)),
        Mistake("the note has the token after, not the token before. Row t of it is row t - 1"
                " of x.", lambda x: attend(x, token_after(x), x)),
        Mistake("torch.roll brings the last token round to the front. Nothing comes before the"
                " first token, so its note is zeros.",
                lambda x: attend(x, x.roll(1, dims=0), x)),
        Mistake("the future is not hidden. A query may see its own place and earlier ones.",
                lambda x: attend(x, token_before(x), x, seen=None)),
        Mistake("the mask hides the token itself, too. The first token then sees nothing, and"
                " its softmax is NaN.", lambda x: attend(x, token_before(x), x, seen=-1)),
        Mistake("scores are divided by the root of the width. A match is then hardly larger"
                " than the rest: multiply by 20.",
                lambda x: attend(x / (20 * 5**0.5), token_before(x), x)),
        Mistake("scores are not multiplied by 20, so a match hardly wins.",
                lambda x: attend(x / 20, token_before(x), x)),
        Mistake("softmax over the queries. The keys of one query share its weight: dim=-1.",
                lambda x: attend(x, token_before(x), x, dim=0)),
    ],
)  # fmt: skip


def grade_induction(function: Callable[[Tensor], Tensor]) -> Grade:
    """Grade an induction circuit that is written by hand (What heads learn).

    Args:
        function: takes the tokens as rows with a single 1 in them, shape ``(T, V)``, float64;
            returns for each token the mixture of tokens that followed earlier copies of it,
            ``(T, V)``, with scores times 20.

    Returns:
        The grade.
    """
    return INDUCTION.grade(function)
