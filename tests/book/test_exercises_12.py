"""The graded exercise of chapter 12: right intervals are solved, typical mistakes are named."""

import math
import statistics

import numpy as np
import pytest
import torch

from attnlib.book.exercises import grade_paired_interval


def by_hand(
    *, below=lambda n: n - 1, root=math.sqrt, divisor=math.sqrt, factor=lambda t: t, ends=None
):
    """A newcomer's interval, with one thing to get wrong at a time."""

    def interval(a, b, t):
        differences = [a[i] - b[i] for i in range(len(a))]
        n = len(differences)
        mean = sum(differences) / n
        spread = root(sum((x - mean) ** 2 for x in differences) / below(n))
        half = factor(t) * spread / divisor(n)
        return ends(mean, half) if ends else (mean - half, mean + half)

    return interval


def of_two_groups(a, b, t):
    spread = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b))
    mean = sum(a) / len(a) - sum(b) / len(b)
    return mean - t * spread, mean + t * spread


def of_sums(a, b, t):
    some = [(sum(x) / len(x), t * statistics.stdev(x) / math.sqrt(len(x))) for x in (a, b)]
    mean, half = some[0][0] - some[1][0], some[0][1] + some[1][1]
    return mean - half, mean + half


def with_numpy(a, b, t):
    """As most would: NumPy's std has n below the sum, unless it is told."""
    some = np.array(a) - np.array(b)
    half = t * some.std() / np.sqrt(len(some))
    return some.mean() - half, some.mean() + half


def with_torch(a, b, t):
    """In float32, as lists become."""
    some = torch.tensor(a) - torch.tensor(b)
    half = t * some.std() / len(a) ** 0.5
    return some.mean() - half, some.mean() + half


def as_a_list(a, b, t):
    return list(by_hand()(a, b, t))


@pytest.mark.parametrize("mine", [by_hand(), with_torch, as_a_list])
def test_a_right_interval_solves_it(mine):
    """Catches numbers that float32 rounds too far."""
    grade = grade_paired_interval(mine)
    assert grade.solved, grade


MISTAKES = {
    "n below the sum of squares": by_hand(below=lambda n: n),
    "with n below the sum": with_numpy,
    "the variance in place of its root": by_hand(root=lambda x: x),
    "where single differences lie": by_hand(divisor=lambda n: 1),
    "a spread divided by n.": by_hand(divisor=lambda n: n),
    "square root of n - 1": by_hand(divisor=lambda n: math.sqrt(n - 1)),
    "1.96, which": by_hand(factor=lambda t: 1.96),
    "without t": by_hand(factor=lambda t: 1),
    "b - a": lambda a, b, t: by_hand()(b, a, t),
    "the upper end first": by_hand(ends=lambda mean, half: (mean + half, mean - half)),
    "mean and half width": by_hand(ends=lambda mean, half: (mean, half)),
    "two groups without pairs": of_two_groups,
    "added up": of_sums,
}


@pytest.mark.parametrize("hint", MISTAKES)
def test_a_mistake_is_named(hint):
    """Catches cases that cannot tell two mistakes apart, and hints for another one."""
    grade = grade_paired_interval(MISTAKES[hint])
    assert not grade.solved
    remark = " ".join(grade.text.partition("a known mistake:")[2].split())
    assert hint in remark and "at once" not in remark, grade


def test_two_mistakes_are_named_together():
    grade = grade_paired_interval(by_hand(below=lambda n: n, factor=lambda t: 1.96))
    remark = " ".join(grade.text.partition("a known mistake:")[2].split())
    assert remark.startswith("two at once: (1) a spread with n below") and "(2) 1.96" in remark


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (lambda a, b, t: None, "Nothing came back (None): is a `return` missing?"),
        (lambda a, b, t: 0.02, "expected (-0.02319, 0.05444), got 0.02"),
        (lambda a, b, t: torch.zeros(2), "got a tensor of shape (2,)"),
        (lambda a, b: (0.0, 0.0), "TypeError"),
    ],
)
def test_other_answers_say_what_came(mine, words):
    grade = grade_paired_interval(mine)
    assert not grade.solved and "known mistake" not in grade.text
    assert words in " ".join(grade.text.split()), grade
