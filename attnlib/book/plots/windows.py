"""Pictures of windows: what the first token is worth, and how far a needle is found."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from attnlib.book.plots.style import BLUE, GREY, INK, ROLES, VERMILION, styled
from attnlib.labs.needle import NeedleFindings
from attnlib.labs.windows import FULL, SINKS, WindowFindings, kind_of

#: Marker, line and colour of each kind of layers with a needle.
NEEDLES = {
    "all full": ("o", "-", BLUE),
    "hybrid": ("s", "--", ROLES["v"]),
    "all window": ("^", "-", VERMILION),
}


@styled
def perplexity_by_window(found: WindowFindings) -> Figure:
    """Draw the perplexity of the real model over its window, with the first token and without.

    Args:
        found: of the laboratory.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.2, 3.4))
    windows = found.settings.windows
    for first, marker, line, color, name in (
        (0, "^", "-", VERMILION, "the last W tokens"),
        (1, "o", "--", BLUE, "and the first token"),
    ):
        values = [found.run(kind_of(W, first)).perplexity for W in windows]
        ax.plot(windows, values, marker=marker, linestyle=line, color=color, label=name)
    trained = found.run(SINKS).perplexity
    ax.plot([found.settings.window], [trained], "D", color=ROLES["v"], markersize=8,
            label="the last W and trained sinks")  # fmt: skip
    full = found.run(FULL).perplexity
    ax.axhline(full, color=INK, linewidth=0.9, linestyle=":")
    ax.text(windows[0], full - 2, "everything", va="top", fontsize=10)
    ax.set_xscale("log", base=2)
    ax.set_xticks(windows, [str(W) for W in windows])
    ax.set_ylim(0)
    ax.set(xlabel="window W, in tokens", ylabel="perplexity")
    ax.grid(True, axis="y")
    ax.legend()
    return fig


@styled
def needle_curves(found: NeedleFindings) -> Figure:
    """Draw how often small models find a needle, over its distance, with 95 % intervals.

    Args:
        found: of the laboratory.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    settings = found.settings
    edges = {settings.window - 1: "one window", settings.reach - 1: "the reach"}
    for x, name in edges.items():
        ax.axvline(x, color=GREY, linewidth=1, linestyle=":")
        ax.text(x + 1, 0.32, name, fontsize=10)
    ax.axhline(found.chance, color=GREY, linewidth=1)
    ax.text(1, found.chance + 0.02, "guessing", fontsize=10)
    for name, (marker, line, color) in NEEDLES.items():
        points = found.accuracy(name)
        ax.errorbar(
            found.distances, [p.mean for p in points], [p.half for p in points],
            marker=marker, linestyle=line, color=color, capsize=2,
            markersize=9 if name == "all full" else 4,
            markerfacecolor="none" if name == "all full" else color,
            label=f"{name}, {settings.patterns[name]}",
        )  # fmt: skip
    ax.set_ylim(0, 1.06)
    ax.set(xlabel="distance of the needle, in tokens", ylabel="share of needles found")
    ax.legend(loc="center left", bbox_to_anchor=(0.02, 0.55))
    return fig
