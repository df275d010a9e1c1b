"""Pictures of rotary positions: rotated arrows, wavelengths, pairings, scaling rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Arc

from attnlib.book.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    ROLES,
    RULE,
    VERMILION,
    arrow,
    blank,
    box,
    styled,
    tint,
)


@styled
def turned_arrows(q, k, titles: Sequence[str], scores: Sequence[float]) -> Figure:
    """Draw a query and a key as arrows in the plane, rotated by several pairs of positions.

    Args:
        q: shape ``(N, 2)``, the query's arrow in each panel.
        k: shape ``(N, 2)``, the key's.
        titles: N texts, one above each panel.
        scores: N dot products, one below each panel.

    Returns:
        The figure.
    """
    q, k = np.asarray(q), np.asarray(k)
    fig, axes = plt.subplots(1, len(titles), figsize=(6.4, 2.75))
    reach = 1.12 * max(np.linalg.norm(q, axis=1).max(), np.linalg.norm(k, axis=1).max())
    for ax, ask, answer, title, score in zip(axes, q, k, titles, scores, strict=True):
        ax.add_patch(plt.Circle((0, 0), 0.86 * reach, fill=False, color=RULE, lw=1))
        ax.plot([-reach, reach], [0, 0], color=RULE, lw=1, zorder=0)
        ax.plot([0, 0], [-reach, reach], color=RULE, lw=1, zorder=0)
        from_k = np.degrees(np.arctan2(answer[1], answer[0]))
        from_q = np.degrees(np.arctan2(ask[1], ask[0]))
        first, last = (from_q, from_k) if (from_k - from_q) % 360 < 180 else (from_k, from_q)
        size = 0.95 * reach
        ax.add_patch(Arc((0, 0), size, size, theta1=first, theta2=last, color=INK, lw=1.6))
        for name, (x, y) in (("q", ask), ("k", answer)):
            arrow(ax, (0, 0), (x, y), ROLES[name], width=2.6, mutation_scale=15, shrinkB=0)
            out = 1 + 0.17 * reach / np.hypot(x, y)
            ax.text(
                x * out, y * out, name, ha="center", va="center", fontsize=13,
                color=ROLES[name], fontweight="bold",
            )  # fmt: skip
        edge = 1.18 * reach
        ax.set(xlim=(-edge, edge), ylim=(-edge, edge), aspect="equal", xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        ax.set_title(title, fontsize=10, loc="center")
        ax.set_xlabel(f"score {score:.2f}")
    return fig


@styled
def wavelengths(tokens_per_turn: Mapping[str, object], trained: int) -> Figure:
    """Draw how many tokens each pair of dimensions needs for one full turn.

    Args:
        tokens_per_turn: label of a curve to the tokens per turn of each pair, shape
            ``(pairs,)``.
        trained: tokens of the longest sequence in training.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.0, 3.5))
    styles = [(BLUE, "-"), (VERMILION, "--"), (GREEN, ":")]
    for (label, values), (color, line) in zip(tokens_per_turn.items(), styles, strict=False):
        values = np.asarray(values)
        pairs = np.arange(len(values))
        ax.plot(pairs, values, color=color, ls=line)
        ax.annotate(
            label, (pairs[-1], values[-1]), (-6, 4), textcoords="offset points", ha="right",
            va="bottom", fontsize=10, color=color,
        )  # fmt: skip
    ax.axhspan(1, trained, color=tint(GREY, 0.18), lw=0, zorder=0)
    ax.text(0.5, trained * 0.8, f"full turn within {trained:,} tokens", va="top", color=GREY,
            fontsize=10)  # fmt: skip
    ax.set(yscale="log", xlim=(0, len(values) - 1), ylim=(2, None))
    ax.set(xlabel="pair i", ylabel="tokens per full turn")
    ax.minorticks_off()
    return fig


@styled
def pairings(width: int) -> Figure:
    """Draw which dimensions of a head are rotated together, in the two layouts.

    Args:
        width: of one head, even.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.0, 3.3))
    blank(ax, width + 2.9, 6.0)
    half = width // 2
    colors = [BLUE, VERMILION, GREEN, PURPLE, ORANGE, GREY]
    layouts = [
        ("half-split", 3.6, [(i, i + half) for i in range(half)]),
        ("interleaved", 0.7, [(2 * i, 2 * i + 1) for i in range(half)]),
    ]
    for name, y, pairs in layouts:
        ax.text(2.5, y + 0.42, name, ha="right", va="center", fontsize=11)
        ax.text(2.5, y - 0.35, "pair", ha="right", va="center", fontsize=10, color=GREY)
        for i, (a, b) in enumerate(pairs):
            color = colors[i % len(colors)]
            for number in (a, b):
                box(ax, 2.8 + number, y, 0.84, 0.84, color, str(number), size=11)
                at = (3.22 + number, y - 0.35)
                ax.text(*at, str(i), ha="center", va="center", fontsize=10, color=GREY)
            middle, reach = 3.22 + (a + b) / 2, b - a
            height = 0.9 if reach == 1 else 1.3 + 0.55 * i
            arc = Arc((middle, y + 0.9), reach, height, theta1=0, theta2=180, color=color, lw=2)
            ax.add_patch(arc)
    return fig


@styled
def kept_speed(speeds: Mapping[str, object]) -> Figure:
    """Draw which share of its speed each pair of numbers keeps under several rules.

    Args:
        speeds: label of a rule to new speed / old speed of each pair, shape ``(pairs,)``.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.0, 3.3))
    styles = [(BLUE, "--"), (GREEN, "-."), (VERMILION, "-"), (PURPLE, ":")]
    for (label, values), (color, line) in zip(speeds.items(), styles, strict=False):
        ax.plot(np.asarray(values), color=color, ls=line, label=label)
    ax.set(xlim=(0, len(values) - 1), ylim=(0, 1.1))
    ax.set(xlabel="pair i, fast to slow", ylabel="new speed / old speed")
    ax.grid(axis="y")
    ax.legend(loc="upper right", fontsize=10)
    return fig
