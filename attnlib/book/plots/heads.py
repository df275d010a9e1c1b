"""Pictures of heads: split and merge, the view trap, what trained heads do."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from attnlib.book.plots.basics import mask_tables
from attnlib.book.plots.heatmaps import draw_weights
from attnlib.book.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    PAPER,
    PURPLE,
    ROLES,
    VERMILION,
    arrow,
    blank,
    box,
    styled,
)

# One colour per token in the picture of the view trap; each cell shows its token's number.
TOKEN_COLORS = (BLUE, VERMILION, GREEN, PURPLE)


@styled
def split_and_merge(d_model: int, n_heads: int, head_dim: int) -> Figure:
    """Draw one token's way through multi-head attention: project, split, attend, merge, W_O.

    Args:
        d_model: width of the residual stream.
        n_heads: number of heads, H, one column per head.
        head_dim: width of one head, D.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.2, 5.5))
    blank(ax, 12.4, 11)
    left, right = 3.4, 12.2
    step = (right - left) / n_heads
    for h in range(n_heads):
        x = left + h * step
        box(ax, x + 0.06, 2.75, step - 0.12, 8.2, GREY, strength=0.1, linewidth=0)
        ax.text(x + step / 2, 10.55, f"head {h}", ha="center", va="center", fontsize=11)
    box(ax, 0.2, 6.85, 0.9, 3.3, INK, f"x\n{d_model}", strength=0.1, size=11)
    for role, y in (("q", 9.3), ("k", 8.1), ("v", 6.9)):
        arrow(ax, (1.1, y + 0.4), (left, y + 0.4), ROLES[role])
        ax.text(2.25, y + 0.72, f"$W_{role.upper()}$", ha="center", va="center", fontsize=12)
        box(ax, left, y, right - left, 0.8, ROLES[role])
        for h in range(n_heads):
            x = left + h * step
            if h:
                ax.plot([x, x], [y, y + 0.8], color=ROLES[role], lw=1.4)
            ax.text(x + step / 2, y + 0.4, f"{role}: {head_dim}", ha="center", va="center",
                    fontsize=11)  # fmt: skip
    for h in range(n_heads):
        x = left + h * step
        middle = x + step / 2
        arrow(ax, (middle, 6.9), (middle, 6.15))
        box(ax, x + 0.2, 4.75, step - 0.4, 1.4, GREY, "attention\non its own", strength=0.0,
            size=9)  # fmt: skip
        arrow(ax, (middle, 4.75), (middle, 3.8))
        box(ax, x, 3.0, step, 0.8, ROLES["out"], str(head_dim), strength=0.12, size=11)
    ax.text(left - 0.2, 5.45, f"{n_heads} mixtures\nof values", ha="right", va="center",
            fontsize=10, color=INK)  # fmt: skip
    ax.text(left - 0.2, 3.4, f"merged: {n_heads} × {head_dim}", ha="right", va="center",
            fontsize=10, color=INK)  # fmt: skip
    middle = (left + right) / 2
    arrow(ax, (middle, 3.0), (middle, 1.3))
    ax.text(middle + 0.25, 2.1, "$W_O$  mixes the heads", ha="left", va="center", fontsize=12)
    box(ax, left, 0.4, right - left, 0.85, INK, f"output: {d_model}", strength=0.1, size=11)
    return fig


