"""Results of the laboratories, stored with the package, each with where it comes from."""

from __future__ import annotations

import json
from importlib.resources import files


def names() -> list[str]:
    """Name the results that are stored.

    Returns:
        Names for :func:`load`, sorted.
    """
    stored = (entry.name for entry in files("attnlib.labs.results").iterdir())
    return sorted(name.removesuffix(".json") for name in stored if name.endswith(".json"))


def load(name: str) -> dict:
    """Load results as the laboratory's script wrote them.

    Args:
        name: one of :func:`names`.

    Returns:
        The report, as JSON has it; :func:`attnlib.labs.quality.parse` makes more of one.

    Raises:
        ValueError: if there are no such results.
    """
    if name not in names():
        raise ValueError(f"name must be one of {', '.join(names())}, got {name!r}")
    text = (files("attnlib.labs.results") / f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text)
