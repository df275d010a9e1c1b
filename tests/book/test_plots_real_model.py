"""Pictures of the real model: they draw the numbers that they are given."""

import numpy as np
import pytest

from attnlib.book import plots


def images(fig):
    return [np.asarray(ax.images[0].get_array()) for ax in fig.axes if ax.images]


def test_maps_show_layers_as_rows():
    """Catches maps that are turned, and panels in another order."""
    panels = [np.arange(12).reshape(4, 3) / 12, np.ones((4, 3)) / 2]
    shown = images(plots.head_maps(panels, ["a", "b"]))
    assert len(shown) == 2
    assert all(np.array_equal(*pair) for pair in zip(shown, panels, strict=True))


@pytest.mark.parametrize(("vmax", "darkest"), [(1.0, [1.0, 1.0]), (None, [4.0, 0.5])])
def test_the_darkest_colour(vmax, darkest):
    fig = plots.head_maps([np.full((4, 3), 4.0), np.full((4, 3), 0.5)], ["a", "b"], vmax=vmax)
    tops = [ax.images[0].norm.vmax for ax in fig.axes if ax.images]
    assert tops == darkest


def test_weight_and_length_by_layer():
    fig = plots.resting_place([0.1, 0.5, 0.2], [1.0, 0.2, 0.3])
    above, below = ([bar.get_height() for bar in ax.patches] for ax in fig.axes)
    assert above == [0.1, 0.5, 0.2]
    assert below == [1.0, 0.2, 0.3]


def test_perplexity_over_what_is_cached():
    """Catches axes that are exchanged, and points that are joined out of order."""
    fig = plots.perplexity_by_cache(
        {"latent, by weights": [(64, 90.0), (32, 200.0)], "one KV head": [(128, 500.0)]},
        (384, 20.0),
        {"mean": (128, 500.0)},
    )
    (ax,) = fig.axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines["latent, by weights"] == [[32, 200], [64, 90]]
    assert lines["one KV head"] == [[128, 500]]
    assert lines["as it was: 3 KV heads"] == [[384, 20]]
    assert ax.get_yscale() == "log"
    assert [note.get_text() for note in ax.texts] == ["mean"]
