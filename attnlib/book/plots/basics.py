"""Pictures of the first idea: look-up, scores, masks, a block, training against inference."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from attnlib.book.plots.heatmaps import draw_weights
from attnlib.book.plots.style import GREY, INK, PAPER, ROLES, arrow, blank, box, styled, tint


@styled
def soft_lookup(query: str, tokens: Sequence[str], scores, weights) -> Figure:
    """Draw one query's scores with all keys, and the weights that mix the values.

    Args:
        query: token of the query.
        tokens: tokens of the keys, S names.
        scores: shape ``(S,)``, the query's score with each key.
        weights: shape ``(S,)``, softmax of the scores.

    Returns:
        The figure.
    """
    S = len(tokens)
    fig, ax = plt.subplots(figsize=(6.0, 0.55 * S + 0.95))
    blank(ax, 12, S + 0.9)
    middle = S / 2
    headings = [
        (0.95, "query"),
        (3.7, "keys"),
        (5.55, "score"),
        (7.5, "weight"),
        (9.5, "values"),
    ]
    for x, text in headings:
        ax.text(x, S + 0.45, text, ha="center", fontsize=10, color=GREY)
    ax.text(11.4, S + 0.45, "output", ha="center", fontsize=10, color=GREY)
    box(ax, 0.2, middle - 0.4, 1.5, 0.8, ROLES["q"], query, size=11)
    box(ax, 10.9, middle - 0.4, 1.0, 0.8, ROLES["out"], "mix", strength=0.12, size=11)
    for i, token in enumerate(tokens):
        y = S - 1 - i
        box(ax, 2.9, y + 0.14, 1.6, 0.72, ROLES["k"], token, size=11)
        arrow(ax, (1.7, middle), (2.9, y + 0.5), width=1.0)
        ax.text(5.55, y + 0.5, f"{scores[i]:.2f}", ha="center", va="center", fontsize=11)
        ax.text(6.95, y + 0.5, f"{weights[i]:.2f}", ha="right", va="center", fontsize=11)
        ax.barh(y + 0.5, 1.5 * weights[i], left=7.05, height=0.42, color=ROLES["q"])
        box(ax, 8.75, y + 0.14, 1.5, 0.72, ROLES["v"], f"v of {token}", size=9,
            strength=0.08 + 0.6 * float(weights[i]))  # fmt: skip
        arrow(
            ax, (10.25, y + 0.5), (10.9, middle), ROLES["v"], width=0.6 + 3 * float(weights[i])
        )
    return fig


@styled
def score_table(
    q: Tensor, k: Tensor, tokens: Sequence[str], *, query: int = 0, key: int = 0
) -> Figure:
    """Draw the product of queries and keys as three tables, with one score marked.

    Args:
        q: queries, shape ``(T, D)``.
        k: keys, shape ``(S, D)``.
        tokens: T = S names, of queries and keys.
        query: row of the marked score.
        key: column of the marked score.

    Returns:
        The figure.
    """
    (T, D), S = q.shape, len(k)
    width, height = D + 2 * S + 4.8, T + 1.5
    fig, ax = plt.subplots(figsize=(6.4, 6.4 * height / width))
    blank(ax, width, height)
    middle = 0.7 + T / 2
    row, column = {(query, d) for d in range(D)}, {(d, key) for d in range(D)}
    left = 1.4
    draw_table(ax, q, (left, 0.7), f"Q: {T} x {D}", ROLES["q"], row)
    left += D + 1.3
    ax.text(left - 0.65, middle, "@", ha="center", va="center", fontsize=13)
    draw_table(ax, k.T, (left, middle - D / 2), f"K.T: {D} x {S}", ROLES["k"], column)
    for s, token in enumerate(tokens):
        ax.text(left + s + 0.5, middle + D / 2 + 0.2, token, ha="center", fontsize=9)
    left += S + 1.0
    ax.text(left - 0.5, middle, "=", ha="center", va="center", fontsize=13)
    left += 0.9
    draw_table(ax, q @ k.T, (left, 0.7), f"Q @ K.T: {T} x {S}", ROLES["out"], {(query, key)})
    for t, token in enumerate(tokens):
        y = 0.7 + T - t - 0.5
        ax.text(1.25, y, token, ha="right", va="center", fontsize=9)
        ax.text(left - 0.1, y, token, ha="right", va="center", fontsize=9)
        ax.text(left + t + 0.5, 0.9 + T, token, ha="center", fontsize=9)
    return fig


def draw_table(
    ax: Axes,
    numbers: Tensor,
    corner: tuple[float, float],
    title: str,
    color: str,
    marked: set[tuple[int, int]],
) -> None:
    """Draw numbers as a table of unit cells, some of them filled.

    Args:
        ax: the axes.
        numbers: shape ``(rows, columns)``.
        corner: lower left corner of the table, in data units.
        title: below the table.
        color: of the filled cells.
        marked: rows and columns of the filled cells, from the top left.
    """
    rows, columns = numbers.shape
    x, y = corner
    for i in range(rows):
        for j in range(columns):
            face = tint(color, 0.3) if (i, j) in marked else PAPER
            box(ax, x + j, y + rows - 1 - i, 1, 1, GREY, f"{numbers[i, j]:g}", facecolor=face,
                linewidth=0.8, size=9)  # fmt: skip
    ax.text(x + columns / 2, y - 0.2, title, ha="center", va="top", fontsize=9, color=GREY)


@styled
def transformer_block() -> Figure:
    """Draw one block of a transformer: a straight stream, and two branches that add to it.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.4, 2.5))
    blank(ax, 12.8, 5.0)
    stream, branch = 1.0, 3.0
    arrow(ax, (0.2, stream), (12.6, stream), INK, width=3.0)
    ax.text(0.2, stream - 0.3, "x, one vector\nper token", va="top", fontsize=9)
    ax.text(6.4, stream - 0.3, "residual stream", ha="center", va="top", fontsize=9)
    ax.text(12.6, stream - 0.3, "to the\nnext block", ha="right", va="top", fontsize=9)
    parts = [
        ("attention", "tokens read from\neach other", ROLES["q"]),
        ("feed-forward", "each token\nby itself", ROLES["v"]),
    ]
    for left, (name, what, color) in zip((1.6, 7.0), parts, strict=True):
        arrow(ax, (left, stream), (left, branch - 0.4))
        box(ax, left - 0.6, branch - 0.4, 1.2, 0.8, GREY, "norm", size=9)
        arrow(ax, (left + 0.6, branch), (left + 1.2, branch))
        box(ax, left + 1.2, branch - 0.4, 2.3, 0.8, color, name)
        ax.text(left + 2.35, branch + 0.55, what, ha="center", fontsize=9, color=GREY)
        arrow(ax, (left + 3.5, branch), (left + 4.0, branch), arrowstyle="-")
        arrow(ax, (left + 4.0, branch), (left + 4.0, stream + 0.2))
        ax.plot([left + 4.0], [stream], marker="o", markersize=15, color=PAPER, mec=INK)
        ax.text(left + 4.0, stream - 0.02, "+", ha="center", va="center", fontsize=13)
    return fig


