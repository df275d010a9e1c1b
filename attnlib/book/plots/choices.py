"""Pictures for choosing a variant: the memory and the arithmetic that each takes."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from attnlib.book.appearance import appearance_of
from attnlib.book.plots.style import plain_log_axes, styled, tint


@styled
def two_prices(
    memory: Mapping[str, float], arithmetic: Mapping[str, float], units: tuple[str, str]
) -> Figure:
    """Draw two prices of each variant side by side: what is stored and what is computed.

    Args:
        memory: name of a variant to the length of its bar on the left.
        arithmetic: the same variants, on the right.
        units: labels of the two axes.

    Returns:
        The figure.

    Raises:
        ValueError: if a name is not a registered variant's.
    """
    fig, axes = plt.subplots(1, 2, figsize=(6.4, 2.4), sharey=True)
    for ax, values, unit in zip(axes, (memory, arithmetic), units, strict=True):
        names = list(values)[::-1]  # the first on top
        edges = [appearance_of(name).color for name in names]
        fills = [tint(color, 0.45) for color in edges]
        bars = ax.barh(names, [values[name] for name in names], color=fills, edgecolor=edges)
        ax.bar_label(bars, [rounded(values[name]) for name in names], padding=4, fontsize=10)
        ax.set(xlabel=unit, xlim=(0, 1.22 * max(values.values())))
        ax.tick_params(axis="y", length=0)
    return fig


def rounded(value: float) -> str:
    """Return a number as the label of a bar: without decimals from 20 on, with one below."""
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"


@styled
def serving(speeds: Mapping[str, Mapping[int, float]]) -> Figure:
    """Draw how fast each user is served against how many there are, one curve per variant.

    A ring marks the last point of a curve, where no further user fits.

    Args:
        speeds: name of a variant to its curve: users to tokens per second for each of them.

    Returns:
        The figure; both axes are logarithmic.

    Raises:
        ValueError: if a name is not a registered variant's.
    """
    fig, ax = plt.subplots(figsize=(6.4, 3.4))
    for name, curve in speeds.items():
        look, users = appearance_of(name), sorted(curve)
        speed = [curve[n] for n in users]
        ax.plot(users, speed, color=look.color, marker=look.marker, markersize=5, label=name)
        ax.plot(users[-1:], speed[-1:], "o", color=look.color, markersize=13, mfc="none")
    plain_log_axes(ax)
    ax.set(xlabel="users at once", ylabel="tokens per second per user")
    values = [speed for curve in speeds.values() for speed in curve.values()]
    ax.set_ylim(min(values) / 1.4, max(values) * 1.4)
    fig.legend(loc="outside upper center", ncols=len(speeds))
    return fig
