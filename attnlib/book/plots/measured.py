"""The picture of measured times and their predicted floors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from attnlib.bench.report import disturbance
from attnlib.book.appearance import appearance_of
from attnlib.book.plots.style import INK, styled

if TYPE_CHECKING:
    from attnlib.bench import Row

DISTURBED = "measured, but disturbed by something else: quartiles only"


@styled
def step_times(rows: Sequence[Row]) -> Figure:
    """Draw times of a step against its context: lines are predicted floors, marks measured.

    One panel per variant, all with the same axes. Filled marks are attnlib's, open marks
    transformers'. Vertical strokes span the quartiles. In a run that something disturbed there
    are only strokes, which do not suggest an order.

    Args:
        rows: of one phase, from :mod:`attnlib.bench`. If any replays a CUDA graph, attnlib's
            marks are those that do.

    Returns:
        The figure.

    Raises:
        ValueError: if there are no rows or rows of two phases, or if a row's variant is not
            registered.
    """
    phases = sorted({row.phase for row in rows})
    if len(phases) != 1:
        raise ValueError(f"rows must be of one phase, got {' and '.join(phases) or 'none'}")
    variants = list(dict.fromkeys(row.variant for row in rows))
    columns = min(2, len(variants))
    lines = -(-len(variants) // columns)
    fig, axes = plt.subplots(
        lines, columns, figsize=(3.1 * columns + 0.3, 2.4 * lines + 0.6), sharex=True,
        sharey=True, squeeze=False,
    )  # fmt: skip
    for ax, variant in zip(axes.flat, variants, strict=False):
        draw_variant(ax, variant, rows)
    for ax in axes.flat[len(variants) :]:
        ax.remove()
    for ax in axes[-1]:
        ax.set_xlabel("context, tokens")
    for ax in axes[:, 0]:
        ax.set_ylabel("prefill, ms" if phases == ["prefill"] else "decode step, ms")
    floor = Line2D([], [], color=INK, label="predicted floor")
    if disturbance(rows):
        stroke = Line2D([], [], color=INK, marker="|", ls="none", ms=12, label=DISTURBED)
        fig.legend(handles=[floor, stroke], loc="outside upper center", ncols=1)
        return fig
    marks = [floor, Line2D([], [], color=INK, marker="o", linestyle="none", label="attnlib")]
    if any(row.code == "transformers" for row in rows):
        marks.append(
            Line2D([], [], color=INK, marker="o", ls="none", mfc="none", label="transformers")
        )
    fig.legend(handles=marks, loc="outside upper center", ncols=3)
    return fig


def draw_variant(ax: Axes, variant: str, rows: Sequence[Row]) -> None:
    """Draw one variant's predicted floor and its measured times.

    Args:
        ax: the axes.
        variant: name of the variant.
        rows: of all variants, which fix the scales of the axes.
    """
    graphs = any(row.graph for row in rows)
    own = sorted((row for row in rows if row.variant == variant), key=lambda row: row.tokens)
    floors = {row.tokens: 1000 * row.floor_seconds for row in own}
    contexts = sorted({row.tokens for row in rows})
    times = [1000 * time for row in rows for time in (row.floor_seconds, row.low, row.high)]
    look = appearance_of(variant)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log", base=10 if max(times) > 100 * min(times) else 2)
    ax.plot(list(floors), list(floors.values()), color=look.color)
    for code, graph, fill in (
        ("transformers", False, "none"),
        ("attnlib", graphs, look.color),
    ):
        measured = [row for row in own if (row.code, row.graph) == (code, graph)]
        if not measured:
            continue
        below = [1000 * (row.seconds - row.low) for row in measured]
        above = [1000 * (row.high - row.seconds) for row in measured]
        ax.errorbar(
            [row.tokens for row in measured], [1000 * row.seconds for row in measured],
            yerr=[below, above], elinewidth=1, linestyle="none", color=look.color,
            marker="none" if disturbance(rows) else look.marker, markerfacecolor=fill,
        )  # fmt: skip
    ax.set_xticks(contexts, [f"{tokens:,}" for tokens in contexts], fontsize=9)
    ax.set_xlim(contexts[0] / 1.5, contexts[-1] * 1.5)
    ax.set_ylim(min(times) / 1.5, max(times) * 1.5)
    ax.minorticks_off()
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    ax.set_title(variant)
    ax.grid(True)
