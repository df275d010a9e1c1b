"""Results as JSON: those stored with the package, and those that a run writes."""

from __future__ import annotations

import collections.abc
import json
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints


class StoredResults:
    """The JSON files of one package, by name.

    Args:
        package: its import path, such as ``"attnlib.bench.results"``.
    """

    def __init__(self, package: str):
        self.package = package

    def names(self) -> list[str]:
        """Return the names that :meth:`load` knows, sorted."""
        entries = (entry.name for entry in files(self.package).iterdir())
        return sorted(name.removesuffix(".json") for name in entries if name.endswith(".json"))

    def load(self, name: str) -> dict[str, Any]:
        """Return the contents of one file.

        Args:
            name: one of :meth:`names`.

        Returns:
            Its JSON object.

        Raises:
            ValueError: if there is no such file.
        """
        if name not in self.names():
            raise ValueError(f"name must be one of {', '.join(self.names())}, got {name!r}")
        text = (files(self.package) / f"{name}.json").read_text(encoding="utf-8")
        return json.loads(text)


def to_json(value: Any) -> Any:
    """Turn records into what JSON can hold; :func:`from_json` turns it back.

    Args:
        value: a dataclass or named tuple, a mapping, a sequence, or a plain value; nested in
            any way.

    Returns:
        Dictionaries, lists and plain values.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: to_json(item) for name, item in value._asdict().items()}
    if isinstance(value, Mapping):
        return {name: to_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: Any, value: Any) -> Any:
    """Rebuild records from JSON by their type annotations.

    Args:
        kind: a dataclass, a named tuple, or an annotation such as ``list[tuple[int, float]]``.
        value: what :func:`to_json` made of one.

    Returns:
        An object of that kind.

    Raises:
        TypeError: if a record has a field too many or too few.
    """
    inner = get_args(kind)
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        items = {name: from_json(hints.get(name), item) for name, item in value.items()}
        return kind(**items)
    if get_origin(kind) is list:
        return [from_json(inner[0], item) for item in value]
    if get_origin(kind) is tuple:
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        return tuple(from_json(of, item) for of, item in zip(kinds, value, strict=True))
    if get_origin(kind) in (dict, collections.abc.Mapping):
        return {name: from_json(inner[1], item) for name, item in value.items()}
    return value


def save_json(path: Path, report: Any) -> None:
    """Write a report so that a run that is stopped meanwhile leaves a whole file.

    Args:
        path: of the JSON file, which may exist.
        report: what to write: plain values, or records.
    """
    unfinished = path.with_name(path.name + ".part")
    text = json.dumps(to_json(report), indent=1) + "\n"
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def machine_in(provenance: Mapping[str, object]) -> str:
    """Return what a run was made on, for people.

    Args:
        provenance: of :func:`attnlib.bench.provenance`.

    Returns:
        The GPU if there was one, else processor and threads.
    """
    processor = f"{provenance['processor']}, threads: {provenance['threads']}"
    return str(provenance.get("gpu") or processor)


def day_in(provenance: Mapping[str, object]) -> str:
    """Return when a run was made, for people.

    Args:
        provenance: of :func:`attnlib.bench.provenance`.

    Returns:
        Such as "24 November 2026".
    """
    date = datetime.fromisoformat(str(provenance["date"]).replace("Z", "+00:00"))
    return f"{date.day} {date:%B %Y}"


def aligned(facts: Mapping[str, object]) -> str:
    """Return facts as lines of text, with their values below each other.

    Args:
        facts: name to value.

    Returns:
        One line for each.
    """
    return "\n".join(f"{name:18} {value}" for name, value in facts.items())
