"""All variants in one picture: which heads share what, and what is cached per token."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlib.book.appearance import appearance_of
from attnlib.book.plots.style import GREY, INK, ROLES, blank, box, styled
from attnlib.variants import Sizes, geometries


@styled
def variants(cached: Mapping[str, int], *, heads: int = 8, kv_heads: int = 2) -> Figure:
    """Draw all variants side by side, and below them the numbers that each caches, to scale.

    Args:
        cached: name of a registered variant to the numbers that one layer caches per token.
        heads: query heads to draw.
        kv_heads: KV heads to draw where query heads are grouped.

    Returns:
        The figure.

    Raises:
        ValueError: if a name is not a registered variant's.
    """
    fig, (sketch, bars) = plt.subplots(2, 1, figsize=(6.6, 4.3), height_ratios=(2.3, 1.05))
    layers = geometries(Sizes(d_model=heads, n_heads=heads, n_kv_heads=kv_heads))
    blank(sketch, 1.2 + 6.2 * len(cached), 9.2)
    for i, name in enumerate(cached):
        left, layer = 2.1 + 6.2 * i, layers[appearance_of(name).name]
        sketch.text(left + 2.5, 8.5, name, ha="center", fontsize=13, weight="bold")
        stored = layer.kv_lora_rank is None
        wire(sketch, left, 5.0, heads, layer.n_kv_heads, stored=stored)
        if not stored:
            for head in range(heads):
                x = left + 5.0 * (head + 0.5) / heads
                sketch.plot([x, x], [2.0, 2.8], color=ROLES["latent"], linewidth=1)
            box(sketch, left, 0.9, 5.0, 1.1, ROLES["latent"], "one latent", strength=0.4)
    for y, word in ((6.95, "query"), (3.75, "key,\nvalue")):
        sketch.text(1.7, y, word, ha="right", va="center", fontsize=9, color=GREY)

    names = list(cached)[::-1]
    colors = [appearance_of(name).color for name in names]
    bars.barh(names, [cached[name] for name in names], color=colors)
    for y, name in enumerate(names):
        bars.text(cached[name], y, f" {cached[name]:,}", va="center", fontsize=10)
    bars.set(xlim=(0, 1.16 * max(cached.values())), xticks=[])
    bars.spines[:].set_visible(False)
    bars.tick_params(length=0)
    bars.set_title("numbers cached per token and layer", fontsize=10, weight="normal")
    return fig


def wire(
    ax: Axes, left: float, width: float, heads: int, kv_heads: int, *, stored: bool
) -> None:
    """Draw query heads, the KV heads below them, and which query head reads which.

    Args:
        ax: the axes.
        left: left edge.
        width: of the whole.
        heads: query heads.
        kv_heads: KV heads; divides ``heads``.
        stored: whether keys and values are cached (filled) or expanded from a latent (dashed).
    """
    for head in range(heads):
        x = left + width * (head + 0.5) / heads
        kv_head = head // (heads // kv_heads)
        target = left + width * (kv_head + 0.5) / kv_heads
        ax.plot([x, target], [6.6, 4.6], color=GREY, linewidth=1, zorder=0)
        box(ax, x - 0.22, 6.6, 0.44, 0.9, ROLES["q"], strength=0.45)
    strength, line = (0.5, "-") if stored else (0.0, (0, (2, 1.5)))
    for kv_head in range(kv_heads):
        x = left + width * (kv_head + 0.5) / kv_heads
        for role, y in (("k", 3.7), ("v", 2.8)):
            box(ax, x - 0.22, y, 0.44, 0.9, ROLES[role], strength=strength, linestyle=line)
    if not stored:
        ax.text(left + width / 2, 0.25, "dashed: never stored", ha="center",
                fontsize=9, color=INK)  # fmt: skip
