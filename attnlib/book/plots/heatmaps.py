"""Heatmaps of attention weights: rows are queries, columns are keys."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlib.book.plots.style import GREY, INK, styled


def draw_weights(
    ax: Axes,
    weights,
    q_tokens: Sequence[str] | None = None,
    k_tokens: Sequence[str] | None = None,
    *,
    mask=None,
    numbers: bool | None = None,
    vmax: float = 1.0,
) -> None:
    """Draw one matrix of weights: row = query, column = key, hidden cells hatched.

    Args:
        ax: the axes to draw in.
        weights: shape ``(T, S)``, each row sums to 1.
        q_tokens: names of the rows, top to bottom.
        k_tokens: names of the columns; ``None`` means those of the rows.
        mask: boolean ``(T, S)``, True = may attend; hidden cells are hatched.
        numbers: whether cells show their weights; ``None`` means if they fit.
        vmax: the weight with the darkest colour.
    """
    weights = np.asarray(weights, dtype=float)
    T, S = weights.shape
    visible = (
        np.ones((T, S), bool) if mask is None else np.broadcast_to(np.asarray(mask), (T, S))
    )
    ax.imshow(
        np.ma.masked_where(~visible, weights), vmin=0, vmax=vmax, cmap="Blues", aspect="equal"
    )
    for row, column in np.argwhere(~visible):
        cell = plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, hatch="////")
        cell.set(edgecolor="#c9ccd0", linewidth=0)
        ax.add_patch(cell)
    if numbers if numbers is not None else S <= 8:
        for row, column in np.argwhere(visible):
            value = weights[row, column]
            ink = "white" if value > 0.55 * vmax else INK
            ax.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=ink
            )
    k_tokens = q_tokens if k_tokens is None else k_tokens
    if q_tokens is not None:
        ax.set_yticks(range(T), q_tokens)
    if k_tokens is not None:
        slant = max(map(len, k_tokens)) > 3
        ax.set_xticks(range(S), k_tokens, rotation=45 if slant else 0)
        if slant:
            plt.setp(ax.get_xticklabels(), ha="left", rotation_mode="anchor")
    ax.tick_params(length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    ax.xaxis.set_label_position("top")
    ax.spines[:].set(visible=True, color=GREY, linewidth=0.8)


@styled
def heatmap(
    weights, q_tokens=None, k_tokens=None, *, mask=None, title="", numbers=None, vmax=1.0
) -> Figure:
    """Draw one matrix of weights as a figure: row = query, column = key.

    Args:
        weights: shape ``(T, S)``, each row sums to 1.
        q_tokens: names of the rows.
        k_tokens: names of the columns; ``None`` means those of the rows.
        mask: boolean ``(T, S)``, True = may attend; hidden cells are hatched.
        title: above the picture.
        numbers: whether cells show their weights; ``None`` means if they fit.
        vmax: the weight with the darkest colour.

    Returns:
        The figure.
    """
    T, S = np.shape(weights)
    fig, ax = plt.subplots(figsize=(min(5.6, 1.9 + 0.55 * S), min(5.6, 1.5 + 0.5 * T)))
    draw_weights(ax, weights, q_tokens, k_tokens, mask=mask, numbers=numbers, vmax=vmax)
    ax.set(xlabel="key: who answers", ylabel="query: who asks")
    if title:
        fig.suptitle(title, x=0.02, ha="left", fontsize=12, fontweight="bold")
    return fig


@styled
def heatmaps(
    weights,
    titles,
    q_tokens=None,
    k_tokens=None,
    *,
    mask=None,
    columns=4,
    numbers=None,
    vmax=1.0,
) -> Figure:
    """Draw several matrices of weights side by side, for example one per head.

    Args:
        weights: shape ``(N, T, S)``, or a list of N matrices.
        titles: N texts, one above each matrix.
        q_tokens: names of the rows.
        k_tokens: names of the columns; ``None`` means those of the rows.
        mask: boolean ``(T, S)`` for all, True = may attend; hidden cells are hatched.
        columns: matrices per row of the figure.
        numbers: whether cells show their weights; ``None`` means if they fit.
        vmax: the weight with the darkest colour.

    Returns:
        The figure.
    """
    columns = min(columns, len(titles))
    rows = -(-len(titles) // columns)
    side = 6.6 / columns
    fig, axes = plt.subplots(
        rows, columns, figsize=(6.6, rows * (side + 0.25) + 0.3), squeeze=False
    )
    for ax in axes.flat[len(titles) :]:
        ax.axis("off")
    for i, (ax, title) in enumerate(zip(axes.flat, titles, strict=False)):
        show = q_tokens is not None
        draw_weights(
            ax, weights[i], q_tokens if show and i % columns == 0 else None,
            (k_tokens or q_tokens) if show and i < columns else None,
            mask=mask, numbers=numbers, vmax=vmax,
        )  # fmt: skip
        if not (show and i < columns):
            ax.set_xticks([])
        if not (show and i % columns == 0):
            ax.set_yticks([])
        ax.set_title(title, fontsize=10)
    fig.supxlabel("key: who answers", fontsize=11)
    fig.supylabel("query: who asks", fontsize=11)
    return fig
