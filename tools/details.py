"""What a chapter folds away: options of questions, solutions, answers."""

from __future__ import annotations

import re
from typing import NamedTuple

DETAILS = re.compile(
    r'<details class="(?P<kind>\w+)"><summary>(?P<summary>[^\n]*)</summary>\n\n'
    r"(?P<text>.*?)\n\n</details>",
    re.DOTALL,
)


class Details(NamedTuple):
    """Something folded away: its class, the line that shows, and what it hides."""

    kind: str
    summary: str
    text: str


def details(source: str) -> list[Details]:
    """Return all that a Markdown cell folds away."""
    return [Details(**found.groupdict()) for found in DETAILS.finditer(source)]
