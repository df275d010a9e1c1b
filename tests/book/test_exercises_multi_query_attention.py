"""Sharing without copies: what copies is found with its line, and nothing else is."""

import pytest
import torch
from grades import one_line

from attnlib.book.exercises import grade_unrepeated


def shared(scores_of, values_of):
    """Attention from two products over groups."""

    def attend(q, k, v, mask=None):
        scores = scores_of(q, k.mT) * q.shape[-1] ** -0.5  # (B, H, T, S)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1)
        return values_of(weights, v).reshape(q.shape), weights

    return attend


def as_rows(a, b):
    B, H, T, _ = a.shape
    return (a.reshape(B, b.shape[1], -1, a.shape[-1]) @ b).reshape(B, H, T, -1)


def stretched(a, b):
    groups = a.unflatten(1, (b.shape[1], -1))  # (B, H_kv, G, T, ...)
    return (groups @ b[:, :, None]).flatten(1, 2)


def repeated(a, b):
    return a @ b.repeat_interleave(a.shape[1] // b.shape[1], dim=1)


def in_turns(a, b):
    return a @ b.repeat(1, a.shape[1] // b.shape[1], 1, 1)


def by_index(a, b):
    heads, kv_heads = a.shape[1], b.shape[1]
    return a @ b[:, torch.arange(heads) // (heads // kv_heads)]


@pytest.mark.parametrize("n_kv_heads", [1, 2, 3])
def test_queries_as_rows_repeat_nothing(n_kv_heads):
    """Catches a recorder that takes scores, views or k itself for a copy."""
    assert grade_unrepeated(shared(as_rows, as_rows), n_kv_heads=n_kv_heads).solved


LINES = {
    stretched: "(groups @ b[:, :, None])",
    repeated: "repeat_interleave(",
    by_index: "b[:, torch.arange(",
}


@pytest.mark.parametrize("product", LINES)
@pytest.mark.parametrize("n_kv_heads", [1, 2, 3])
def test_copies_are_found(product, n_kv_heads):
    """Catches a recorder that misses a copy, such as that of a product that broadcasts."""
    grade = grade_unrepeated(shared(product, product), n_kv_heads=n_kv_heads)
    assert grade.reports.failed == ["nothing repeated"]
    assert LINES[product] in one_line(grade)


def test_copies_of_values_alone_are_found():
    """Catches a recorder that looks at the keys only."""
    grade = grade_unrepeated(shared(as_rows, repeated), n_kv_heads=3)
    assert grade.reports.failed == ["nothing repeated"]


def test_wrong_order_is_found_before_copies():
    """Catches a grade that is solved by heads in turns, and one that hides why it is not."""
    grade = grade_unrepeated(shared(in_turns, in_turns), n_kv_heads=3)
    assert "head grouping" in grade.reports.failed
    assert "in turns" in one_line(grade)
    assert "nothing repeated" not in one_line(grade)


def test_code_that_stops_at_the_last_check_is_told_where():
    """Catches a grader that raises what code raises after it has passed the first checks."""

    def attend(q, k, v, mask=None):
        if q.shape[2] == 1:
            raise RuntimeError("one query is too few")
        return shared(as_rows, as_rows)(q, k, v, mask)

    grade = grade_unrepeated(attend, n_kv_heads=3)
    assert not grade.solved
    assert "one query is too few" in grade.text
