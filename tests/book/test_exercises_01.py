"""The graded exercise of chapter 1: right merges are solved, and typical mistakes are named."""

import pytest
import torch

from attnlib.book.exercises import grade_merge


def right(out_a, lse_a, out_b, lse_b):
    lse = torch.logaddexp(lse_a, lse_b)
    return out_a * (lse_a - lse).exp()[:, None] + out_b * (lse_b - lse).exp()[:, None]


def over_one_maximum(out_a, lse_a, out_b, lse_b):
    a, b = (torch.exp(lse - max(lse_a.max(), lse_b.max()))[:, None] for lse in (lse_a, lse_b))
    return (a * out_a + b * out_b) / (a + b)


@pytest.mark.parametrize("mine", [right, over_one_maximum])
def test_a_right_merge_solves_it(mine):
    assert grade_merge(mine).solved


def undivided(out_a, lse_a, out_b, lse_b):
    top = torch.maximum(lse_a, lse_b)
    return out_a * torch.exp(lse_a - top)[:, None] + out_b * torch.exp(lse_b - top)[:, None]


def along_the_last_axis(out_a, lse_a, out_b, lse_b):
    share = torch.stack([lse_a, lse_b]).softmax(dim=-1)[..., None]
    return share[0] * out_a + share[1] * out_b


def unguarded(out_a, lse_a, out_b, lse_b):
    a, b = lse_a.exp()[:, None], lse_b.exp()[:, None]
    return (a * out_a + b * out_b) / (a + b)


MISTAKES = {
    "the mean of the two outputs": lambda a, x, b, y: (a + b) / 2,
    "the sum of the two outputs": lambda a, x, b, y: a + b,
    "the other block's weight": lambda a, x, b, y: right(a, y, b, x),
    "do not sum to 1": undivided,
    "softmax over the queries": along_the_last_axis,
    "weighted by the logarithms": lambda a, x, b, y: ((a.T * x + b.T * y) / (x + y)).T,
    "overflows": unguarded,
}


@pytest.mark.parametrize("hint", MISTAKES)
def test_a_mistake_is_named(hint):
    """Catches cases that cannot tell two mistakes apart, and hints for another one."""
    grade = grade_merge(MISTAKES[hint])
    assert not grade.solved
    assert hint in " ".join(grade.text.partition("a known mistake:")[2].split()), grade


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (lambda *some: None, "Nothing came back (None): is a `return` missing?"),
        (lambda *some: right(*some).T, "the shape is (6, 4), expected (4, 6)"),
        (lambda *some: right(*some)[None], "expected (4, 6); the numbers are right"),
        (lambda *some: right(*some).tolist(), "a tensor of shape (4, 6), got a list of 4"),
        (lambda *some: right(*some).long(), "their dtype is torch.int64"),
        (lambda a, x, b, y: a @ b, "with RuntimeError"),
    ],
)
def test_other_answers_say_what_came(mine, words):
    grade = grade_merge(mine)
    assert not grade.solved and "known mistake" not in grade.text
    assert words in " ".join(grade.text.split()), grade
