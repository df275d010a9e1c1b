"""Pictures of the quality lab: losses of several seeds with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from attnlib.book.appearance import appearance_of
from attnlib.book.plots.style import BLUE, GREY, INK, PAPER, VERMILION, styled
from attnlib.labs.stats import estimate, paired_difference

if TYPE_CHECKING:
    from attnlib.labs.quality import Quality
    from attnlib.labs.stats import Estimate


def marker_style(name: str) -> dict[str, Any]:
    """Return the marker of a configuration: filled for plain variants, open for all others.

    Args:
        name: such as "MQA" or "MQA, wide heads".

    Returns:
        Keywords of matplotlib's ``plot`` and ``errorbar``.

    Raises:
        ValueError: if the name does not begin with that of a registered variant.
    """
    look = appearance_of(name)
    inside = look.color if name == look.name else "none"
    return {"color": look.color, "marker": look.marker, "markerfacecolor": inside}


@styled
def intervals(estimates: Sequence[Estimate], truth: float) -> Figure:
    """Draw intervals one below the other, and the true mean as a line through them.

    Those that contain it have a filled mark; those that miss it are dashed, with an open one.

    Args:
        estimates: of one quantity, each from its own sample.
        truth: the true mean.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.2, 0.15 * len(estimates) + 0.8))
    ax.axvline(truth, color=INK, linewidth=1.2)
    for y, one in enumerate(estimates):
        caught = one.low <= truth <= one.high
        color = BLUE if caught else VERMILION
        ax.plot([one.low, one.high], [y, y], "-" if caught else "--", color=color, linewidth=2)
        inside = color if caught else PAPER
        ax.plot(one.mean, y, "o", color=color, markerfacecolor=inside, markersize=5)
    ax.set_ylim(len(estimates) - 0.4, -0.6)
    ax.set_yticks([])
    ax.set_ylabel("one interval per lab")
    ax.set_xlabel("held-out loss, nats per byte; the line is the true mean")
    ax.grid(True, axis="x")
    return fig


@styled
def loss_over_training(
    quality: Quality, names: Sequence[str], base: str | None = None
) -> Figure:
    """Draw held-out losses over the steps of training, and their differences from a base.

    Left: means. Right: means of the paired differences, with 95 % intervals as bands.

    Args:
        quality: runs of the quality lab.
        names: of configurations, ``base`` among them.
        base: the configuration that the others are compared with; ``None`` means the first.

    Returns:
        The figure.
    """
    base = names[0] if base is None else base
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.6, 3.3))
    steps = [step for step, _ in quality.runs[0].losses]
    evaluations = range(1, len(steps))  # before the first step nothing is learned
    right.axhline(0, color=appearance_of(base).color, linewidth=2)
    for name in names:
        look, style = appearance_of(name), marker_style(name)
        means = [estimate(quality.losses(name, k)).mean for k in evaluations]
        left.plot(steps[1:], means, linestyle=look.linestyle, label=name, **style)
        if name == base:
            continue
        differences = [
            paired_difference(quality.losses(name, k), quality.losses(base, k))
            for k in evaluations
        ]
        means = [difference.mean for difference in differences]
        right.plot(steps[1:], means, linestyle=look.linestyle, label=name, **style)
        low, high = [e.low for e in differences], [e.high for e in differences]
        right.fill_between(steps[1:], low, high, color=look.color, alpha=0.16, lw=0)
    left.set(title="held-out loss", ylabel="nats per byte")
    right.set(title=f"difference to {base}")
    for ax in (left, right):
        ax.set_xlabel("steps of training")
        ax.set_xticks(steps[1:])
        ax.grid(True, axis="y")
    left.legend(loc="upper right")
    return fig


@styled
def paired_differences(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draw differences from a base: one dot per seed, their mean and its 95 % interval.

    Args:
        groups: title of a panel to its rows: name of a configuration to its differences, one
            per seed, in nats per byte.

    Returns:
        The figure.
    """
    counts = [len(rows) for rows in groups.values()]
    fig, axes = plt.subplots(
        len(groups), 1, figsize=(6.2, 0.62 * sum(counts) + 0.8 * len(groups)), sharex=True,
        squeeze=False, gridspec_kw={"height_ratios": counts},
    )  # fmt: skip
    for ax, (title, rows) in zip(axes[:, 0], groups.items(), strict=True):
        ax.axvline(0, color=INK, linewidth=1.2)
        for y, (name, values) in enumerate(rows.items()):
            style, mean = marker_style(name), estimate(values)
            ax.plot(values, np.full(len(values), y + 0.26), ".", color=GREY, markersize=5)
            ax.errorbar(mean.mean, y, xerr=mean.half, capsize=4, markersize=8, **style)
            ax.annotate(
                f"{mean.mean:+.3f}", (mean.mean, y), (0, 8), textcoords="offset points",
                ha="center", fontsize=9,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.6},
            )  # fmt: skip
        ax.set_yticks(range(len(rows)), list(rows))
        ax.set_ylim(len(rows) - 0.4, -0.7)  # the first on top
        ax.set_title(title)
        ax.tick_params(axis="y", length=0)
        ax.grid(True, axis="x")
    axes[-1, 0].set_xlabel("difference in held-out loss, nats per byte (left is better)")
    return fig


@styled
def loss_beside_costs(quality: Quality, names: Sequence[str]) -> Figure:
    """Draw held-out loss against cache bytes per token, and against time per training step.

    Args:
        quality: runs of the quality lab.
        names: of configurations.

    Returns:
        The figure.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.6, 3.7), sharey=True)
    drawn: Counter[int] = Counter()  # configurations by the bytes of their caches
    for name in names:
        style, loss = marker_style(name), estimate(quality.losses(name))
        n_bytes = quality.sizes[name]["cache_bytes"]
        shift = 1.1 ** drawn[n_bytes]  # equal caches are drawn side by side
        drawn[n_bytes] += 1
        time = float(np.median([1000 * run.cpu_seconds for run in quality.select(name)]))
        for ax, x in ((left, shift * n_bytes), (right, time)):
            ax.errorbar(x, loss.mean, yerr=loss.half, capsize=3, linestyle="none", label=name,
                        **style)  # fmt: skip
    left.set_xscale("log", base=2)
    left.set_xticks(sorted(drawn), [f"{n_bytes:,}" for n_bytes in sorted(drawn)])
    left.xaxis.set_minor_locator(NullLocator())
    left.set(xlabel="cache, bytes per token", ylabel="held-out loss, nats per byte")
    left.margins(x=0.15)
    right.margins(x=0.15)
    right.set(xlabel="training step, ms of CPU time")
    for ax in (left, right):
        ax.grid(True)
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig
