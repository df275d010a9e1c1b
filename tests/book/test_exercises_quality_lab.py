"""The paired interval: other right ways are solved, and other answers described."""

import math

import numpy as np
import pytest
import torch
from grades import hint_of, one_line

from attnlib.book.exercises import grade_paired_interval


def by_hand(a, b, t, below=lambda n: n - 1, factor=lambda t: t):
    differences = [a[i] - b[i] for i in range(len(a))]
    n = len(differences)
    mean = sum(differences) / n
    spread = math.sqrt(sum((x - mean) ** 2 for x in differences) / below(n))
    half = factor(t) * spread / math.sqrt(n)
    return mean - half, mean + half


def with_numpy(a, b, t):
    """As many would: NumPy's std divides by n unless told otherwise."""
    differences = np.array(a) - np.array(b)
    half = t * differences.std() / np.sqrt(len(differences))
    return differences.mean() - half, differences.mean() + half


def population(a, b, t):
    """Right in another way: n below the sum, and the root of n - 1 in the divisor."""
    differences = np.array(a) - np.array(b)
    half = t * differences.std() / np.sqrt(len(differences) - 1)
    return differences.mean() - half, differences.mean() + half


def with_torch(a, b, t):
    """In float32, as lists become."""
    differences = torch.tensor(a) - torch.tensor(b)
    half = t * differences.std() / len(a) ** 0.5
    return differences.mean() - half, differences.mean() + half


@pytest.mark.parametrize(
    "interval", [by_hand, population, with_torch, lambda *given: list(by_hand(*given))]
)
def test_a_right_interval_solves_it(interval):
    """Catches numbers that float32 rounds too far."""
    assert grade_paired_interval(interval).solved


def test_numpys_spread_is_recognised():
    assert "n below the sum of squares" in hint_of(grade_paired_interval(with_numpy))


def test_two_mistakes_are_named_together():
    def wrong(a, b, t):
        return by_hand(a, b, t, below=lambda n: n, factor=lambda t: 1.96)

    hint = hint_of(grade_paired_interval(wrong))
    assert hint.startswith("two at once: (1) a spread with n below") and "(2) 1.96" in hint


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (lambda a, b, t: 0.02, "expected (-0.02319, 0.05444), got 0.02"),
        (lambda a, b, t: torch.zeros(2), "got a tensor of shape (2,)"),
        (lambda a, b: (0.0, 0.0), "TypeError"),
    ],
)
def test_other_answers_are_described(interval, words):
    grade = grade_paired_interval(interval)
    assert hint_of(grade) == ""
    assert words in one_line(grade)
