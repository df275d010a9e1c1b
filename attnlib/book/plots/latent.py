"""The picture of multi-head latent attention: expanded and absorbed, drawn to scale."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlib.book.plots.style import GREY, INK, ROLES, arrow, blank, box, styled

UNIT = 1 / 220  # drawing units per number of width


@styled
def latent_forms(
    n_heads: int,
    qk_nope_head_dim: int,
    qk_rope_head_dim: int,
    v_head_dim: int,
    kv_lora_rank: int,
) -> Figure:
    """Draw the expanded form above the absorbed one, with widths to scale.

    Args:
        n_heads: number of heads, H.
        qk_nope_head_dim: width of one head's query and key without position.
        qk_rope_head_dim: width of the rotary query and key.
        v_head_dim: width of one head's value.
        kv_lora_rank: width of the latent.

    Returns:
        The figure.
    """
    nope, rope, value, rank = qk_nope_head_dim, qk_rope_head_dim, v_head_dim, kv_lora_rank
    fig, (top, bottom) = plt.subplots(2, 1, figsize=(6.2, 5.6), height_ratios=[4.6, 3.2])
    tall, flat, cache_x, x = 1.3, 0.3, 9.3, 4.6
    for ax, height, y in ((top, 4.6, 1.5), (bottom, 3.2, 0.85)):
        blank(ax, 12.6, height)
        strip(ax, cache_x, y, tall, [(rank, "latent"), (rope, "k")], 1)
        caption(ax, cache_x, y + tall, "cached tokens", f"{rank} + {rope}, for all heads")

    top.set_title("expanded: the cache comes to the heads")
    strip(top, 0.2, 2.75, flat, [(nope, "q"), (rope, "q")], n_heads)
    caption(top, 0.2, 2.75 + flat, "query", f"{n_heads} × ({nope} + {rope})")
    strip(top, x, 2.3, tall, [(nope, "k"), (rope, "k")], n_heads)
    caption(top, x, 2.3 + tall, "keys", f"{n_heads} × ({nope} + {rope})")
    strip(top, x, 0.2, tall, [(value, "v")], n_heads)
    caption(top, x + 0.95, 0.05, "values", f"{n_heads} × {value}")
    strip(top, 0.2, 0.75, flat, [(value, "out")], n_heads)
    caption(top, 0.2, 0.72, f"output: {n_heads} × {value}", "", below=True)
    arrow(top, (1.4, 2.9), (x - 0.1, 2.9), INK)
    top.text(3.0, 3.02, "scores", ha="center", fontsize=10)
    arrow(top, (x + 0.4, 2.25), (x + 0.4, 1.8), INK)
    top.text(x - 0.1, 1.95, "weights", ha="right", fontsize=10)
    arrow(top, (x - 0.1, 0.9), (1.2, 0.9), INK)
    arrow(top, (cache_x - 0.05, 2.4), (x + 1.3, 2.75), ROLES["latent"])
    top.text(7.5, 2.82, "$W^{UK}$ (rotary key: copied)", ha="center", fontsize=9.5)
    arrow(top, (cache_x - 0.05, 1.8), (x + 1.05, 1.2), ROLES["latent"])
    top.text(7.6, 1.2, "$W^{UV}$", ha="center", fontsize=12)

    bottom.set_title("absorbed: the query comes to the cache")
    strip(bottom, 0.2, 1.85, flat, [(nope, "q"), (rope, "q")], n_heads)
    caption(bottom, 0.2, 1.85 + flat, "query", f"{n_heads} × ({nope} + {rope})")
    strip(bottom, 4.2, 1.85, flat, [(rank, "q"), (rope, "q")], n_heads)
    caption(bottom, 4.2, 1.85 + flat, "query in latent space", f"{n_heads} × ({rank} + {rope})")
    arrow(bottom, (1.4, 2.0), (4.1, 2.0), ROLES["latent"])
    bottom.text(2.75, 2.12, "$W^{UK}$", ha="center", fontsize=12)
    arrow(bottom, (7.2, 2.0), (cache_x - 0.05, 1.8), INK)
    bottom.text(8.3, 2.05, "scores", ha="center", fontsize=10)
    strip(bottom, 4.2, 0.75, flat, [(rank, "latent")], n_heads)
    caption(bottom, 4.2, 0.72, f"mixed latents: {n_heads} × {rank}", "", below=True)
    strip(bottom, 0.2, 0.75, flat, [(value, "out")], n_heads)
    caption(bottom, 0.2, 0.72, f"output: {n_heads} × {value}", "", below=True)
    arrow(bottom, (cache_x - 0.05, 1.1), (7.2, 0.9), INK)
    bottom.text(8.25, 1.3, "weights", ha="center", fontsize=10)
    arrow(bottom, (4.1, 0.9), (1.2, 0.9), ROLES["latent"])
    bottom.text(2.75, 1.02, "$W^{UV}$", ha="center", fontsize=12)
    return fig


def strip(
    ax: Axes,
    x: float,
    y: float,
    height: float,
    parts: Sequence[tuple[int, str]],
    copies: int,
) -> None:
    """Draw a matrix as adjoining parts, and a matrix that every head has as a stack.

    Args:
        ax: the axes.
        x: left edge.
        y: lower edge.
        height: of the strip.
        parts: ``(width in numbers, role)`` of each part, left to right.
        copies: how many there are; more than one are drawn as three sheets.
    """
    for shift in (0.24, 0.12, 0.0) if copies > 1 else (0.0,):
        left = x + shift
        for i, (width, role) in enumerate(parts):
            strength = 0.42 if i == 0 else 0.16
            box(ax, left, y + shift, width * UNIT, height, ROLES[role], strength=strength)
            left += width * UNIT


def caption(ax: Axes, x: float, y: float, name: str, size: str, *, below: bool = False) -> None:
    """Write a name and a size above (or below) a strip.

    Args:
        ax: the axes.
        x: left edge.
        y: the strip's upper (or lower) edge.
        name: of the matrix.
        size: its size in words, ignored below.
        below: whether to write below the strip.
    """
    if below:
        ax.text(x, y - 0.1, name, fontsize=10, va="top")
        return
    ax.text(x, y + 0.76, name, fontsize=12)
    ax.text(x, y + 0.4, size, fontsize=10, color=GREY)
