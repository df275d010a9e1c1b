"""The result of a check, and how results are printed."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from torch import Tensor

HOLDS, FAILS, NOT_ASKED = "holds", "fails", "not asked"

WIDTH = 84  # columns of a printed report


@dataclass(frozen=True)
class Report:
    """Result of one check.

    Attributes:
        check: name of the check.
        verdict: "holds", "fails" or "not asked".
        found: what the check saw, in words and numbers, or why it does not apply.
        hint: the usual causes of such a failure; empty unless the check fails.
    """

    check: str
    verdict: str
    found: str
    hint: str = ""

    def __bool__(self) -> bool:
        """Whether the property holds."""
        return self.verdict == HOLDS

    def __repr__(self) -> str:
        """The text of :meth:`text`."""
        return self.text()

    def text(self, column: int = 20) -> str:
        """Format the report: the verdict with its finding, then the hint.

        Args:
            column: characters reserved for the name of the check.

        Returns:
            Lines of at most 84 characters.
        """
        word = self.verdict.upper() if self.verdict == FAILS else self.verdict
        head = f"{word:9} {self.check:{column}} "
        lines = textwrap.wrap(self.found, WIDTH - len(head)) or [""]
        text = [head + lines[0]] + [" " * len(head) + line for line in lines[1:]]
        if self.hint:
            first, later = f"{'':10}usually: ", " " * 19
            text += textwrap.wrap(
                self.hint, WIDTH, initial_indent=first, subsequent_indent=later
            )
        return "\n".join(line.rstrip() for line in text)


class Reports(tuple[Report, ...]):
    """Results of several checks; printed one below the other, with a count at the end."""

    @property
    def hold(self) -> bool:
        """Whether no check failed and at least one holds."""
        return any(self) and not self.failed

    @property
    def failed(self) -> list[str]:
        """Names of the checks that failed."""
        return [report.check for report in self if report.verdict == FAILS]

    def __repr__(self) -> str:
        """The text of each report, then how many hold, fail and were not asked."""
        words = {HOLDS: "hold", FAILS: "fail", NOT_ASKED: "not asked"}
        counts = {verdict: sum(r.verdict == verdict for r in self) for verdict in words}
        last = ", ".join(f"{counts[v]} {words[v]}" for v in words if counts[v])
        return "\n".join(
            [*map(repr, self), f"{len(self)} check{'s' * (len(self) != 1)}: {last}"]
        )


class NotAskedError(Exception):
    """The check does not apply to this layer; the message gives the reason."""


class BrokenError(Exception):
    """The property does not hold.

    Args:
        found: what the check saw.
        hint: the usual causes.
    """

    def __init__(self, found: str, hint: str) -> None:
        super().__init__(found)
        self.hint = hint


def nothing() -> BrokenError:
    """The failure of code that returned None."""
    return BrokenError("nothing came back (None)", "is a `return` missing?")


def in_words(error: Exception) -> str:
    """The type and first line of an error, which are the same in every run."""
    message = str(error).strip().splitlines()
    first = message[0].rstrip(".") if message else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def about_none(error: Exception) -> str:
    """The end of a sentence about an error: where a None may come from, if it is about one."""
    if "NoneType" not in str(error) or "return" in str(error):
        return "."
    return ". Something is None: a function without a return, or an argument that may be None."


def kind_of(thing: object) -> str:
    """A few words for a value: its shape, its length, its type, or a short value itself."""
    if isinstance(thing, Tensor):
        return f"a tensor of shape {tuple(thing.shape)}"
    if isinstance(thing, (tuple, list)):
        return f"a {type(thing).__name__} of {len(thing)}"
    if thing is None or isinstance(thing, (bool, int, float)):
        return str(thing)[:40]
    return type(thing).__name__


def listed(numbers: list[int]) -> str:
    """Numbers in words: "0", "1 to 6", or "0, 2 and 4"."""
    if not numbers:
        return "none"
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    *head, last = map(str, numbers)
    return f"{', '.join(head)} and {last}" if head else last
