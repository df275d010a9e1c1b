"""Pictures of the cache: its growth, what a decode step reads, bytes against context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attnlib.book.plots.style import GREY, INK, ROLES, blank, box, styled

GIB = 2**30


def log_axes(ax: Axes) -> None:
    """Make both axes logarithmic in powers of two, with plain numbers on the y axis.

    Args:
        ax: the axes.
    """
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=4)
    ax.yaxis.set_major_formatter(
        lambda value, _: f"{value:,.2f}" if value < 1 else f"{value:,.0f}"
    )


@styled
def growing_cache(prompt: Sequence[str], new: Sequence[str]) -> Figure:
    """Draw each step of generation as a row: keys, values and queries, new or cached.

    Args:
        prompt: tokens that the first step (prefill) processes together.
        new: tokens that later steps (decode) process one by one.

    Returns:
        The figure.
    """
    tokens, steps = [*prompt, *new], 1 + len(new)
    right = 2.2 + len(tokens) + 1.45  # where the queries begin
    fig, ax = plt.subplots(figsize=(6.4, 0.62 * (steps + 2)))
    blank(ax, right + len(prompt), steps + 2.0)
    for i, token in enumerate(tokens):
        ax.text(2.7 + i, steps + 0.25, token, ha="left", rotation=40, fontsize=9)
    ax.text(2.2, steps + 1.55, "keys and values", fontsize=10, color=GREY)
    ax.text(right, steps + 1.55, "queries", fontsize=10, color=GREY)
    for step in range(steps):
        y, seen = steps - 1 - step, len(prompt) + step
        ax.text(
            2.0, y + 0.5, "prefill" if step == 0 else f"decode {step}", ha="right", va="center"
        )
        first = 0 if step == 0 else seen - 1
        for i in range(seen):
            fresh = i >= first
            color, strength, word = (ROLES["k"], 0.45, "new") if fresh else (GREY, 0.16, "kept")
            box(ax, 2.2 + i, y + 0.1, 0.9, 0.8, color, word, strength=strength, size=9)
        for i in range(seen - first):
            box(ax, right + i, y + 0.1, 0.9, 0.8, ROLES["q"], "new", strength=0.35, size=9)
    return fig


@styled
def decode_reads(
    lengths: Sequence[int], weight_bytes: int, cache_bytes: Mapping[str, Sequence[int]]
) -> Figure:
    """Draw the bytes that one decode step reads against the context: weights and cache.

    Args:
        lengths: context lengths in tokens.
        weight_bytes: bytes of all weights.
        cache_bytes: label of a curve to its bytes, one number per length.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(5.8, 3.5))
    ax.axhline(weight_bytes / GIB, color=INK, linewidth=2)
    ax.text(lengths[-1], weight_bytes / GIB * 0.85, "weights", ha="right", va="top")
    for (label, values), style in zip(cache_bytes.items(), ("o-", "s--", "^:"), strict=False):
        ax.plot(lengths, [value / GIB for value in values], style, label=label)
    log_axes(ax)
    ax.set(xlabel="context, tokens", ylabel="read in one step, GiB")
    ax.set_xticks(lengths[::2], [f"{n:,}" for n in lengths[::2]])
    ax.grid(True)
    ax.legend(loc="lower right")
    return fig
