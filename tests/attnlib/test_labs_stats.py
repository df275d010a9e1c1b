"""Intervals of few runs: the table against the density, and whether they keep their promise."""

import math
import random

import pytest

from attnlib.labs.stats import T_QUANTILES, estimate, paired_difference


def inside(t, freedom, parts=4000):
    """Share of Student's t between -t and t, by Simpson's rule over its density."""
    factor = math.gamma((freedom + 1) / 2) / math.gamma(freedom / 2)
    factor /= math.sqrt(freedom * math.pi)
    width = t / parts
    total = 0.0
    for i in range(parts + 1):
        weight = 1 if i in (0, parts) else 4 if i % 2 else 2
        total += weight * (1 + (i * width) ** 2 / freedom) ** (-(freedom + 1) / 2)
    return 2 * factor * total * width / 3


@pytest.mark.parametrize("freedom", range(1, len(T_QUANTILES) + 1))
def test_quantiles_hold_95_percent(freedom):
    """Catches a slip of the pen in any digit of the table."""
    quantile = T_QUANTILES[freedom - 1]
    assert inside(quantile - 6e-5, freedom) < 0.95 < inside(quantile + 6e-5, freedom)


def test_estimate_by_hand():
    """Three values: mean 2, s = 1, t = 4.3027. Catches n below the root where n - 1 belongs."""
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(4.3027 / math.sqrt(3))
    assert (found.low, found.high) == (2 - found.half, 2 + found.half)
    assert found.count == 3


def test_intervals_hold_the_mean_95_times_in_100():
    """Catches a normal quantile where Student's belongs: with 5 values it holds 88 of 100."""
    rng = random.Random(0)
    trials = 4000
    held = 0
    for _ in range(trials):
        found = estimate([rng.gauss(3, 2) for _ in range(5)])
        held += found.low <= 3 <= found.high
    assert 0.94 < held / trials < 0.96


def test_pairs_drop_what_they_have_in_common():
    """Catches a difference of means with the interval of unpaired values."""
    rng = random.Random(1)
    common = [rng.gauss(0, 10) for _ in range(6)]
    base = [x + rng.gauss(0, 0.1) for x in common]
    other = [x + 1 + rng.gauss(0, 0.1) for x in common]
    difference = paired_difference(other, base)
    assert difference.mean == pytest.approx(estimate(other).mean - estimate(base).mean)
    assert difference.half < 0.5 < estimate(base).half
    assert difference.excludes_zero
    assert paired_difference(base, other).mean == pytest.approx(-difference.mean)
    assert paired_difference(base, other).excludes_zero
    assert not paired_difference([1.0, 2.0, 4.0], [2.0, 2.0, 3.0]).excludes_zero


@pytest.mark.parametrize("n", [0, 1, len(T_QUANTILES) + 2])
def test_too_few_and_too_many_are_refused(n):
    with pytest.raises(ValueError, match=f"values must be 2 to 21 numbers, got {n}"):
        estimate([0.0] * n)


def test_pairs_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="base must be as long as values, 3, got 2"):
        paired_difference([1, 2, 3], [1, 2])
