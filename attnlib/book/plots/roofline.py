"""The roofline: the share of a processor's arithmetic that work can use at best."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnlib.book.appearance import appearance_of, appearances
from attnlib.book.plots.style import BLUE, GREY, INK, PAPER, VERMILION, styled, tint


class Roof(NamedTuple):
    """A machine, and the work to place under its roof.

    Attributes:
        bytes_per_second: rate of the memory.
        flops_per_second: rate of the processor.
        work: label of a kind of work to its points: name of a variant to its arithmetic
            intensity in FLOPs per byte. Marks of the first kind are filled, of the second open.
        weights: label of a kind of work to the intensity of its weights, which is the same in
            all variants and gets one mark.
    """

    bytes_per_second: float
    flops_per_second: float
    work: Mapping[str, Mapping[str, float]]
    weights: Mapping[str, float] = MappingProxyType({})

    @property
    def ridge(self) -> float:
        """FLOPs per byte above which arithmetic takes longer than reading."""
        return self.flops_per_second / self.bytes_per_second

    def share(self, intensity: float) -> float:
        """Return the share of the processor's rate that work of an intensity can use.

        Args:
            intensity: FLOPs per byte, above 0.

        Returns:
            A number above 0 and at most 1.
        """
        return min(1.0, intensity / self.ridge)


@styled
def rooflines(roofs: Mapping[str, Roof]) -> Figure:
    """Draw the share of the peak rate against arithmetic intensity, one panel per machine.

    Left of the ridge point a step waits for memory and the roof slopes; right of it the step
    waits for arithmetic and the roof is flat. Both axes are logarithmic.

    Args:
        roofs: title of a panel to its machine and work.

    Returns:
        The figure.

    Raises:
        ValueError: if there is no machine, a rate or an intensity is not above 0, there are
            more than two kinds of work, weights are of another kind, or a point is not named
            after a registered variant.
    """
    check_roofs(roofs)
    work = [kind for roof in roofs.values() for kind in roof.work.items()]
    edges = [x for _, points in work for x in points.values()]
    edges += [x for roof in roofs.values() for x in (roof.ridge, *roof.weights.values())]
    span = min(edges) / 2.5, max(edges) * 2.5
    low = 100 * min(roof.share(span[0]) for roof in roofs.values())
    fig, axes = plt.subplots(
        len(roofs), figsize=(6.2, 0.9 + 2.15 * len(roofs)), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    for ax, (title, roof) in zip(axes[:, 0], roofs.items(), strict=True):
        draw_roof(ax, roof, span, low)
        ax.set_title(title, fontsize=11)
        ax.set_ylabel("share of the peak rate, %")
    axes[-1, 0].set_xlabel("arithmetic intensity, FLOPs per byte read")
    kinds = list(dict.fromkeys(kind for kind, _ in work))
    names = list(dict.fromkeys(name for _, points in work for name in points))
    looks = [appearance_of(name) for name in names]
    handles = [mark(look.marker, look.color, filled=True, label=look.name) for look in looks]
    if any(roof.weights for roof in roofs.values()):
        handles.append(mark("s", INK, filled=True, label="weights"))
    handles += [mark("o", INK, filled=i == 0, label=kind) for i, kind in enumerate(kinds)]
    fig.legend(
        handles=handles, loc="outside upper center", ncols=len(handles), handletextpad=0.1,
        columnspacing=1.1,
    )  # fmt: skip
    return fig


def mark(
    marker: str,
    color: str,
    *,
    filled: bool,
    at: tuple[float, float] | None = None,
    label: str = "",
    zorder: float = 2,
) -> Line2D:
    """Return a marker without a line.

    Args:
        marker: its shape, in matplotlib's notation.
        color: of its edge, and of its inside if it is filled.
        filled: whether it is filled.
        at: where it is, in data units; ``None`` for the legend.
        label: in the legend.
        zorder: the higher, the further in front.

    Returns:
        The marker.
    """
    x, y = at or (None, None)
    return Line2D(
        [] if x is None else [x], [] if y is None else [y], marker=marker, color=color,
        markerfacecolor=color if filled else PAPER, markersize=8, markeredgewidth=1.6,
        linestyle="none", label=label, zorder=zorder,
    )  # fmt: skip


def draw_roof(ax: Axes, roof: Roof, span: tuple[float, float], low: float) -> None:
    """Draw one machine's roof and the work under it.

    Args:
        ax: the axes.
        roof: the machine and its work.
        span: first and last intensity of the axis.
        low: the smallest share to show, in percent.
    """
    ridge = roof.ridge
    ax.axvspan(span[0], ridge, color=tint(BLUE, 0.08), lw=0)
    ax.axvspan(ridge, span[1], color=tint(VERMILION, 0.08), lw=0)
    ax.plot(
        [span[0], ridge, span[1]], [100 * roof.share(x) for x in (span[0], ridge, span[1])],
        color=INK, zorder=2,
    )  # fmt: skip
    ax.axvline(ridge, color=GREY, lw=1, ls=":", zorder=1)
    note = {"xytext": (0, 5), "textcoords": "offset points", "fontsize": 9.5, "color": INK}
    ax.annotate(f" ridge point: {ridge:,.0f}", (ridge, low * 0.62), **note)
    ax.annotate("waits for memory", (span[0] * 1.15, 130), **note)
    ax.annotate("waits for arithmetic", (span[1] / 1.15, 130), ha="right", **note)
    for i, (kind, points) in enumerate(roof.work.items()):
        if kind in roof.weights:
            at = roof.weights[kind], 100 * roof.share(roof.weights[kind])
            ax.add_line(mark("s", INK, filled=i == 0, at=at, zorder=3 + i))
        for name, x in points.items():
            look, at = appearance_of(name), (x, 100 * roof.share(x))
            ax.add_line(mark(look.marker, look.color, filled=i == 0, at=at, zorder=3 + i))
    ax.set(xscale="log", yscale="log", xlim=span, ylim=(low * 0.55, 320))
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.minorticks_off()
    ax.grid(True)


def check_roofs(roofs: Mapping[str, Roof]) -> None:
    """Check the input of :func:`rooflines`.

    Args:
        roofs: title of a panel to its machine and work.

    Raises:
        ValueError: as :func:`rooflines` does.
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
        for kind, x in roof.weights.items():
            if kind not in roof.work or not x > 0:
                raise ValueError(
                    f"weights of {title} must be above 0 for kinds of work, got {x} for"
                    f" {kind!r}"
                )
        for kind, points in roof.work.items():
            for name, x in points.items():
                if name not in appearances():
                    raise ValueError(f"{kind} of {title} must name variants, got {name!r}")
                if not x > 0:
                    raise ValueError(f"intensity of {name}, {kind}, must be above 0, got {x}")