@styled
def mask_tables(masks, titles: Sequence[str]) -> Figure:
    """Draw boolean masks side by side: filled = may attend.

    Args:
        masks: N boolean masks ``(T, S)``.
        titles: one above each.

    Returns:
        The figure.
    """
    fig, axes = plt.subplots(1, len(titles), figsize=(6.0, 6.0 / len(titles) + 0.45))
    for ax, mask, title in zip(np.atleast_1d(axes), masks, titles, strict=True):
        mask = np.asarray(mask)
        draw_weights(ax, np.where(mask, 0.75, 0), mask=mask, numbers=False)
        T, S = mask.shape
        ax.set(xticks=range(S), yticks=range(T))
        ax.set_xticks(np.arange(S + 1) - 0.5, minor=True)
        ax.set_yticks(np.arange(T + 1) - 0.5, minor=True)
        ax.grid(which="minor", color=PAPER, linewidth=1.5)
        ax.tick_params(which="minor", length=0)
        ax.set_title(title, fontsize=10)
    fig.supxlabel("key position", fontsize=11)
    fig.supylabel("query position", fontsize=11)
    return fig


@styled
def training_and_inference(weights, tokens: Sequence[str]) -> Figure:
    """Draw weights twice: all rows at once in training, one row per step in inference.

    Args:
        weights: causal weights, shape ``(T, T)``.
        tokens: T names.

    Returns:
        The figure.
    """
    weights = np.asarray(weights)
    T = len(tokens)
    fig, axes = plt.subplots(1, 2, figsize=(6.4, 3.9))
    causal = np.tril(np.ones((T, T), bool))
    draw_weights(axes[0], weights, tokens, mask=causal, numbers=False)
    axes[0].set_xlabel("training: every row at once", labelpad=8)
    draw_weights(axes[1], weights, tokens, mask=causal, numbers=False)
    for row in range(T - 1):
        veil = plt.Rectangle((-0.5, row - 0.5), T, 1, facecolor=PAPER, alpha=0.82, lw=0)
        axes[1].add_patch(veil)
    frame = plt.Rectangle((-0.5, T - 1.5), T, 1, fill=False, edgecolor=ROLES["q"], lw=2.4)
    axes[1].add_patch(frame).set_clip_on(False)
    axes[1].set_xlabel("inference: one new row per step", labelpad=8)
    axes[0].set_ylabel("query: who asks")
    for ax in axes:
        ax.xaxis.set_label_position("bottom")
    return fig
