"""Pictures for choosing a variant: what each takes of memory and of arithmetic."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from attnlib.book.plots.look import VARIANTS, styled, tint


@styled
def two_prices(
    memory: Mapping[str, float], arithmetic: Mapping[str, float], units: tuple[str, str]
) -> Figure:
    """Two prices of each variant side by side: what is kept, and what is computed.

    Args:
        memory: variant to the height of its bar on the left.
        arithmetic: the same variants, on the right.
        units: what the two axes are labelled with.

    Returns:
        The figure.
    """
    fig, axes = plt.subplots(1, 2, figsize=(6.4, 2.4), sharey=True)
    for ax, values, unit in zip(axes, (memory, arithmetic), units, strict=True):
        names = list(values)[::-1]  # the first on top
        fills = [tint(VARIANTS[name], 0.45) for name in names]
        edges = [VARIANTS[name] for name in names]
        bars = ax.barh(names, [values[name] for name in names], color=fills, edgecolor=edges)
        ax.bar_label(bars, [shown(values[name]) for name in names], padding=4, fontsize=10)
        ax.set(xlabel=unit, xlim=(0, 1.22 * max(values.values())))
        ax.tick_params(axis="y", length=0)
    return fig


def shown(value: float) -> str:
    """Return a number for a bar: no decimals from 20 on, one below."""
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"
