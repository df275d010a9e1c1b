"""Pictures of the quality lab: losses of several seeds, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from attnlib.book.plots.look import GREY, INK, LINES, MARKERS, PAPER, VARIANTS, styled
from attnlib.labs.stats import estimate, paired_difference

if TYPE_CHECKING:
    from attnlib.labs.quality import Quality


def look_of(name: str) -> dict[str, object]:
    """Return colour and mark of a configuration: open marks for all but the plain variants.

    Args:
        name: such as "MQA" or "MQA, wide heads".

    Returns:
        Options of matplotlib's ``plot`` and ``errorbar``.
    """
    variant = name[:3]
    color = VARIANTS[variant]
    face = color if name == variant else "none"
    return {"color": color, "marker": MARKERS[variant], "markerfacecolor": face}


@styled
def loss_over_training(found: Quality, names: Sequence[str], base: str = "MHA") -> Figure:
    """Held-out loss over the steps of training, and the distance of each variant to the first.

    Left: means. Right: means of the paired differences, with 95 % intervals as bands.

    Args:
        found: of the quality lab.
        names: of configurations, ``base`` among them.
        base: what the others are held against.

    Returns:
        The figure.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.6, 3.3))
    steps = [step for step, _ in found.runs[0].losses]
    looks = range(1, len(steps))  # before the first step nothing is learned
    right.axhline(0, color=VARIANTS[base[:3]], linewidth=2)
    for name in names:
        style = {**look_of(name), "linestyle": LINES[name[:3]], "label": name}
        means = [estimate(found.losses(name, look)).mean for look in looks]
        left.plot(steps[1:], means, **style)
        if name == base:
            continue
        some = [paired_difference(found.losses(name, k), found.losses(base, k)) for k in looks]
        right.plot(steps[1:], [e.mean for e in some], **style)
        low, high = [e.low for e in some], [e.high for e in some]
        right.fill_between(steps[1:], low, high, color=style["color"], alpha=0.16, lw=0)
    left.set(title="held-out loss", ylabel="nats a byte")
    right.set(title=f"difference to {base}")
    for ax in (left, right):
        ax.set_xlabel("steps of training")
        ax.set_xticks(steps[1:])
        ax.grid(True, axis="y")
    left.legend(loc="upper right")
    return fig


@styled
def paired_differences(groups: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Differences to a base: a dot a seed, and mean and 95 % interval of the mean over them.

    Args:
        groups: title of a panel to its rows: name of a configuration to its differences, one
            a seed, in nats a byte.

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
            style, found = look_of(name), estimate(values)
            ax.plot(values, np.full(len(values), y + 0.26), ".", color=GREY, markersize=5)
            ax.errorbar(found.mean, y, xerr=found.half, capsize=4, markersize=8, **style)
            card = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}
            note = {"xytext": (0, 8), "ha": "center", "fontsize": 9, "bbox": card}
            ax.annotate(
                f"{found.mean:+.3f}", (found.mean, y), textcoords="offset points", **note
            )
        ax.set_yticks(range(len(rows)), list(rows))
        ax.set_ylim(len(rows) - 0.4, -0.7)  # the first on top
        ax.set_title(title)
        ax.tick_params(axis="y", length=0)
        ax.grid(True, axis="x")
    axes[-1, 0].set_xlabel("difference in held-out loss, nats a byte (left is better)")
    return fig


@styled
def loss_beside_costs(found: Quality, names: Sequence[str]) -> Figure:
    """Held-out loss against bytes of cache a token, and against time of a training step.

    Args:
        found: of the quality lab.
        names: of configurations.

    Returns:
        The figure.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(6.6, 3.7), sharey=True)
    crowd: dict[int, int] = {}
    for name in names:
        style, loss = look_of(name), estimate(found.losses(name))
        n_bytes = found.sizes[name]["cache_bytes"]
        crowd[n_bytes] = crowd.get(n_bytes, 0) + 1
        beside = 1.1 ** (crowd[n_bytes] - 1)  # equal caches stand side by side
        time = float(np.median([1000 * run.cpu_seconds for run in found.select(name)]))
        style |= {"yerr": loss.half, "capsize": 3, "linestyle": "none", "label": name}
        left.errorbar(beside * n_bytes, loss.mean, **style)
        right.errorbar(time, loss.mean, **style)
    bytes_there = sorted(crowd)
    left.set_xscale("log", base=2)
    left.set_xticks(bytes_there, [f"{some:,}" for some in bytes_there])
    left.xaxis.set_minor_locator(NullLocator())
    left.set(xlabel="cache, bytes a token", ylabel="held-out loss, nats a byte")
    left.margins(x=0.15)
    right.margins(x=0.15)
    right.set(xlabel="training step, ms of CPU time")
    for ax in (left, right):
        ax.grid(True)
    fig.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return fig
