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
        left = {"ha": "right", "va": "center", "fontsize": 9, "annotation_clip": False}
        ax.annotate(room, (-0.9, y), fontweight="bold", **left)
        for name, marks in bugs.items():
            y += 1
            ax.annotate(name, (-0.9, y), color=INK, **left)
            for x, mark in enumerate(marks):
                draw_mark(ax, x, y, mark)
        y += 1
    above = {"ha": "left", "va": "bottom", "fontsize": 9, "annotation_clip": False}
    for x, check in enumerate(checks):
        ax.annotate(check, (x - 0.2, 0.1), rotation=60, **above)
    ax.set(xlim=(-0.6, len(checks) - 0.4), ylim=(y - 0.4, -0.6), aspect="equal")
    ax.axis("off")
    return fig


def draw_mark(ax: Axes, x: float, y: float, mark: str) -> None:
    """Draw the result of one check of one bug.

    Args:
        ax: the axes.
        x: column of the check.
        y: row of the bug.
        mark: "X" = a cross on a filled square, "." = a dot, " " = nothing.
    """
    middle = {"ha": "center", "va": "center", "fontsize": 9}
    if mark == "X":
        ax.add_patch(
            Rectangle(
                (x - 0.43, y - 0.43), 0.86, 0.86, facecolor=tint(VERMILION, 0.35),
                edgecolor=VERMILION, linewidth=0.8,
            )
        )  # fmt: skip
        ax.annotate("\N{MULTIPLICATION SIGN}", (x, y), **middle, color=INK)
    elif mark == ".":
        ax.annotate("\N{MIDDLE DOT}", (x, y), **middle, color=GREY)
