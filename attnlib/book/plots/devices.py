"""The picture of a step on several devices: reading the cache, and the link."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator

from attnlib.book.plots.style import INK, ROLES, plain_log_axes, styled
from attnlib.layers import check_split

#: How each split looks; colours of the book, and marks for those who do not see them.
LOOKS = {
    "heads": (ROLES["q"], "o"),
    "sequences": (ROLES["k"], "s"),
    "positions": (ROLES["v"], "^"),
}


@styled
def split_times(
    models: Mapping[str, Mapping[str, Mapping[int, tuple[float, float]]]],
) -> Figure:
    """Draw the time of a decode step against the number of devices, one panel per model.

    A dashed line is the time that a device reads, a solid one that time and the link's.

    Args:
        models: title of a panel to its splits, each with devices to milliseconds of reading and
            of sending; splits as in :data:`attnlib.layers.SPLITS`.

    Returns:
        The figure; both axes are logarithmic.

    Raises:
        ValueError: if a split is unknown.
    """
    for splits in models.values():
        for split in splits:
            check_split(split)
    fig, axes = plt.subplots(
        1, len(models), figsize=(3.1 * len(models) + 0.3, 3.5), sharey=True, squeeze=False
    )
    for ax, (title, splits) in zip(axes[0], models.items(), strict=True):
        for split, times in splits.items():
            color, marker = LOOKS[split]
            devices = sorted(times)
            reads = [times[n][0] for n in devices]
            ax.plot(devices, reads, color=color, linewidth=1, linestyle="--")
            ax.plot(devices, [sum(times[n]) for n in devices], color=color, marker=marker)
        plain_log_axes(ax)
        ax.xaxis.set_major_locator(LogLocator(base=2, numticks=99))  # each number of devices
        ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
        ax.set(title=title, xlabel="devices")
    axes[0, 0].set_ylabel("decode step, ms")
    marks = [
        Line2D([], [], color=color, marker=marker, label=f"by {split}")
        for split, (color, marker) in LOOKS.items()
    ]
    marks.append(Line2D([], [], color=INK, linewidth=1, linestyle="--", label="reading alone"))
    fig.legend(handles=marks, loc="outside upper center", ncols=4)
    return fig
