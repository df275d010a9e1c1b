"""Statistics of few runs: against the density, published tables, and examples by hand."""

import math
import random

import pytest

from attnlib.labs.stats import (
    compare_all,
    estimate,
    holm,
    p_value,
    paired_difference,
    t_quantile,
    t_share,
)


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


@pytest.mark.parametrize("freedom", [*range(1, 22), 100])
def test_the_share_is_the_integral_of_the_density(freedom):
    """Catches a sum with one power of the cosine too few, for odd or for even freedoms."""
    for t in (0.5, 2.0, 4.0):
        assert t_share(t, freedom) == pytest.approx(inside(t, freedom), abs=1e-7)


@pytest.mark.parametrize(
    ("freedom", "table"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980)],
)
def test_quantiles_are_those_of_printed_tables(freedom, table):
    """Catches a one-sided quantile where the two-sided belongs."""
    assert t_quantile(freedom) == pytest.approx(table, abs=5e-4)
    assert t_share(t_quantile(freedom, 0.8), freedom) == pytest.approx(0.8)


@pytest.mark.parametrize("share", [0, 1, 95])
def test_shares_that_are_none_are_refused(share):
    with pytest.raises(ValueError, match=f"share must lie between 0 and 1, got {share}"):
        t_quantile(5, share)


def test_no_freedom_is_refused():
    with pytest.raises(ValueError, match="df must be an integer of at least 1, got 0"):
        t_share(1.0, 0)


def test_estimate_by_hand():
    """Three values: mean 2, s = 1, t = 4.3027. Catches n below the root where n - 1 belongs."""
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(4.30265 / math.sqrt(3), rel=1e-5)
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


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("function", [estimate, p_value])
def test_too_few_values_are_refused(function, n):
    with pytest.raises(ValueError, match=f"values must be at least 2 numbers, got {n}"):
        function([0.0] * n)


def test_pairs_that_do_not_match_are_refused():
    with pytest.raises(ValueError, match="base must be as long as values, 3, got 2"):
        paired_difference([1, 2, 3], [1, 2])


def test_p_and_interval_agree():
    """Values shifted so that the interval just touches 0 have p = 0.05."""
    values = [0.3, -0.1, 0.4, 0.15]
    found = estimate(values)
    assert p_value([x - found.low for x in values]) == pytest.approx(0.05)
    assert p_value([x - found.high for x in values]) == pytest.approx(0.05)
    assert p_value([x - found.mean for x in values]) == pytest.approx(1)
    assert (p_value([0.0, 0.0]), p_value([2.0, 2.0])) == (1, 0)


def test_holm_by_hand():
    """Catches Bonferroni's factor for all, and a corrected value below the one before it."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.004, 0.9, 0.02]) == pytest.approx([1.0, 0.016, 1.0, 0.06])
    assert holm([]) == []


def test_comparisons_get_their_verdicts():
    """Catches a correction by the wrong number, and verdicts in another order."""
    base = [1.0, 2.0, 4.0, 3.0, 5.0]
    noise = [0.011, -0.012, 0.02, -0.02, 0.001]
    shifts = {"open": 0.0, "alone": 0.023, "far": -1.0}
    found = compare_all({
        name: ([b + x + shift for b, x in zip(base, noise, strict=True)], base)
        for name, shift in shifts.items()
    })  # fmt: skip
    verdicts = {name: one.verdict for name, one in found.items()}
    assert verdicts == {"open": "open", "alone": "apart alone", "far": "apart after correction"}
    assert found["alone"].corrected == pytest.approx(2 * found["alone"].p)
    assert found["far"].corrected == pytest.approx(3 * found["far"].p)
    assert (found["alone"].same_sign, found["far"].same_sign) == (5, 5)
    assert found["far"].gap.mean == pytest.approx(-1)
    assert found["far"].correlation > 0.999
