"""Means of few runs: their intervals, differences, and a correction for many comparisons."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from attnlib.checks import check_size


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


class Comparison(NamedTuple):
    """One of several paired comparisons.

    Attributes:
        gap: mean of value - base over the pairs, with its 95 % interval.
        same_sign: pairs whose difference has the sign of the mean.
        correlation: of the two members of a pair over the pairs, -1 to 1; the part of the luck
            that subtracting removes.
        p: of the t-test, for this comparison alone: see :func:`p_value`.
        corrected: p after Holm's correction for all comparisons: see :func:`holm`.
    """

    gap: Estimate
    same_sign: int
    correlation: float
    p: float
    corrected: float

    @property
    def verdict(self) -> str:
        """The verdict, one of "apart after correction", "apart alone" and "open"."""
        if self.corrected < 0.05:
            return "apart after correction"
        return "apart alone" if self.p < 0.05 else "open"


def t_share(t: float, df: int) -> float:
    """Return the share of Student's t distribution that lies between -t and t.

    Source: Abramowitz and Stegun 1964, Handbook of mathematical functions, 26.7.3 and 26.7.4.

    Args:
        t: 0 or more.
        df: degrees of freedom, 1 or more: n - 1 for the mean of n values.

    Returns:
        A probability.

    Raises:
        ValueError: if ``df`` is below 1.
    """
    check_size("df", df)
    angle = math.atan(t / math.sqrt(df))
    first = df % 2  # the sum has odd or even powers of the cosine, up to df - 2
    term, total = math.cos(angle) ** first, 0.0
    for power in range(first, df - 1, 2):
        if power > first:
            term *= math.cos(angle) ** 2 * (power - 1) / power
        total += term
    if first:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total


@cache
def t_quantile(df: int, share: float = 0.95) -> float:
    """Return the t for which a share of Student's t distribution lies between -t and t.

    Source: Student 1908, The probable error of a mean, Biometrika 6.

    Args:
        df: degrees of freedom, 1 or more: n - 1 for the mean of n values.
        share: between 0 and 1.

    Returns:
        The quantile: 12.706 for one degree of freedom, 1.960 for very many.

    Raises:
        ValueError: if ``df`` is below 1, or ``share`` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    low, high = 0.0, 1.0
    while t_share(high, df) < share:
        high *= 2
    for _ in range(60):  # halve the range until it is as narrow as a float can tell
        middle = (low + high) / 2
        low, high = (middle, high) if t_share(middle, df) < share else (low, middle)
    return high


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of independent values and its 95 % interval, by Student's t.

    If the values are independent and normal, then 95 of 100 intervals made in this way contain
    the mean of the distribution that they come from.

    Source: Student 1908, The probable error of a mean, Biometrika 6.

    Args:
        values: 2 or more numbers.

    Returns:
        The estimate; its half width is t s / sqrt(n), s with n - 1 below it.

    Raises:
        ValueError: if there are fewer than 2 values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"values must be at least 2 numbers, got {n}")
    half = t_quantile(n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Estimate(statistics.fmean(values), half, n)


def paired_difference(values: Sequence[float], base: Sequence[float]) -> Estimate:
    """Mean of value - base over pairs, such as two variants trained from one seed.

    What both members of a pair have in common, such as their batches, drops out. So the
    interval can be narrower than those of the two means.

    Args:
        values: 2 or more numbers.
        base: as many, in the same order.

    Returns:
        The estimate of the difference; negative = smaller than ``base``.

    Raises:
        ValueError: if the lengths differ, or there are fewer than 2 pairs.
    """
    return estimate(differences(values, base))


def differences(values: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return value - base for each pair.

    Args:
        values: numbers.
        base: as many, in the same order.

    Returns:
        As many differences.

    Raises:
        ValueError: if the lengths differ.
    """
    if len(values) != len(base):
        raise ValueError(f"base must be as long as values, {len(values)}, got {len(base)}")
    return [value - other for value, other in zip(values, base, strict=True)]


def p_value(values: Sequence[float]) -> float:
    """Return how often values with a true mean of 0 give a t at least as far from 0.

    It is below 0.05 exactly if the 95 % interval of :func:`estimate` excludes 0.

    Source: Student 1908, The probable error of a mean, Biometrika 6.

    Args:
        values: 2 or more numbers, which should be independent and roughly normal.

    Returns:
        A probability, two-sided.

    Raises:
        ValueError: if there are fewer than 2 values.
    """
    n = len(values)
    if n < 2:
        raise ValueError(f"values must be at least 2 numbers, got {n}")
    mean, s = statistics.fmean(values), statistics.stdev(values)
    if s == 0:
        return float(mean == 0)
    return 1 - t_share(abs(mean) * math.sqrt(n) / s, n - 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p values for their number, so that all of them together err in 5 of 100 cases.

    The smallest is multiplied by their number, the next by one less, and so on; none becomes
    smaller than the one before it.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure, Scandinavian
    Journal of Statistics 6.

    Args:
        p_values: one per comparison, which need not be independent.

    Returns:
        The corrected values, in the order of the arguments.
    """
    corrected, most = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        most = max(most, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = most
    return corrected


def compare_all(
    pairs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> dict[str, Comparison]:
    """Compare several pairs of variants, with a correction for their number.

    Args:
        pairs: name of a comparison to values and base, seed by seed.

    Returns:
        The comparisons by name, in the order of the arguments.

    Raises:
        ValueError: if the lengths of a pair differ, or there are fewer than 2 seeds.
    """
    gaps = {name: differences(*both) for name, both in pairs.items()}
    p_values = [p_value(gap) for gap in gaps.values()]
    corrected = holm(p_values)
    found = {}
    for i, (name, gap) in enumerate(gaps.items()):
        mean = estimate(gap)
        same_sign = sum(difference * mean.mean > 0 for difference in gap)
        correlation = statistics.correlation(*pairs[name])
        found[name] = Comparison(mean, same_sign, correlation, p_values[i], corrected[i])
    return found
