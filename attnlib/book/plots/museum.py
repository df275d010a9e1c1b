"""The picture of the bug museum: which check catches which bug."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from attnlib.book.plots.style import GREY, INK, VERMILION, styled, tint


@styled
def bugs_and_checks(rooms: Mapping[str, Mapping[str, str]], checks: Iterable[str]) -> Figure:
    """Draw all bugs against all checks, with a cross where a check fails.

    Args:
        rooms: name of a room to its bugs: name of a bug to one character per check, "X" =
            fails, "." = passes, " " = not run.
        checks: names of the checks, in the order of the characters.

    Returns:
        The figure.
    """
    checks = list(checks)
    height = sum(1 + len(bugs) for bugs in rooms.values())
    fig, ax = plt.subplots(figsize=(5.2, 0.24 * height + 1.3))
    y = 0
    for room, bugs in rooms.items():
        write(ax, room, -0.9, y, bold=True)
        for name, marks in bugs.items():
            y += 1
            write(ax, name, -0.9, y)
            for x, mark in enumerate(marks):
                draw_mark(ax, x, y, mark)
        y += 1
    for x, check in enumerate(checks):
        ax.annotate(
            check, (x - 0.2, 0.1), rotation=60, ha="left", va="bottom", fontsize=9,
            annotation_clip=False,
        )  # fmt: skip
    ax.set(xlim=(-0.6, len(checks) - 0.4), ylim=(y - 0.4, -0.6), aspect="equal")
    ax.axis("off")
    return fig


def write(ax: Axes, text: str, x: float, y: float, *, bold: bool = False) -> None:
    """Write a name to the left of its row.

    Args:
        ax: the axes.
        text: name of a room or of a bug.
        x: where the text ends.
        y: row.
        bold: whether it is the name of a room.
    """
    ax.annotate(
        text, (x, y), ha="right", va="center", fontsize=9, annotation_clip=False, color=INK,
        fontweight="bold" if bold else "normal",
    )  # fmt: skip


def draw_mark(ax: Axes, x: float, y: float, mark: str) -> None:
    """Draw the result of one check of one bug.

    Args:
        ax: the axes.
        x: column of the check.
        y: row of the bug.
        mark: "X" = a cross on a filled square, "." = a dot, " " = nothing.
    """
    if mark == "X":
        ax.add_patch(
            Rectangle(
                (x - 0.43, y - 0.43), 0.86, 0.86, facecolor=tint(VERMILION, 0.35),
                edgecolor=VERMILION, linewidth=0.8,
            )
        )  # fmt: skip
        sign, color = "\N{MULTIPLICATION SIGN}", INK
    elif mark == ".":
        sign, color = "\N{MIDDLE DOT}", GREY
    else:
        return
    ax.annotate(sign, (x, y), ha="center", va="center", fontsize=9, color=color)
