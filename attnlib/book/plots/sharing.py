"""Pictures of sharing: queries folded over one key head, and what fewer KV heads save."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from attnlib.book.plots.style import ROLES, blank, box, styled
from attnlib.costs import Geometry
from attnlib.variants import variant_of


@styled
def folded_queries(n_heads: int) -> Figure:
    """Draw one decode step of multi-query attention twice: keys repeated, queries folded.

    Args:
        n_heads: query heads, H, that share one key head.

    Returns:
        The figure.
    """
    H = n_heads
    fig, ax = plt.subplots(figsize=(6.2, 6.2 * (H + 1.9) / 11.4))
    blank(ax, 11.4, H + 1.9)
    ax.text(0.1, H + 1.35, "K repeated", fontsize=12, fontweight="bold")
    ax.text(6.6, H + 1.35, "queries folded", fontsize=12, fontweight="bold")
    for h in range(H):
        y = H - h
        box(ax, 0.1, y + 0.2, 1.5, 0.6, ROLES["q"], f"q{h}")
        ax.text(1.85, y + 0.5, "×", ha="center", va="center", fontsize=13)
        label, line = ("K", "-") if h == 0 else ("copy of K", "--")
        box(ax, 2.1, y + 0.1, 2.7, 0.8, ROLES["k"], label, linestyle=line)
        box(ax, 6.6, y, 1.5, 1.0, ROLES["q"], f"q{h}")
    ax.text(8.35, 1 + H / 2, "×", ha="center", va="center", fontsize=13)
    box(ax, 8.6, 1 + H / 2 - 0.4, 2.7, 0.8, ROLES["k"], "K")
    ax.text(0.1, 0.35, f"{H} products, K read {H} times", fontsize=10)
    ax.text(6.6, 0.35, "1 product, K read once", fontsize=10)
    return fig


@styled
def cache_over_kv_heads(n_heads: int, gib: Mapping[int, float]) -> Figure:
    """Draw the size of the cache as one bar per number of KV heads.

    Args:
        n_heads: query heads, H.
        gib: number of KV heads to the size of the cache in GiB.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.0, 0.42 * len(gib) + 0.9))
    variants = [variant_of(Geometry(1, n_heads, H_kv, 1)) for H_kv in gib]
    for row, (variant, size) in enumerate(zip(variants, gib.values(), strict=True)):
        ax.barh(row, size, color=variant.color, height=0.66)
        ax.text(size, row, f"  {size:g} GiB", va="center", fontsize=10)
    labels = [f"{v.name}, {H_kv}" for v, H_kv in zip(variants, gib, strict=True)]
    ax.set_yticks(range(len(gib)), labels)
    ax.set(xlabel="cache of one sequence, GiB", ylabel="KV heads")
    ax.set_xlim(0, 1.18 * max(gib.values()))
    ax.tick_params(axis="y", length=0)
    return fig
