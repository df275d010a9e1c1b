"""Pictures of measurements beside what was predicted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from attnlib.plots.look import GREY, MARKERS, VARIANTS, styled

if TYPE_CHECKING:
    from attnlib.bench import Row


@styled
def step_times(rows: Sequence[Row]) -> Figure:
    """Time of a step against its context: marks are measured, lines are the predicted floor.

    A panel for each variant. Upright lines span the quartiles. Marks of attnlib are filled,
    those of other code are open.

    Args:
        rows: of one phase and one batch size, from :mod:`attnlib.bench`.

    Returns:
        The figure.

    Raises:
        ValueError: if there are no rows, or rows of two phases.
    """
    phases = {row.phase for row in rows}
    if len(phases) != 1:
        raise ValueError(
            f"rows must be of one phase, got {', '.join(sorted(phases)) or 'none'}"
        )
    variants = list(dict.fromkeys(row.variant for row in rows))
    fig, axes = plt.subplots(
        1, len(variants), figsize=(1.9 * len(variants) + 0.6, 3.4), sharey=True, squeeze=False
    )
    for ax, variant in zip(axes[0], variants, strict=True):
        color, marker = VARIANTS.get(variant, GREY), MARKERS.get(variant, "o")
        mine = sorted((row for row in rows if row.variant == variant), key=lambda r: r.tokens)
        floors = {row.tokens: 1000 * row.floor_seconds for row in mine}
        ax.plot(list(floors), list(floors.values()), color=color, label="floor")
        for code in dict.fromkeys((row.code, row.graph) for row in mine):
            some = [row for row in mine if (row.code, row.graph) == code]
            middle = [1000 * row.seconds for row in some]
            spread = [[1000 * (row.seconds - row.low) for row in some],
                      [1000 * (row.high - row.seconds) for row in some]]  # fmt: skip
            ours = code[0] == "attnlib"
            ax.errorbar(
                [row.tokens for row in some], middle, yerr=spread, linestyle="none",
                marker=marker if ours else "x", color=color if ours else GREY,
                fillstyle="none" if ours and code[1] else "full",
                label=code[0] + (", graph" if code[1] else ""),
            )  # fmt: skip
        ax.set_xscale("log", base=2)
        ax.set_yscale("log", base=2)
        ax.set_xticks(list(floors), [f"{n // 1024}Ki" if n % 1024 == 0 else f"{n:,}"
                                     for n in floors])  # fmt: skip
        ax.minorticks_off()
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        ax.set_title(variant)
        ax.set_xlabel("context, tokens")
        ax.grid(True)
    axes[0][0].set_ylabel(f"one {phases.pop()} step, ms")
    axes[0][-1].legend(loc="lower right", fontsize=8)
    return fig