@styled
def where_numbers_land(flat, right, wrong) -> Figure:
    """Draw which token's numbers each head gets, after view and transpose or a bare view.

    Args:
        flat: the token's number at each place of ``(T, H * D)``.
        right: the same after view and transpose, ``(H, T, D)``.
        wrong: the same after the view alone, ``(H, T, D)``.

    Returns:
        The figure.
    """
    flat, right, wrong = (np.asarray(x, dtype=int) for x in (flat, right, wrong))
    H, T, D = right.shape
    fig, ax = plt.subplots(figsize=(6.2, 4.6))
    blank(ax, 13.2, 2 * T + 1.7)
    center = T + 0.5

    def grid(values: np.ndarray, x: float, y: float) -> None:
        for row, line in enumerate(values):
            for column, token in enumerate(line):
                box(ax, x + column, y - row - 1, 1, 1, TOKEN_COLORS[token % 4], str(token),
                    size=12, strength=0.3, edgecolor=PAPER)  # fmt: skip

    grid(flat, 0.2, center + T / 2)
    ax.plot([0.2 + D] * 2, [center - T / 2, center + T / 2], color=INK, lw=1.6, ls="--")
    ax.text(
        0.2 + H * D / 2, center + T / 2 + 0.5, "q: one row per token", ha="center", fontsize=11
    )
    heads = (2 * T + 0.6, T + 0.1)  # upper edge of each head's block
    for values, x, title, good in (
        (right, 6.4, "view, transpose", True),
        (wrong, 11.0, "view alone", False),
    ):
        color = INK if good else VERMILION
        ax.text(x + D / 2, heads[0] + 0.55, title, ha="center", fontsize=11, color=color)
        for h, y in enumerate(heads[:H]):
            grid(values[h], x, y)
            ax.text(x - 0.25, y - T / 2, f"head {h}", ha="center", va="center", fontsize=10,
                    rotation=90)  # fmt: skip
    arrow(ax, (0.4 + H * D, center), (5.8, center))
    return fig


@styled
def reach_tables(tables, titles: Sequence[str]) -> Figure:
    """Draw which outputs change when a token is changed: filled = changes.

    Args:
        tables: N boolean tables ``(T, T)``, row = output, column = changed token.
        titles: one above each.

    Returns:
        The figure.
    """
    fig = mask_tables(tables, titles)
    fig.supxlabel("changed token", fontsize=11)
    fig.supylabel("output", fontsize=11)
    return fig


@styled
def by_head(panels, titles: Sequence[str], *, percent: Sequence[int] = ()) -> Figure:
    """Draw one number per head as small maps, one row per layer and one column per head.

    Args:
        panels: N arrays ``(n_layers, H)`` of numbers from 0 to 1.
        titles: one above each.
        percent: indices of the panels that print percent instead of two decimals.

    Returns:
        The figure.
    """
    panels = [np.asarray(panel, dtype=float) for panel in panels]
    layers, H = panels[0].shape
    fig, axes = plt.subplots(len(panels), 1, figsize=(6.2, 1.75 * len(panels) + 0.3))
    axes = np.atleast_1d(axes)
    for i, (ax, panel, title) in enumerate(zip(axes, panels, titles, strict=True)):
        ax.pcolormesh(panel, vmin=0, vmax=1, cmap="Blues", edgecolors=PAPER, linewidth=2)
        ax.invert_yaxis()
        for (layer, h), value in np.ndenumerate(panel):
            text = f"{100 * value:.0f}%" if i in percent else f"{value:.2f}"
            ink = "white" if value > 0.55 else INK
            ax.text(
                h + 0.5, layer + 0.5, text, ha="center", va="center", fontsize=11, color=ink
            )
        ax.set_title(title, fontsize=11)
        ax.set_yticks(np.arange(layers) + 0.5, [f"layer {layer}" for layer in range(layers)])
        ax.set_xticks(np.arange(H) + 0.5, range(H) if i == len(panels) - 1 else [""] * H)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    axes[-1].set_xlabel("head")
    return fig


@styled
def two_heads(weights, names: Sequence[str], tokens: Sequence[str], back: int) -> Figure:
    """Draw a previous-token head and an induction head, their ideal targets framed.

    Args:
        weights: two matrices ``(T, T)``: of the previous-token head and of the induction head.
        names: one above each.
        tokens: T names.
        back: distance from a query to the induction head's ideal key, in tokens.

    Returns:
        The figure.
    """
    T = len(tokens)
    fig, axes = plt.subplots(1, 2, figsize=(6.6, 3.8))
    for ax, matrix, name, distance in zip(axes, weights, names, (1, back), strict=True):
        causal = np.tril(np.ones((T, T), bool))
        draw_weights(ax, matrix, tokens, mask=causal, numbers=False)
        first = distance if distance == 1 else distance + 1  # from where the pattern repeats
        for row in range(first, T):
            cell = plt.Rectangle((row - distance - 0.5, row - 0.5), 1, 1, fill=False)
            ax.add_patch(cell).set(edgecolor=VERMILION, linewidth=1.3)
        ax.set_title(name, fontsize=11, pad=8)
    fig.supxlabel("key: who answers", fontsize=11)
    fig.supylabel("query: who asks", fontsize=11)
    return fig
