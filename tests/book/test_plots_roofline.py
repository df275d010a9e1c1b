"""The picture of rooflines: the roof it draws is the one of the formula."""

import pytest

from attnlib.book.plots import Roof, rooflines
from attnlib.book.plots.style import INK, PAPER
from attnlib.costs import roofline_seconds
from attnlib.variants import VARIANTS

SLOW = Roof(10.0, 40.0, {"decode": {"MHA": 1.0, "MLA": 20.0}, "prefill": {"MHA": 50.0}})


@pytest.mark.parametrize("intensity", [0.5, 4.0, 17.0])
def test_share_is_the_least_time_of_arithmetic_over_the_least_time(intensity):
    """Catches a ridge upside down, and a slope that does not end at it."""
    n_bytes, flops = 100.0, 100.0 * intensity
    least = roofline_seconds(flops, n_bytes, bytes_per_second=10.0, flops_per_second=40.0)
    assert SLOW.share(intensity) == pytest.approx(flops / 40.0 / least)


def test_ridge_is_where_both_times_are_equal():
    assert SLOW.ridge == 4.0
    assert SLOW.share(3.99) < 1.0
    assert SLOW.share(4.0) == 1.0


def points(ax):
    """Place and look of each mark in axes."""
    marks = [line for line in ax.lines if line.get_marker() not in ("None", None, "")]
    return [
        (line.get_xdata()[0], line.get_ydata()[0], line.get_color(), line.get_markerfacecolor())
        for line in marks
    ]


def test_marks_stand_under_the_roof_filled_for_decode_and_open_for_prefill():
    [ax] = [axes for axes in rooflines({"slow": SLOW}).axes if axes.get_title(loc="left")]
    assert ax.get_title(loc="left") == "slow"
    blue, purple = VARIANTS["MHA"].color, VARIANTS["MLA"].color
    assert points(ax) == [
        (1.0, 25.0, blue, blue),
        (20.0, 100.0, purple, purple),
        (50.0, 100.0, blue, PAPER),
    ]


def test_weights_of_a_kind_have_one_mark():
    """Catches weights that are blended into each variant's mark, or drawn for each of them."""
    ax = rooflines({"slow": SLOW._replace(weights={"prefill": 2.0})}).axes[0]
    assert points(ax)[2] == (2.0, 50.0, INK, PAPER)
    assert len(points(ax)) == 4


def test_a_panel_for_each_machine_on_common_axes():
    fast = SLOW._replace(flops_per_second=4000.0)
    first, second = rooflines({"slow": SLOW, "fast": fast}).axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()
    assert points(second)[0][1] == pytest.approx(0.25)
    for ax in (first, second):  # nothing stands outside
        low, high = ax.get_ylim()
        assert all(low < y < high for _, y, *_ in points(ax))


@pytest.mark.parametrize(
    ("roofs", "message"),
    [
        ({}, "at least one machine, got none"),
        (
            {"m": SLOW._replace(bytes_per_second=0)},
            "bytes_per_second of m must be above 0, got 0",
        ),
        ({"m": SLOW._replace(flops_per_second=-1)}, "flops_per_second of m .* got -1"),
        ({"m": SLOW._replace(work={"a": {}, "b": {}, "c": {}})}, "at most 2 kinds, got 3"),
        ({"m": SLOW._replace(weights={"decode": 0})}, "weights of m must be above 0 .* got 0"),
        ({"m": SLOW._replace(weights={"training": 1})}, "got 1 for 'training'"),
        ({"m": SLOW._replace(work={"decode": {"ABC": 1.0}})}, "must name variants, got 'ABC'"),
        ({"m": SLOW._replace(work={"decode": {"GQA": 0.0}})}, "of GQA, decode, .* got 0.0"),
    ],
)
def test_refuses(roofs, message):
    with pytest.raises(ValueError, match=message):
        rooflines(roofs)
