"""Pictures of the conversion lab: the conversions, the axes of a cloud, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from attnlib.book.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    ROLES,
    SKY,
    VERMILION,
    arrow,
    blank,
    box,
    styled,
)

if TYPE_CHECKING:
    from attnlib.labs.stats import Estimate

#: Colour, line and marker of each way to begin.
STARTS = {
    "mean": (GREEN, "-", "s"),
    "first": (BLUE, "--", "o"),
    "random": (VERMILION, ":", "^"),
    "fresh": (ORANGE, "-.", "v"),
    "latent": (ROLES["latent"], "-", "D"),
}


@styled
def moves(n_heads: int, n_kv_heads: int, rank: int) -> Figure:
    """Draw what a token leaves in the cache before and after each of the three conversions.

    Args:
        n_heads: KV heads before, H.
        n_kv_heads: KV heads after pooling, H_kv.
        rank: width of the latent after compression, in widths of a head.

    Returns:
        The figure.
    """
    H, H_kv = n_heads, n_kv_heads
    fig, ax = plt.subplots(figsize=(6.4, 3.5))
    blank(ax, 15.2, 8.2)
    ax.text(0.2, 7.6, "what a token leaves in the cache", fontsize=11, color=GREY)
    for x, count, name in ((0.2, H, f"multi-head: {H} heads"), (9.6, H_kv, f"grouped: {H_kv}")):
        ax.text(x, 6.65, name, fontsize=11)
        cells(ax, x, 5.3, count, "k", "K")
        cells(ax, x, 4.3, count, "v", "V")
    arrow(ax, (H * 0.8 + 0.4, 5.2), (9.4, 5.2), INK)
    ax.text(8.1, 5.4, "pool", ha="center", fontsize=11)
    ax.text(8.1, 4.6, "loses", ha="center", fontsize=10, color=GREY)
    for x, conversion, loss in (
        (1.5, "keep the strongest directions", "loses what is cut off"),
        (10.9, "write as a latent", "exact"),
    ):
        arrow(ax, (x, 4.1), (x, 1.75), INK)
        ax.text(x + 0.25, 3.15, conversion, fontsize=11)
        ax.text(x + 0.25, 2.5, loss, fontsize=10, color=GREY)
    box(ax, 0.2, 0.8, 0.8 * rank - 0.1, 0.8, ROLES["latent"], "c")
    ax.text(0.2, 0.05, f"latent, as wide as {rank} heads", fontsize=11)
    for i in range(2 * H_kv):
        role, letter = ("k", "K") if i < H_kv else ("v", "V")
        box(ax, 9.6 + 0.8 * i, 0.8, 0.7, 0.8, ROLES[role], f"{letter}$_{{{i % H_kv}}}$", size=9)
    ax.text(9.6, 0.05, f"latent, as wide as {2 * H_kv} heads", fontsize=11)
    return fig


def cells(ax: Axes, x: float, y: float, count: int, role: str, letter: str) -> None:
    """Draw a row of heads.

    Args:
        ax: the axes.
        x: left edge.
        y: lower edge.
        count: of heads.
        role: their role, which gives their colour.
        letter: their label, to which a number is added.
    """
    for i in range(count):
        box(ax, x + 0.8 * i, y, 0.7, 0.8, ROLES[role], f"{letter}$_{{{i}}}$", size=9)


@styled
def cloud(points: Tensor) -> Figure:
    """Draw points with the two axes that the SVD finds, and their shadows on the first.

    The arrows are twice as long as the root of the mean square along their axis.

    Args:
        points: shape ``(n, 2)``.

    Returns:
        The figure.
    """
    points = points.double()
    _, spread, axes = torch.linalg.svd(points, full_matrices=False)  # axes are rows
    axes = axes * axes[:, :1].sign()  # both point to the right
    shadows = points @ axes[:1].T @ axes[:1]  # (n, 2)
    fig, ax = plt.subplots(figsize=(5.6, 3.4))
    for point, shadow in zip(points.tolist(), shadows.tolist(), strict=True):
        ax.plot(*zip(point, shadow, strict=True), color=GREY, linewidth=0.7, zorder=1)
    ax.plot(*points.T.tolist(), "o", color=SKY, markersize=4, label="keys and values")
    ax.plot(*shadows.T.tolist(), ".", color=ROLES["latent"], markersize=5, label="shadows")
    for axis, length, name in zip(
        axes.tolist(), (2 * spread / len(points) ** 0.5).tolist(), ("first", "second"),
        strict=True,
    ):  # fmt: skip
        end = (length * axis[0], length * axis[1])
        arrow(ax, (0, 0), end, INK)
        ax.annotate(f"{name} axis", end, (6, 6), textcoords="offset points", fontsize=10)
    ax.set_aspect("equal")
    ax.set_xlabel("first coordinate")
    ax.set_ylabel("second coordinate")
    ax.legend(loc="upper left")
    return fig


@styled
def healing(
    panels: Mapping[str, Mapping[str, Sequence[Estimate]]],
    steps: Sequence[int],
    unconverted: Sequence[Estimate],
) -> Figure:
    """Draw losses of converted models over the steps of training that were added.

    Marks are means over seeds, strokes their 95 % intervals. The grey line is the model that
    was not converted and was trained for as many further steps.

    Args:
        panels: title of a panel to its curves: a key of ``STARTS`` to one estimate per number
            of steps, or to estimates for the last of them, in nats per byte.
        steps: how many were added; the first is 0.
        unconverted: one estimate per number of steps.

    Returns:
        The figure.
    """
    width = 2.3 * len(panels) + 0.4
    fig, axes = plt.subplots(1, len(panels), figsize=(width, 3.7), sharey=True, squeeze=False)
    places = range(len(steps))
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        ax.plot(places, [e.mean for e in unconverted], color=GREY, label="not converted")
        for i, (start, estimates) in enumerate(curves.items()):
            shifted = [place + 0.06 * (i - 1) for place in places][-len(estimates) :]
            draw_curve(ax, shifted, estimates, STARTS[start], start, linewidth=1.6)
        ax.set_title(title)
        ax.set_xticks(places, [f"{count}" for count in steps])
        ax.set_xlim(-0.3, len(steps) - 0.7)
        ax.grid(True, axis="y")
    axes[0, 0].set_ylabel("held-out loss, nats per byte")
    fig.supxlabel("further steps of training", fontsize=11)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig


@styled
def loss_by_cache(
    panels: Mapping[str, Mapping[str, Mapping[int, Estimate]]],
    unconverted: Mapping[str, Estimate],
) -> Figure:
    """Draw losses of converted models against the numbers that a token leaves in the cache.

    Args:
        panels: title of a panel to its curves: a key of ``STARTS`` to its points: numbers
            cached per token and layer to an estimate in nats per byte.
        unconverted: the same titles to the loss of the model that was not converted.

    Returns:
        The figure.
    """
    width = 3.1 * len(panels) + 0.4
    fig, axes = plt.subplots(1, len(panels), figsize=(width, 3.7), squeeze=False)
    for ax, (title, curves) in zip(axes[0], panels.items(), strict=True):
        ax.axhline(unconverted[title].mean, color=GREY, label="not converted")
        for start, points in curves.items():
            estimates = list(points.values())
            draw_curve(ax, list(points), estimates, STARTS[start], start, linewidth=1.6)
        ax.set_title(title)
        ax.set_xscale("log", base=2)
        ticks = sorted({size for points in curves.values() for size in points})
        ticks = [size for size in ticks if size & (size - 1) == 0]
        ax.set_xticks(ticks, [f"{size}" for size in ticks])
        ax.minorticks_off()
        ax.grid(True)
    axes[0, 0].set_ylabel("held-out loss, nats per byte")
    fig.supxlabel("cached numbers per token and layer", fontsize=11)
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return fig


def draw_curve(
    ax: Axes,
    x: Sequence[float],
    estimates: Sequence[Estimate],
    style: tuple[str, str, str],
    label: str,
    *,
    linewidth: float | None = None,
) -> None:
    """Draw means as a curve, with their 95 % intervals as strokes.

    Args:
        ax: the axes.
        x: one place per estimate.
        estimates: means with intervals.
        style: colour, line and marker.
        label: in the legend.
        linewidth: in points; ``None`` means the style sheet's.
    """
    color, line, marker = style
    ax.errorbar(
        x, [e.mean for e in estimates], yerr=[e.half for e in estimates], color=color,
        linestyle=line, marker=marker, capsize=3, linewidth=linewidth, label=label,
    )  # fmt: skip
