"""Pictures of the conversion lab: they draw the lab's numbers."""

import pytest
import torch

from attnlib.book import plots
from attnlib.labs.stats import estimate


def lines_of(ax):
    """Return the points of each curve with intervals, by its label."""
    drawn = {}
    for container in ax.containers:
        (line, *_) = container.lines
        drawn[container.get_label()] = (list(line.get_xdata()), list(line.get_ydata()))
    return drawn


def test_a_curve_that_begins_later_is_drawn_at_the_later_steps():
    """Catches a fresh model's losses drawn one evaluation too early."""
    estimates = [estimate([x, x + 0.2]) for x in (4.0, 3.0, 2.0)]
    fig = plots.healing(
        {"one": {"mean": estimates, "fresh": estimates[1:]}}, (0, 5, 10), estimates
    )
    drawn = lines_of(fig.axes[0])
    assert [round(x) for x in drawn["mean"][0]] == [0, 1, 2]
    assert [round(x) for x in drawn["fresh"][0]] == [1, 2]
    assert drawn["fresh"][1] == pytest.approx([3.1, 2.1])


def test_losses_are_drawn_at_the_size_of_their_cache():
    """Catches points drawn at the number of heads or at the rank."""
    estimates = {16: estimate([2.0, 2.2]), 64: estimate([1.0, 1.2])}
    fig = plots.loss_by_cache({"now": {"latent": estimates}}, {"now": estimates[16]})
    assert lines_of(fig.axes[0])["latent"] == ([16, 64], pytest.approx([2.1, 1.1]))


def test_shadows_lie_on_the_longest_axis():
    """Catches the second axis, and the SVD's columns taken for its rows."""
    points = torch.tensor([[3.0, 4.0], [-6.0, -8.0], [0.4, -0.3]])  # along (3, 4), and one off
    ax = plots.cloud(points).axes[0]
    drawn = {line.get_label(): line.get_xydata() for line in ax.lines}
    assert drawn["keys and values"] == pytest.approx(points.numpy())
    shadows = drawn["shadows"]
    assert shadows[:2] == pytest.approx(points[:2].numpy())
    assert shadows[2] == pytest.approx([0, 0], abs=1e-6)


def test_the_picture_of_the_moves_has_a_box_for_each_head():
    """Catches a latent drawn narrower than the heads that it is as wide as."""
    (ax,) = plots.moves(n_heads=6, n_kv_heads=2, rank=3).axes
    widths = sorted(patch.get_width() for patch in ax.patches if hasattr(patch, "get_width"))
    assert len(widths) == 2 * 6 + 2 * 2 + 2 * 2 + 1
    assert widths[-1] == pytest.approx(3 * 0.8 - 0.1)
