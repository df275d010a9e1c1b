"""All bugs against all checks: who catches what, and which checks suffice."""

from __future__ import annotations

import itertools

from attnlib.book.museum.catalogue import BUGS
from attnlib.testing import CHECKS, FAILS, HOLDS, NOT_ASKED, Reports


def matrix() -> dict[str, Reports]:
    """Run all checks on all bugs; the results are computed once.

    Returns:
        The reports of each bug, by its name; one report per check, in the order of ``CHECKS``.
    """
    return {name: bug.reports for name, bug in BUGS.items()}


def caught_by(checks: tuple[str, ...]) -> list[str]:
    """Return the bugs that at least one of some checks catches.

    Args:
        checks: names of checks.

    Returns:
        Names of bugs, in the order of ``BUGS``.
    """
    return [name for name, reports in matrix().items() if {*reports.failed} & {*checks}]


def smallest_sets() -> list[tuple[str, ...]]:
    """Find the smallest sets of checks that together catch every bug.

    Returns:
        All sets of the least size, each a tuple of names of checks; empty if even all checks
        together miss a bug.
    """
    for size in range(1, len(CHECKS) + 1):
        sets = itertools.combinations(CHECKS, size)
        if found := [checks for checks in sets if len(caught_by(checks)) == len(BUGS)]:
            return found
    return []


def marks(reports: Reports) -> str:
    """Return the verdicts of some checks, one character per check.

    Args:
        reports: of one layer.

    Returns:
        X where a check fails, a dot where it holds, a blank where it was not asked.
    """
    return "".join({FAILS: "X", HOLDS: ".", NOT_ASKED: " "}[r.verdict] for r in reports)


def rooms() -> dict[str, dict[str, str]]:
    """Return all bugs with their marks, room by room.

    Returns:
        For each room the marks of its bugs, by name, as :func:`marks` writes them.
    """
    found: dict[str, dict[str, str]] = {}
    for name, bug in BUGS.items():
        found.setdefault(bug.room, {})[name] = marks(bug.reports)
    return found


def table() -> str:
    """Return all bugs against all checks, narrow enough for a phone.

    Returns:
        A legend of the columns, then for each room its letters and one line per bug.
    """
    letters = "abcdefghijklmnopqrstuvwxyz"[: len(CHECKS)]
    lines = [f"{letter} {check}" for letter, check in zip(letters, CHECKS, strict=True)]
    for room, bugs in rooms().items():
        lines += ["", f"{room:29}{letters}"]
        lines += [f"{name:29}{mark}".rstrip() for name, mark in bugs.items()]
    return "\n".join(lines)
