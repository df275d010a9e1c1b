# ruff: noqa: D103  The hint of a mistake says what its function does.
"""Exercise of the quality lab: the interval of a paired difference."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import wraps

from attnlib.book.exercises.answers import same
from attnlib.book.exercises.grading import Exercise, Grade, Mistake, combined

BELOW = (
    lambda n: n - 1,
    Mistake("a spread with n below the sum of squares. A sample has n - 1.", lambda n: n),
)
POWERS = (0.5, Mistake("the variance instead of its root, the standard deviation.", 1))
DIVISORS = (
    lambda n: n**0.5,
    Mistake("where single differences lie. Divide by root n for their mean.", lambda n: 1),
    Mistake("a spread divided by n. Divide by the square root of n.", lambda n: n),
    Mistake("a spread divided by the square root of n - 1. That 1 is subtracted once, inside"
            " the spread.", lambda n: (n - 1) ** 0.5),
)  # fmt: skip
FACTORS = (
    lambda t: t,
    Mistake("1.96, which is right for very many pairs. Take t.", lambda t: 1.96),
    Mistake("an interval without t. Multiply the error of the mean by it.", lambda t: 1),
)
ENDS = (
    lambda mean, half: (mean - half, mean + half),
    Mistake("b - a: all signs are exchanged.", lambda mean, half: (-mean - half, half - mean)),
    Mistake("the upper end first.", lambda mean, half: (mean + half, mean - half)),
    Mistake("mean and half width, not the two ends.", lambda mean, half: (mean, half)),
)


def interval(
    below: Callable, power: float, divisor: Callable, factor: Callable, ends: Callable
) -> Callable[..., tuple[float, float]]:
    """An answer made of five parts."""

    def of_pairs(a: list[float], b: list[float], t: float) -> tuple[float, float]:
        differences = [x - y for x, y in zip(a, b, strict=True)]
        n, mean = len(differences), statistics.fmean(differences)
        spread = (sum((x - mean) ** 2 for x in differences) / below(n)) ** power
        return ends(mean, factor(t) * spread / divisor(n))

    return of_pairs


def paired(a: list[float], b: list[float], t: float) -> tuple[float, float]:
    """The right answer."""
    differences = [x - y for x, y in zip(a, b, strict=True)]
    half = t * statistics.stdev(differences) / len(differences) ** 0.5
    return statistics.fmean(differences) - half, statistics.fmean(differences) + half


def unpaired(a: list[float], b: list[float], t: float) -> tuple[float, float]:
    variance = (statistics.variance(a) + statistics.variance(b)) / len(a)
    mean, half = statistics.fmean(a) - statistics.fmean(b), t * variance**0.5
    return mean - half, mean + half


def of_two_means(a: list[float], b: list[float], t: float) -> tuple[float, float]:
    half = sum(t * statistics.stdev(losses) / len(losses) ** 0.5 for losses in (a, b))
    mean = statistics.fmean(a) - statistics.fmean(b)
    return mean - half, mean + half


THREE_PAIRS = ([1.5, 1.5625, 1.53125], [1.484375, 1.53125, 1.53125], 4.3027)

# Two of them cancel: n below the sum of squares, and a spread divided by the root of n - 1.
WAYS = combined(interval, BELOW, POWERS, DIVISORS, FACTORS, ENDS)

PAIRED_INTERVAL = Exercise(
    answer=paired,
    cases={  # binary fractions: their differences are exact in float32 too
        "three pairs": THREE_PAIRS,
        "pairs that move together": (
            [1.40625, 1.703125, 1.546875, 1.609375],
            [1.421875, 1.71875, 1.578125, 1.640625],
            3.1824,
        ),
        "pairs that do not": ([3.0, 1.0, 2.0, 5.0, 4.0], [2.0, 6.0, 1.0, 3.0, 5.0], 2.7764),
    },
    mistakes=[
        Mistake("the interval of two groups without pairs. Subtract seed by seed first: only"
                " then does what a pair has in common drop out.", unpaired),
        Mistake("half widths of the two means, added up. Subtract seed by seed first.",
                of_two_means),
        *(m for m in WAYS if not same(m.answer(*THREE_PAIRS), paired(*THREE_PAIRS))),
    ],
)  # fmt: skip


def grade_paired_interval(
    function: Callable[[list[float], list[float], float], tuple[float, float]],
) -> Grade:
    """Grade the interval of a paired difference (Quality lab).

    Args:
        function: takes ``(a, b, t)``, the losses of two variants seed by seed and the quantile
            of Student's t for as many pairs; returns the lower and the upper end of the
            interval of the mean of a - b, as a tuple or a list.

    Returns:
        The grade.
    """

    @wraps(function)
    def as_tuple(a: list[float], b: list[float], t: float) -> object:
        answer = function(a, b, t)
        return tuple(answer) if isinstance(answer, list) else answer

    return PAIRED_INTERVAL.grade(as_tuple)
