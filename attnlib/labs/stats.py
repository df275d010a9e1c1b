"""Means of few runs, with the interval that says how far they can be trusted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

# 97.5 % quantiles of Student's t with 1, 2, 3, ... degrees of freedom: 95 % of the distribution
# lie between minus this and this. A test integrates the density.
T_QUANTILES = (
    *(12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281),
    *(2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860),
)


class Estimate(NamedTuple):
    """A mean with its 95 % interval, mean - half to mean + half.

    Attributes:
        mean: of the values.
        half: half the width of the interval, in the values' unit.
        count: how many values.
    """

    mean: float
    half: float
    count: int

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.low > 0 or self.high < 0


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent values and its 95 % interval, by Student's t.

    If the values are independent and normal, then 95 of 100 intervals made in this way contain
    the mean of the distribution that they come from.

    Source: Student 1908, The probable error of a mean, Biometrika 6.

    Args:
        values: 2 to 21 numbers.

    Returns:
        The estimate; its half width is t s / sqrt(n), s with n - 1 below it.

    Raises:
        ValueError: if there are fewer than 2 values or more than 21.
    """
    n = len(values)
    if not 2 <= n <= len(T_QUANTILES) + 1:
        raise ValueError(f"values must be 2 to {len(T_QUANTILES) + 1} numbers, got {n}")
    half = T_QUANTILES[n - 2] * statistics.stdev(values) / math.sqrt(n)
    return Estimate(statistics.fmean(values), half, n)


def paired_difference(values: Sequence[float], base: Sequence[float]) -> Estimate:
    """Mean of value - base over pairs, such as two variants trained from one seed.

    What both members of a pair have in common, such as their batches, drops out. So the
    interval can be narrower than those of the two means.

    Args:
        values: 2 to 21 numbers.
        base: as many, in the same order.

    Returns:
        The estimate of the difference; negative = smaller than ``base``.

    Raises:
        ValueError: if the lengths differ, or there are fewer than 2 pairs or more than 21.
    """
    if len(values) != len(base):
        raise ValueError(f"base must be as long as values, {len(values)}, got {len(base)}")
    return estimate([value - other for value, other in zip(values, base, strict=True)])
