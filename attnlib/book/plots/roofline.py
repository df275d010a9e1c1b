"""The roofline: how much of a processor's arithmetic some work can use, at best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlib.book.plots.look import GREY, INK, MARKERS, PAPER, VARIANTS, styled, tint


class Roof(NamedTuple):
    """A machine, and the work to place under its roof.

    Attributes:
        bytes_per_second: the memory's rate.
        flops_per_second: the processor's rate.
        work: label of a kind of work to its points: variant, such as "MHA", to its arithmetic
            intensity in FLOPs for each byte. Marks of the first kind are filled, of the second
            open.
    """

    bytes_per_second: float
    flops_per_second: float
    work: Mapping[str, Mapping[str, float]]

    @property
    def ridge(self) -> float:
        """FLOPs for each byte from which on arithmetic takes longer than reading."""
        return self.flops_per_second / self.bytes_per_second

    def share(self, intensity: float) -> float:
        """Return the part of the processor's rate that work of an intensity can use.

        Args:
            intensity: FLOPs for each byte, above 0.

        Returns:
            A number above 0 and at most 1.
        """
        return min(1.0, intensity / self.ridge)


@styled
def rooflines(roofs: Mapping[str, Roof]) -> Figure:
    """Share of the processor's rate against arithmetic intensity, a panel for each machine.

    Left of the ridge a step waits for memory, and the roof slopes; right of it the step waits
    for arithmetic, and the roof is flat. The slope is drawn on logarithmic axes.

    Args:
        roofs: title of a panel to its machine and work.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no machine, a rate or an intensity is not above 0, there are
            more than two kinds of work, or a point is not named for a variant.
    """
    check_roofs(roofs)
    work = [some for roof in roofs.values() for some in roof.work.items()]
    edges = [x for _, points in work for x in points.values()]
    edges += [roof.ridge for roof in roofs.values()]
    span = min(edges) / 2.5, max(edges) * 2.5
    low = 100 * min(roof.share(span[0]) for roof in roofs.values())
    size = (6.2, 0.9 + 2.15 * len(roofs))
    fig, axes = plt.subplots(len(roofs), figsize=size, sharex=True, sharey=True, squeeze=False)
    for ax, (title, roof) in zip(axes[:, 0], roofs.items(), strict=True):
        draw_roof(ax, roof, span, low)
        ax.set_title(title, fontsize=11)
        ax.set_ylabel("of the peak rate, %")
    axes[-1, 0].set_xlabel("arithmetic intensity, FLOPs for each byte read")
    kinds = list(dict.fromkeys(kind for kind, _ in work))
    names = list(dict.fromkeys(name for _, points in work for name in points))
    handles = [mark(MARKERS[name], VARIANTS[name], True, label=name) for name in names]
    handles += [mark("o", INK, i == 0, label=kind) for i, kind in enumerate(kinds)]
    options = {"ncols": len(handles), "handletextpad": 0.1, "columnspacing": 1.1}
    fig.legend(handles=handles, loc="outside upper center", **options)
    return fig


def mark(marker: str, color: str, full: bool, **options) -> plt.Line2D:
    """Make a mark without a line, filled or open.

    Args:
        marker: its shape.
        color: of its edge, and of a filled one's inside.
        full: whether it is filled.
        options: of the line, such as its data or a label.

    Returns:
        The mark.
    """
    place = options.pop("xdata", []), options.pop("ydata", [])
    style = {"markersize": 8, "markeredgewidth": 1.6, "linestyle": "none"}
    inside = color if full else PAPER
    return plt.Line2D(
        *place, marker=marker, color=color, markerfacecolor=inside, **style, **options
    )


def draw_roof(ax: Axes, roof: Roof, span: tuple[float, float], low: float) -> None:
    """Draw one machine's roof and the work under it.

    Args:
        ax: the axes.
        roof: the machine and its work.
        span: first and last intensity of the axis.
        low: the smallest share to be seen, in percent.
    """
    ridge = roof.ridge
    ax.axvspan(span[0], ridge, color=tint(VARIANTS["MHA"], 0.08), lw=0)
    ax.axvspan(ridge, span[1], color=tint(VARIANTS["MQA"], 0.08), lw=0)
    ax.plot(
        [span[0], ridge, span[1]], [100 * roof.share(x) for x in (span[0], ridge, span[1])],
        color=INK, zorder=2,
    )  # fmt: skip
    ax.axvline(ridge, color=GREY, lw=1, ls=":", zorder=1)
    note = {"xytext": (0, 5), "textcoords": "offset points", "fontsize": 9.5, "color": INK}
    ax.annotate(f" ridge: {ridge:,.0f}", (ridge, low * 0.62), **note)
    ax.annotate("waits for memory", (span[0] * 1.15, 130), **note)
    ax.annotate("waits for arithmetic", (span[1] / 1.15, 130), ha="right", **note)
    for i, points in enumerate(roof.work.values()):
        for name, x in points.items():
            place = {"xdata": [x], "ydata": [100 * roof.share(x)], "zorder": 3 + i}
            ax.add_line(mark(MARKERS[name], VARIANTS[name], i == 0, **place))
    ax.set(xscale="log", yscale="log", xlim=span, ylim=(low * 0.55, 320))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.minorticks_off()
    ax.grid(True)


def check_roofs(roofs: Mapping[str, Roof]) -> None:
    """Check what is to be drawn.

    Args:
        roofs: title of a panel to its machine and work.

    Raises:
        ValueError: as :func:`rooflines` says.
    """
    if not roofs:
        raise ValueError("roofs must hold at least one machine, got none")
    for title, roof in roofs.items():
        for name in ("bytes_per_second", "flops_per_second"):
            rate = getattr(roof, name)
            if not rate > 0:
                raise ValueError(f"{name} of {title} must be above 0, got {rate}")
        kinds = len(roof.work)
        if kinds > 2:
            raise ValueError(f"work of {title} must be of at most 2 kinds, got {kinds}")
        for kind, points in roof.work.items():
            for name, x in points.items():
                if name not in VARIANTS:
                    raise ValueError(f"{kind} of {title} must name variants, got {name!r}")
                if not x > 0:
                    raise ValueError(f"intensity of {name}, {kind}, must be above 0, got {x}")
