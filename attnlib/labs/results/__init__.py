"""Results of the laboratories, stored with the package, each with where it comes from."""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path


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


def same_experiment(path: Path, earlier: object, found: object) -> None:
    """Check that runs in a file and runs to come belong together.

    Args:
        path: of the file, for the message.
        earlier: what the file holds, with ``settings`` and ``text``.
        found: the same for the runs to come.

    Raises:
        ValueError: if settings or text differ.
    """
    for what in ("settings", "text"):
        if getattr(earlier, what) != getattr(found, what):
            raise ValueError(
                f"{what} must be those of the runs in {path.name},"
                f" {getattr(earlier, what)}, got {getattr(found, what)}"
            )


def save(path: Path, report: dict) -> None:
    """Write a report so that a run that is stopped leaves a whole file.

    Args:
        path: of the JSON file, which may exist.
        report: what to write.
    """
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)
