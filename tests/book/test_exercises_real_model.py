"""Rows in another order, weight on the first token: what right and wrong code gets."""

import torch
from grades import hint_of

from attnlib.book.exercises import grade_first_share, grade_half_split


def by_index(rows, n_heads):
    D = len(rows) // n_heads
    order = [*range(0, D, 2), *range(1, D, 2)]
    return rows[[head * D + i for head in range(n_heads) for i in order]]


def test_rows_by_their_index():
    """Catches a reference that is not what the exercise describes."""
    assert grade_half_split(by_index).solved


def test_the_way_back_and_all_heads_in_one_are_told_apart():
    def back(rows, n_heads):
        heads = rows.view(n_heads, 2, -1, rows.shape[1])
        return heads.transpose(1, 2).reshape(rows.shape)

    assert "the way back" in hint_of(grade_half_split(back))
    assert "all heads in one" in hint_of(grade_half_split(lambda rows, n: by_index(rows, 1)))


def test_shares_in_a_loop():
    def loop(weights, start):
        queries = range(start, weights.shape[-1])
        return torch.stack([weights[:, :, t, 0] for t in queries]).mean(dim=0)

    assert grade_first_share(loop).solved


def test_early_queries_and_the_wrong_axis_are_told_apart():
    hint = hint_of(grade_first_share(lambda weights, start: weights[..., :, 0].mean(dim=-1)))
    assert "early queries count" in hint
    hint = hint_of(grade_first_share(lambda weights, start: weights[..., 0, start:].mean(-1)))
    assert "the row of the first query" in hint
