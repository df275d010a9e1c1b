"""All variants in one picture: which heads share what, and what is cached per token."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlib.book.appearance import appearance_of
from attnlib.book.plots.style import GREY, INK, ROLES, blank, box, styled
from attnlib.variants import VARIANTS


@styled
def variants(cached: Mapping[str, int], *, heads: int = 8, kv_heads: int = 2) -> Figure:
    """MHA, GQA, MQA and MLA side by side, and below them the numbers each caches, to scale.

    Args:
        cached: numbers cached of one token in one layer, for each of the four names.
        heads: query heads to draw.
        kv_heads: key/value heads to draw for GQA.

    Returns:
        The figure.
    """
    fig, (sketch, bars) = plt.subplots(2, 1, figsize=(6.6, 4.3), height_ratios=(2.3, 1.05))
    blank(sketch, 26, 9.2)
    for i, (name, groups) in enumerate(
        {"MHA": heads, "GQA": kv_heads, "MQA": 1, "MLA": heads}.items()
    ):
        left = 2.1 + 6.2 * i
        sketch.text(left + 2.5, 8.5, name, ha="center", fontsize=13, weight="bold")
        wire(sketch, left, 5.0, heads, groups, stored=name != "MLA")
        if name == "MLA":
            for head in range(heads):
                x = left + 5.0 * (head + 0.5) / heads
                sketch.plot([x, x], [2.0, 2.8], color=ROLES["latent"], linewidth=1)
            box(sketch, left, 0.9, 5.0, 1.1, ROLES["latent"], "one latent", strength=0.4)
    for y, word in ((6.95, "query"), (3.75, "key,\nvalue")):
        sketch.text(1.7, y, word, ha="right", va="center", fontsize=9, color=GREY)

    names = list(cached)[::-1]
    bars.barh(names, [cached[name] for name in names], color=[VARIANTS[name] for name in names])
    for y, name in enumerate(names):
        bars.text(cached[name], y, f" {cached[name]:,}", va="center", fontsize=10)
    bars.set(xlim=(0, 1.16 * max(cached.values())), xticks=[])
    bars.spines[:].set_visible(False)
    bars.tick_params(length=0)
    bars.set_title("numbers cached of each token in each layer", fontsize=10, weight="normal")
    return fig


def wire(ax: Axes, left: float, width: float, heads: int, groups: int, *, stored: bool) -> None:
    """Draw query heads, the key/value heads below them, and who reads which.

    Args:
        ax: the axes.
        left: left edge.
        width: of the whole.
        heads: query heads.
        groups: key/value heads; divides ``heads``.
        stored: whether keys and values are stored (filled) or made from a latent (dashed).
    """
    for head in range(heads):
        x = left + width * (head + 0.5) / heads
        group = head // (heads // groups)
        target = left + width * (group + 0.5) / groups
        ax.plot([x, target], [6.6, 4.6], color=GREY, linewidth=1, zorder=0)
        box(ax, x - 0.22, 6.6, 0.44, 0.9, ROLES["q"], strength=0.45)
    for group in range(groups):
        x = left + width * (group + 0.5) / groups
        style = {} if stored else {"linestyle": (0, (2, 1.5))}
        for role, y in (("k", 3.7), ("v", 2.8)):
            strength = 0.5 if stored else 0.0
            box(ax, x - 0.22, y, 0.44, 0.9, ROLES[role], strength=strength, **style)
    if not stored:
        ax.text(left + width / 2, 0.25, "dashed: never stored", ha="center",
                fontsize=9, color=INK)  # fmt: skip
