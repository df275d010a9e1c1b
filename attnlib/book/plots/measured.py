"""Pictures of measurements beside what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnlib.book.plots.look import INK, MARKERS, VARIANTS, styled

if TYPE_CHECKING:
    from attnlib.bench import Row


@styled
def step_times(rows: Sequence[Row]) -> Figure:
    """Time of a step against its context: lines are predicted floors, marks are measured.

    A panel for each variant, all on the same axes. Filled marks are attnlib's, open ones
    transformers'. Upright strokes span the quartiles.

    Args:
        rows: of one phase, from :mod:`attnlib.bench`; of attnlib's, those that replay a CUDA
            graph count where there are such.

    Returns:
        The figure.

    Raises:
        ValueError: if there are no rows, or rows of two phases.
    """
    phases = sorted({row.phase for row in rows})
    if len(phases) != 1:
        raise ValueError(f"rows must be of one phase, got {' and '.join(phases) or 'none'}")
    variants = list(dict.fromkeys(row.variant for row in rows))
    columns = min(2, len(variants))
    lines = -(-len(variants) // columns)
    size = (3.1 * columns + 0.3, 2.4 * lines + 0.6)
    fig, axes = plt.subplots(lines, columns, figsize=size, sharex=True, sharey=True,
                             squeeze=False)  # fmt: skip
    for ax, variant in zip(axes.flat, variants, strict=False):
        draw_variant(ax, variant, rows)
    for ax in axes.flat[len(variants) :]:
        ax.remove()
    for ax in axes[-1]:
        ax.set_xlabel("context, tokens")
    for ax in axes[:, 0]:
        ax.set_ylabel("prefill, ms" if phases == ["prefill"] else "decode step, ms")
    marks = [
        Line2D([], [], color=INK, label="predicted floor"),
        Line2D([], [], color=INK, marker="o", linestyle="none", label="attnlib"),
    ]
    if any(row.code == "transformers" for row in rows):
        marks.append(
            Line2D([], [], color=INK, marker="o", ls="none", mfc="none", label="transformers")
        )
    fig.legend(handles=marks, loc="outside upper center", ncols=3)
    return fig


def draw_variant(ax: Axes, variant: str, rows: Sequence[Row]) -> None:
    """Draw one variant's floor and what was measured of it.

    Args:
        ax: where.
        variant: its name.
        rows: of all variants.
    """
    graphs = any(row.graph for row in rows)
    mine = sorted((row for row in rows if row.variant == variant), key=lambda row: row.tokens)
    floors = {row.tokens: 1000 * row.floor_seconds for row in mine}
    every = sorted({row.tokens for row in rows})
    times = [1000 * time for row in rows for time in (row.floor_seconds, row.low, row.high)]
    color = VARIANTS[variant]
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=10 if max(times) > 100 * min(times) else 2)
    ax.plot(list(floors), list(floors.values()), color=color)
    for code, graph, fill in (("transformers", False, "none"), ("attnlib", graphs, color)):
        some = [row for row in mine if (row.code, row.graph) == (code, graph)]
        tokens, middle = [row.tokens for row in some], [1000 * row.seconds for row in some]
        spread = [[1000 * (row.seconds - row.low) for row in some],
                  [1000 * (row.high - row.seconds) for row in some]]  # fmt: skip
        if some:
            ax.errorbar(tokens, middle, yerr=spread, elinewidth=1, linestyle="none",
                        color=color, marker=MARKERS[variant], markerfacecolor=fill)  # fmt: skip
    ax.set_xticks(every, [f"{tokens:,}" for tokens in every], fontsize=9)
    ax.set_xlim(every[0] / 1.5, every[-1] * 1.5)
    ax.set_ylim(min(times) / 1.5, max(times) * 1.5)
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.set_title(variant)
    ax.grid(True)
