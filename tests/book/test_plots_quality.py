"""Pictures of the quality lab: what is drawn is what was found."""

import pytest

from attnlib.book.plots import (
    intervals,
    loss_beside_costs,
    loss_over_training,
    paired_differences,
)
from attnlib.labs.quality import CONFIGURATIONS, OWN_CACHE, Quality, QualityRun, Settings
from attnlib.labs.stats import Estimate, estimate, paired_difference

STEPS = (0, 200, 400)


@pytest.fixture
def found():
    """Losses that differ between all configurations, seeds and steps."""
    runs = [
        QualityRun(name, seed, [(step, 5 - step / 100 + i / 10 + (7 * seed + 3 * i) % 5 / 40)
                         for step in STEPS], 0.1 + i / 50, 1000)
        for seed in (1, 2, 3) for i, name in enumerate(CONFIGURATIONS)
    ]  # fmt: skip
    sizes = {name: {"cache_bytes": 512 if "Q" in name else 64} for name in CONFIGURATIONS}
    return Quality({}, {}, Settings(), runs, sizes)


def line_of(ax, name):
    return next(line for line in ax.lines if line.get_label() == name)


def test_curves_are_means_and_paired_differences(found):
    """Catches curves of one seed, and differences of another look at the text."""
    left, right = loss_over_training(found, OWN_CACHE).axes
    for name in OWN_CACHE:
        means = [estimate(found.losses(name, look)).mean for look in (1, 2)]
        assert list(line_of(left, name).get_ydata()) == pytest.approx(means)
        assert list(line_of(left, name).get_xdata()) == [200, 400]
    gaps = [paired_difference(found.losses("MLA", k), found.losses("MHA", k)) for k in (1, 2)]
    assert list(line_of(right, "MLA").get_ydata()) == pytest.approx([e.mean for e in gaps])
    assert "MHA" not in {line.get_label() for line in right.lines}
    bands = [band.get_paths()[0].vertices[:, 1] for band in right.collections]
    assert max(bands[-1]) == pytest.approx(max(e.high for e in gaps))
    assert min(bands[-1]) == pytest.approx(min(e.low for e in gaps))


def test_intervals_are_drawn_to_scale():
    """Catches bars of the whole width where the half belongs, and rows in another order."""
    rows = {"GQA": [0.1, 0.3, 0.2], "MQA, wide heads": [-0.1, -0.2, -0.15]}
    (ax,) = paired_differences({"title": rows}).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == list(rows)
    for y, (bar, values) in enumerate(zip(ax.containers, rows.values(), strict=True)):
        wanted = estimate(values)
        (segment,) = bar.lines[2][0].get_segments()
        assert segment[:, 0] == pytest.approx([wanted.low, wanted.high])
        assert segment[:, 1] == pytest.approx([y, y])
        assert bar.lines[0].get_xdata() == pytest.approx([wanted.mean])
    assert ax.get_ylim()[0] > ax.get_ylim()[1]  # the first row is on top
    marks = [bar.lines[0].get_markerfacecolor() for bar in ax.containers]
    assert marks[1] == "none" != marks[0]


def test_an_interval_that_misses_is_marked():
    """Catches half widths drawn as whole ones, and a mark by the mean instead of the ends."""
    caught, missed = Estimate(1.2, 0.3, 6), Estimate(1.4, 0.3, 6)
    (ax,) = intervals([caught, missed], truth=1.0).axes
    _, bar, mark, other_bar, other_mark = ax.lines
    assert list(bar.get_xdata()) == pytest.approx([0.9, 1.5])
    assert list(other_bar.get_xdata()) == pytest.approx([1.1, 1.7])
    assert (bar.get_linestyle(), other_bar.get_linestyle()) == ("-", "--")
    assert mark.get_markerfacecolor() == mark.get_color()
    assert other_mark.get_markerfacecolor() != other_mark.get_color()


def test_costs_are_beside_the_loss(found):
    """Catches a time of another configuration, and marks on top of each other."""
    left, right = loss_beside_costs(found, CONFIGURATIONS).axes
    for i, (name, bar) in enumerate(zip(CONFIGURATIONS, right.containers, strict=True)):
        assert bar.lines[0].get_xdata() == pytest.approx([1000 * (0.1 + i / 50)])
        assert bar.lines[0].get_ydata() == pytest.approx([estimate(found.losses(name)).mean])
    places = [bar.lines[0].get_xdata()[0] for bar in left.containers]
    assert len(set(places)) == len(places)
    for name, place in zip(CONFIGURATIONS, places, strict=True):
        assert 1 <= place / found.sizes[name]["cache_bytes"] < 1.8
