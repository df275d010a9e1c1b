"""Runs of the benchmark that are stored with the package, each with where it comes from.

A run is a JSON file that ``python -m attnlib.bench --json FILE`` wrote. ``load`` gives it back
as the rows that :mod:`attnlib.bench` measures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from importlib.resources import files
from typing import NamedTuple

from attnlib.bench import Rates, Row
from attnlib.costs import Geometry


class Run(NamedTuple):
    """One run of the benchmark.

    Attributes:
        provenance: where, with what and when: names to values, as the benchmark wrote them.
        rates: of the machine, measured at the beginning of the run; floors go by these.
        rates_afterwards: the same at its end, which says whether the machine kept its pace.
        geometries: of the layers measured, by variant.
        rows: the measurements.
    """

    provenance: Mapping[str, object]
    rates: Rates
    rates_afterwards: Rates
    geometries: Mapping[str, Geometry]
    rows: list[Row]

    def select(self, phase: str, code: str = "attnlib") -> list[Row]:
        """Return the rows of one phase and one code.

        Args:
            phase: "decode" or "prefill".
            code: "attnlib", "transformers" or "parts".

        Returns:
            The rows, in the order in which they were measured.

        Raises:
            ValueError: if there is no such row.
        """
        rows = [row for row in self.rows if (row.phase, row.code) == (phase, code)]
        if not rows:
            there = sorted({(row.phase, row.code) for row in self.rows})
            raise ValueError(f"phase and code must be among {there}, got {(phase, code)}")
        return rows

    def describe(self) -> str:
        """Say in words where the numbers come from.

        Returns:
            A line for each fact, namely processor, number format, versions, day, and the rates
            that were measured before and after.
        """
        facts, rates = self.provenance, (self.rates, self.rates_afterwards)
        day = datetime.fromisoformat(str(facts["date"]).replace("Z", "+00:00"))
        where = facts.get("gpu") or f"{facts['processor']}, threads: {facts['threads']}"
        lines = {
            "processor": where,
            "numbers": facts["dtype"],
            "versions": f"torch {facts['torch']}, transformers {facts['transformers']}",
            "day": f"{day.day} {day:%B %Y}",
            "read, GB/s": " and ".join(f"{rate.bytes_per_second / 1e9:.1f}" for rate in rates),
            "multiply, GFLOP/s": " and ".join(
                f"{rate.flops_per_second / 1e9:.0f}" for rate in rates
            ),
        }
        return "\n".join(f"{name:18} {value}" for name, value in lines.items())


def names() -> list[str]:
    """Name the runs that are stored.

    Returns:
        Names for :func:`load`, sorted.
    """
    stored = (entry.name for entry in files("attnlib.bench.results").iterdir())
    return sorted(name.removesuffix(".json") for name in stored if name.endswith(".json"))


def load(name: str) -> Run:
    """Load a run that is stored with the package.

    Args:
        name: one of :func:`names`.

    Returns:
        The run.

    Raises:
        ValueError: if there is no such run.
    """
    if name not in names():
        raise ValueError(f"name must be one of {', '.join(names())}, got {name!r}")
    text = (files("attnlib.bench.results") / f"{name}.json").read_text(encoding="utf-8")
    return parse(text)


def parse(text: str) -> Run:
    """Read a run from what the benchmark wrote.

    Args:
        text: of a JSON file.

    Returns:
        The run.
    """
    report = json.loads(text)
    rows = [
        Row(**{key: value for key, value in row.items() if key != "ratio"})
        for row in report["rows"]
    ]
    layers = {name: Geometry(**sizes) for name, sizes in report["geometries"].items()}
    rates = (Rates(**report[name]) for name in ("rates", "rates_afterwards"))
    return Run(report["provenance"], *rates, layers, rows)
