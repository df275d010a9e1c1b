"""The style of all figures: colours, boxes and arrows, and the decorator that applies it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from importlib.resources import files
from typing import ParamSpec

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.ticker import LogLocator, NullLocator

P = ParamSpec("P")

STYLE = str(files("attnlib.book.plots") / "book.mplstyle")

# Okabe and Ito's palette, safe for colour-blind readers; https://jfly.uni-koeln.de/color/
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY, INK = "#E69F00", "#56B4E9", "#5b6067", "#22262a"
PAPER, RULE = "#fcfcfa", "#d9dbdd"  # the card, as in the style file, and faint lines on it

# One colour per role, the same on every page. Colours of variants are the registry's.
ROLES = {"q": BLUE, "k": VERMILION, "v": GREEN, "out": INK, "latent": PURPLE}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Make a function draw its figure in the book's style and close it, so that it shows once.

    Args:
        draw: a function that returns a figure.

    Returns:
        The same function in the book's style.
    """

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with plt.style.context(STYLE):
            figure = draw(*args, **kwargs)
        plt.close(figure)
        return figure

    return drawn


def tint(color: str, strength: float) -> tuple[float, float, float]:
    """Mix a colour with white.

    Args:
        color: any matplotlib colour.
        strength: 0 = white, 1 = the colour.

    Returns:
        Red, green and blue, each in 0 to 1.
    """
    red, green, blue = (1 - strength * (1 - part) for part in to_rgb(color))
    return red, green, blue


def box(
    ax: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    color: str,
    label: str = "",
    *,
    strength: float = 0.25,
    size: float = 10,
    **style: object,
) -> Rectangle:
    """Draw a labelled box with its lower left corner at (x, y).

    Args:
        ax: the axes.
        x: left edge, in data units like all lengths here.
        y: lower edge.
        width: of the box.
        height: of the box.
        color: of edge and fill.
        label: text in the middle.
        strength: of the fill, 0 (white) to 1 (the colour).
        size: of the text, in points.
        style: further options of :class:`matplotlib.patches.Rectangle`.

    Returns:
        The patch.
    """
    options = {
        "facecolor": tint(color, strength),
        "edgecolor": color,
        "linewidth": 1.4,
        **style,
    }
    patch = ax.add_patch(Rectangle((x, y), width, height, **options))
    if label:
        middle = (x + width / 2, y + height / 2)
        ax.annotate(label, middle, ha="center", va="center", fontsize=size, color=INK)
    return patch


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    color: str = GREY,
    *,
    width: float = 1.4,
    bend: float = 0.0,
    **style: object,
) -> FancyArrowPatch:
    """Draw an arrow from one point to another.

    Args:
        ax: the axes.
        start: (x, y) in data units.
        end: (x, y) in data units.
        color: of the arrow.
        width: of its line, in points.
        bend: 0 = straight; positive bends to the left.
        style: further options of :class:`matplotlib.patches.FancyArrowPatch`.

    Returns:
        The patch.
    """
    options = {"arrowstyle": "-|>", "mutation_scale": 11, "shrinkA": 1, "shrinkB": 1, **style}
    patch = FancyArrowPatch(
        start, end, color=color, lw=width, connectionstyle=f"arc3,rad={bend}", **options
    )
    return ax.add_patch(patch)


def blank(ax: Axes, width: float, height: float) -> None:
    """Turn axes into an empty sheet from (0, 0) to (width, height), equal scale.

    Args:
        ax: the axes.
        width: in data units.
        height: in data units.
    """
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")


def plain_log_axes(ax: Axes) -> None:
    """Make both axes logarithmic, with plain numbers at powers of two and a grid.

    Args:
        ax: the axes.
    """
    ax.set(xscale="log", yscale="log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(LogLocator(base=2))
        axis.set_major_formatter(lambda value, _: f"{value:,g}")
        axis.set_minor_locator(NullLocator())
    ax.grid(True)
