"""Tables, orders and the report of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from attnlib.bench.machine import Rates
from attnlib.bench.measure import Row
from attnlib.bench.stored import to_json
from attnlib.costs import Geometry


def table(rows: Sequence[Row]) -> str:
    """Write rows as a table of plain text.

    Args:
        rows: from :func:`~attnlib.bench.measure_decode` and
            :func:`~attnlib.bench.measure_prefill`.

    Returns:
        A line for each row, below a line of headings; times in milliseconds. The batch size is
        among the columns if it differs.
    """
    lines = [["phase", "tokens", "batch", "variant", "code", "ms", "quartiles", "floor",
              "x floor", "peak", "SDPA backend"]]  # fmt: skip
    for row in rows:
        lines.append([
            row.phase,
            f"{row.tokens:,}",
            str(row.batch_size),
            row.variant,
            row.code + (" (graph)" if row.graph else ""),
            f"{1000 * row.seconds:.2f}",
            f"{1000 * row.low:.2f} to {1000 * row.high:.2f}",
            f"{1000 * row.floor_seconds:.2f}",
            f"{row.ratio:.2f}",
            f"{row.peak_bytes / 2**20:,.1f} MiB",
            row.backend,
        ])  # fmt: skip
    if len({row.batch_size for row in rows}) < 2:
        for line in lines:
            del line[2]
    left = ("phase", "variant", "code", "SDPA backend")
    columns = []
    for column in zip(*lines, strict=True):
        width = max(map(len, column))
        justify = str.ljust if column[0] in left else str.rjust
        columns.append([justify(text, width) for text in column])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def rankings(rows: Sequence[Row]) -> dict[int, tuple[list[str], list[str]]]:
    """Compare the order of the variants that the floors predict with the one measured.

    Args:
        rows: of one phase and one batch size; only attnlib's count, and those of a CUDA graph
            if there are any.

    Returns:
        For each context length ``(predicted, measured)``: variants, the slowest first.

    Raises:
        ValueError: if the rows are of several phases or batch sizes.
    """
    kinds = sorted({(row.phase, row.batch_size) for row in rows})
    if len(kinds) > 1:
        raise ValueError(f"rows must be of one phase and one batch size, got {kinds}")
    graphs = any(row.graph for row in rows)
    own = [row for row in rows if row.code == "attnlib" and row.graph == graphs]
    orders = {}
    for tokens in dict.fromkeys(row.tokens for row in own):
        same = [row for row in own if row.tokens == tokens]
        predicted = sorted(same, key=lambda row: -row.floor_seconds)
        measured = sorted(same, key=lambda row: -row.seconds)
        orders[tokens] = [row.variant for row in predicted], [row.variant for row in measured]
    return orders


def summary(rates: Rates, afterwards: Rates, rows: Sequence[Row]) -> str:
    """Write what a whole run found, for the terminal.

    Args:
        rates: of the machine, from which the floors are computed.
        afterwards: the same, measured again at the end.
        rows: all measurements.

    Returns:
        Rates, table, and the order of the variants at each batch size and context length.
    """
    lines = [
        f"{when}: read {measured.bytes_per_second / 1e9:.1f} GB/s,"
        f" multiply {measured.flops_per_second / 1e9:.1f} GFLOP/s"
        for when, measured in (("rates of the floors", rates), ("rates afterwards", afterwards))
    ]
    lines.append(table(rows))
    decode = [row for row in rows if row.phase == "decode"]
    batch_sizes = dict.fromkeys(row.batch_size for row in decode)
    for batch_size in batch_sizes:
        same = [row for row in decode if row.batch_size == batch_size]
        batch = f", batch {batch_size}" if len(batch_sizes) > 1 else ""
        for tokens, (predicted, measured) in rankings(same).items():
            lines.append(
                f"decode, {tokens:,} tokens{batch}, slowest first:"
                f" predicted {', '.join(predicted)}; measured {', '.join(measured)}"
            )
            floors = {row.variant: row.floor_seconds for row in same if row.tokens == tokens}
            for slow, fast in pairwise(predicted):
                if floors[slow] < 1.1 * floors[fast]:
                    lines.append(
                        f"  (the floors of {slow} and {fast} differ by less than 10 %)"
                    )
    return "\n".join(lines)


def report(
    provenance: Mapping[str, object],
    rates: Rates,
    afterwards: Rates,
    geometries: Mapping[str, Geometry],
    rows: Sequence[Row],
    skipped: Sequence[str] = (),
) -> dict[str, Any]:
    """Return a run as JSON has it; :func:`attnlib.bench.results.parse_run` reads it again.

    Args:
        provenance: of :func:`attnlib.bench.provenance`.
        rates: of the machine, from which the floors are computed.
        afterwards: the same, measured again at the end.
        geometries: of the layers, by variant.
        rows: all measurements.
        skipped: a line for each measurement that failed.

    Returns:
        Names and values, ready for JSON.
    """
    return {
        "provenance": dict(provenance),
        "rates": to_json(rates),
        "rates_afterwards": to_json(afterwards),
        "geometries": to_json(geometries),
        "rows": [{**to_json(row), "ratio": row.ratio} for row in rows],
        **({"skipped": list(skipped)} if skipped else {}),
    }
