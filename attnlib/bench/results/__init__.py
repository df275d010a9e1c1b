"""Runs of the benchmark that are stored with the package, each with where it comes from.

A run is a JSON file that ``python -m attnlib.bench --json FILE`` wrote. ``load_run`` returns it
as the rows that :mod:`attnlib.bench` measures.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from attnlib.bench import Rates, Row
from attnlib.bench.stored import StoredResults, aligned, day_in, from_json, machine_in
from attnlib.costs import Geometry

RESULTS = StoredResults("attnlib.bench.results")


class BenchRun(NamedTuple):
    """One run of the benchmark.

    Attributes:
        provenance: where, with what and when: names to values, as the benchmark wrote them.
        rates: of the machine, measured at the beginning of the run.
        rates_afterwards: the same at its end, which shows whether the machine kept its pace.
        geometries: of the layers measured, by variant.
        rows: the measurements.
    """

    provenance: Mapping[str, object]
    rates: Rates
    rates_afterwards: Rates
    geometries: Mapping[str, Geometry]
    rows: list[Row]

    def select(
        self,
        phase: str,
        code: str = "attnlib",
        batch_size: int | None = None,
        threads: int | None = None,
    ) -> list[Row]:
        """Return the rows of one phase and one code.

        Args:
            phase: "decode" or "prefill".
            code: "attnlib", "transformers" or "parts".
            batch_size: of the rows; ``None`` means every one.
            threads: the same.

        Returns:
            The rows, in the order in which they were measured.

        Raises:
            ValueError: if there is no such row.
        """
        rows = [
            row
            for row in self.rows
            if (row.phase, row.code) == (phase, code)
            and batch_size in (None, row.batch_size)
            and threads in (None, row.threads)
        ]
        for name, value in (("batch_size", batch_size), ("threads", threads)):
            there = sorted({getattr(row, name) for row in self.rows})
            if value is not None and value not in there:
                raise ValueError(f"{name} must be among {there}, got {value}")
        if not rows:
            pairs = sorted({(row.phase, row.code) for row in self.rows})
            raise ValueError(f"phase and code must be among {pairs}, got {(phase, code)}")
        return rows

    def describe(self) -> str:
        """Describe in words where the numbers come from.

        Returns:
            One line per fact: processor, number format, versions, day, and the rates that were
            measured before and after.
        """
        origin, rates = self.provenance, (self.rates, self.rates_afterwards)
        reads = [f"{rate.bytes_per_second / 1e9:.1f}" for rate in rates]
        multiplies = [f"{rate.flops_per_second / 1e9:.0f}" for rate in rates]
        facts = {
            "processor": machine_in(origin),
            "numbers": origin["dtype"],
            "versions": f"torch {origin['torch']}, transformers {origin['transformers']}",
            "day": day_in(origin),
            "read, GB/s": " and ".join(reads),
            "multiply, GFLOP/s": " and ".join(multiplies),
        }
        if origin.get("omp_wait_policy") is not None:
            sleep = str(origin["omp_wait_policy"]).lower() == "passive"
            facts["waiting threads"] = "sleep" if sleep else "spin"
        if origin.get("load") is not None:
            facts["other load"] = f"{origin['load']:.2f} programs at the start"
        return aligned(facts)


def names() -> list[str]:
    """Return the names of the runs that are stored, sorted."""
    return RESULTS.names()


def load_run(name: str) -> BenchRun:
    """Load a run that is stored with the package.

    Args:
        name: one of :func:`names`.

    Returns:
        The run.

    Raises:
        ValueError: if there is no such run.
    """
    return run_in(RESULTS.load(name))


def parse_run(text: str) -> BenchRun:
    """Read a run from what the benchmark wrote.

    Args:
        text: of a JSON file.

    Returns:
        The run.
    """
    return run_in(json.loads(text))


def run_in(report: Mapping[str, Any]) -> BenchRun:
    """Return the run in a report.

    Args:
        report: parsed JSON, as the benchmark wrote it.

    Returns:
        The run.
    """
    fields = {name: report[name] for name in BenchRun._fields}
    rows = [{k: v for k, v in row.items() if k != "ratio"} for row in report["rows"]]
    return from_json(BenchRun, {**fields, "rows": rows})
