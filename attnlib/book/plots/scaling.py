"""Pictures of the scale: temperature, the spread of scores, gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnlib.book.plots.style import BLUE, GREY, INK, PAPER, ROLES, VERMILION, styled, tint

# How scaled and unscaled attention are drawn in every picture of the chapter.
SCALED = BLUE, "o"
UNSCALED = VERMILION, "s"


@styled
def temperatures(weights, titles: Sequence[str]) -> Figure:
    """Draw the softmax of the same scores at several scales, side by side.

    Args:
        weights: shape ``(N, S)``, each row sums to 1.
        titles: N texts, one above each panel.

    Returns:
        The figure.
    """
    weights = np.asarray(weights)
    S = weights.shape[1]
    fig, axes = plt.subplots(1, len(titles), figsize=(6.2, 2.6), sharey=True)
    for ax, row, title in zip(axes, weights, titles, strict=True):
        bars = ax.bar(range(S), row, width=0.72, color=ROLES["q"])
        ax.bar_label(bars, fmt="%.2f", fontsize=9, padding=2)
        ax.set(xticks=range(S), xticklabels=[f"{i + 1}" for i in range(S)], ylim=(0, 1.12))
        ax.tick_params(length=0)
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("weight")
    fig.supxlabel("key", fontsize=11)
    return fig


@styled
def score_spread(scores: Mapping[int, object]) -> Figure:
    """Draw how scores spread as heads get wider: density, one sigma, the mean maximum.

    Args:
        scores: width of a head, D, to unscaled scores of shape ``(queries, S)``.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.2, 4.3))
    rows = {D: np.asarray(values, dtype=float) for D, values in scores.items()}
    reach = max(float(values.max(axis=1).mean()) for values in rows.values()) * 1.22
    bins = np.linspace(-reach, reach, 161)
    middle = (bins[1:] + bins[:-1]) / 2
    for row, (D, values) in enumerate(rows.items()):
        y = len(rows) - 1 - row
        density, _ = np.histogram(values, bins, density=True)
        ax.fill_between(
            middle, y, y + 0.72 * density / density.max(), color=tint(BLUE, 0.45), lw=0
        )
        sigma, top = values.std(), float(values.max(axis=1).mean())
        ax.plot([-sigma, sigma], [y, y], color=INK, lw=3.4, solid_capstyle="butt")
        ax.plot([top], [y], marker="v", color=VERMILION, markersize=9, clip_on=False)
        ax.text(top, y + 0.16, f"{top:.0f}", ha="center", color=VERMILION, fontsize=11)
        ax.text(-reach, y + 0.3, f"D = {D}", fontsize=11)
        ax.text(-reach, y + 0.08, f"sigma {sigma:.0f}", fontsize=10)
        ax.axhline(y, color=GREY, lw=0.6, zorder=0)
    ax.set(xlim=(-reach, reach), ylim=(-0.12, len(rows) - 0.2), yticks=[])
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("score without scale, q · k")
    ax.plot([], [], color=INK, lw=3.4, label="one sigma to each side")
    ax.plot([], [], ls="", marker="v", color=VERMILION, label="largest of the keys, on average")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.13), ncols=2, handlelength=1.4)
    return fig


@styled
def softmax_gradients(widths: Sequence[int], jacobian, to_query) -> Figure:
    """Draw mean and median norm of two derivatives of the weights over the width of a head.

    Args:
        widths: N widths D.
        jacobian: shape ``(2, 2, N)``: scaled and unscaled, mean and median of the norm of the
            softmax's Jacobian.
        to_query: the same for the derivative with respect to the query.

    Returns:
        The figure.
    """
    fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.6))
    titles = ["when the scores move", "when the query moves"]
    for ax, values, title in zip(axes, (jacobian, to_query), titles, strict=True):
        for (color, marker), (mean, median) in zip((SCALED, UNSCALED), values, strict=True):
            ax.plot(widths, mean, color=color, marker=marker, ls="-")
            ax.plot(widths, median, color=color, marker=marker, ls=":", markerfacecolor=PAPER)
        ax.set_yscale("log")
        width_axis(ax, widths)
        ax.set_title(title, fontsize=11)
    axes[0].set_ylabel("how far the weights move (norm)")
    handles = []
    for (color, marker), name in ((UNSCALED, "no scale"), (SCALED, "1 / sqrt(D)")):
        handles += [
            Line2D([], [], color=color, marker=marker, ls="-", label=f"{name}, mean"),
            Line2D(
                [], [], color=color, marker=marker, ls=":", mfc=PAPER, label=f"{name}, median"
            ),
        ]
    fig.legend(handles=handles, loc="outside upper center", ncols=2, columnspacing=2)
    return fig


def width_axis(ax: Axes, widths: Sequence[int]) -> None:
    """Make the x axis logarithmic and label it with the widths of a head.

    Args:
        ax: the axes.
        widths: of a head, D.
    """
    ax.set_xscale("log", base=2)
    ax.set_xticks(widths, [str(D) for D in widths])
    ax.minorticks_off()
    ax.set_xlabel("width of a head, D")
    ax.grid(axis="y")
