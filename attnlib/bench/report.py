"""Tables, orders and the report of what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from attnlib.bench.machine import Rates
from attnlib.bench.measure import Row
from attnlib.bench.stored import to_json
from attnlib.costs import Geometry

#: Third quartile over first from which rates, or repeated steps, no longer agree.
RATES_DISAGREE, STEPS_DISAGREE = 1.4, 1.5
INTERRUPTED = 0.2  # share of calls; a quiet machine stays below a tenth
REMEDY = "close what else is running, or wait, and run this again"


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
    own = counted(rows)
    orders = {}
    for tokens in dict.fromkeys(row.tokens for row in own):
        same = [row for row in own if row.tokens == tokens]
        predicted = sorted(same, key=lambda row: -row.floor_seconds)
        measured = sorted(same, key=lambda row: -row.seconds)
        orders[tokens] = [row.variant for row in predicted], [row.variant for row in measured]
    return orders


def counted(rows: Sequence[Row]) -> list[Row]:
    """Return the rows whose order counts: attnlib's, of CUDA graphs if there are any.

    Args:
        rows: of any code.

    Returns:
        Those of one code and one way to launch it.
    """
    graphs = any(row.graph for row in rows)
    return [row for row in rows if row.code == "attnlib" and row.graph == graphs]


def disturbance(rows: Sequence[Row]) -> str | None:
    """Say what shows that something else was at work while rows were measured.

    Only attnlib's rows are looked at: other code may take a different time at each call.

    Args:
        rows: of one call of :func:`~attnlib.bench.measure_decode` or
            :func:`~attnlib.bench.measure_prefill`.

    Returns:
        The reason not to compare them; ``None`` if there is none.
    """
    for row in counted(rows):
        where = f"{row.variant}, {row.tokens:,} tokens"
        if row.interrupted > INTERRUPTED:
            return f"another program had the processor in {row.interrupted:.0%} of the calls"
        if row.rate_spread > RATES_DISAGREE:
            percent = 100 * (row.rate_spread - 1)
            return f"the machine's own rates changed by {percent:.0f} % between rounds"
        if row.high > STEPS_DISAGREE * row.low:
            return f"equal steps took {1e3 * row.low:.1f} to {1e3 * row.high:.1f} ms ({where})"
    return None


def orders(rows: Sequence[Row]) -> str:
    """Write the predicted and the measured order of the variants, or why there is none.

    Args:
        rows: as for :func:`rankings`.

    Returns:
        A line for each context length with several variants. "=" is between two neighbours
        whose floors are equal, or whose measured quartiles overlap. If something disturbed the
        run, one line says so, and what to do.

    Raises:
        ValueError: as :func:`rankings`.
    """
    lines = []
    for tokens, (predicted, measured) in rankings(rows).items():
        same = {row.variant: row for row in counted(rows) if row.tokens == tokens}
        if reason := disturbance(list(same.values())):
            lines.append(f"{tokens:,} tokens: disturbed by something else: {reason}.")
            lines.append(f"  No order: {REMEDY}.")
            continue
        if len(measured) == 1:
            continue  # one variant has no order
        forecast, order = predicted[0], measured[0]
        for slow, fast in pairwise(predicted):
            equal = same[slow].floor_seconds == same[fast].floor_seconds
            forecast += (" = " if equal else ", ") + fast
        for slow, fast in pairwise(measured):
            overlap = same[slow].low <= same[fast].high
            order += (" = " if overlap else ", ") + fast
        lines.append(f"{tokens:,} tokens, slowest first: predicted {forecast};")
        lines.append(f"  measured {order}")
    return "\n".join(lines)


def brief(rows: Sequence[Row]) -> str:
    """Write rows as a narrow table, with the orders below it where there are several variants.

    Args:
        rows: as for :func:`rankings`.

    Returns:
        The rates of the machine at the first length; then of each row its floor, its median
        time and how many times the floor that is, with quartiles. In a disturbed run there are
        no medians: only quartiles, in milliseconds.

    Raises:
        ValueError: if there are no rows.
    """
    if not rows:
        raise ValueError("rows must hold at least one, got none")
    reason, first = disturbance(rows), rows[0]
    ridge = first.flops_per_second / first.bytes_per_second
    lines = [
        f"threads: {first.threads}, GB/s read: {first.bytes_per_second / 1e9:,.1f}, GFLOP/s:"
        f" {first.flops_per_second / 1e9:,.0f}, ridge point: {ridge:.1f} FLOPs per byte",
        f" tokens  {'':6} floor, ms  measured  times the floor",
    ]
    for row in rows:
        name = f"{row.variant:6}" + (" graph" if row.graph else "")
        start = f"{row.tokens:7,}  {name} {1e3 * row.floor_seconds:9.2f}"
        low, high = row.low / row.floor_seconds, row.high / row.floor_seconds
        if reason:
            lines.append(f"{start}  {1e3 * row.low:.2f} to {1e3 * row.high:.2f} ms")
        else:
            lines.append(
                f"{start} {1e3 * row.seconds:9.2f}  {row.ratio:.2f} ({low:.2f} to {high:.2f})"
            )
    if reason or len({row.variant for row in rows}) > 1:
        lines.append(orders(rows))
    return "\n".join(lines)


def slower_with_threads(rows: Sequence[Row]) -> list[str]:
    """Say where several threads are slower than one.

    Args:
        rows: of one run, with one thread and with several.

    Returns:
        A line for each measurement that has both and is slower with several.
    """

    def key(row: Row) -> tuple[object, ...]:
        return row.phase, row.tokens, row.batch_size, row.variant, row.code

    alone = {key(row): row for row in rows if row.threads == 1}
    lines = []
    for row in rows:
        one = alone.get(key(row))
        if one is not None and row.threads > 1 and row.seconds > one.seconds:
            lines.append(
                f"slower with {row.threads} threads than with one: {row.phase},"
                f" {row.tokens:,} tokens, {row.variant}, {row.code},"
                f" {row.seconds / one.seconds:.1f} times"
            )
    return lines


def summary(rates: Rates, afterwards: Rates, rows: Sequence[Row]) -> str:
    """Write what a whole run found, for the terminal.

    Args:
        rates: of the machine, before the run.
        afterwards: the same, measured again at the end.
        rows: all measurements.

    Returns:
        Rates, tables, and the order of the variants at each batch size and context length.
    """
    lines = [
        f"{when}: read {measured.bytes_per_second / 1e9:.1f} GB/s,"
        f" multiply {measured.flops_per_second / 1e9:.1f} GFLOP/s"
        for when, measured in (("rates before", rates), ("rates afterwards", afterwards))
    ]
    for threads in dict.fromkeys(row.threads for row in rows):
        same = [row for row in rows if row.threads == threads]
        lines += ["", f"threads: {threads}", table(same)]
        decode = [row for row in same if row.phase == "decode"]
        batch_sizes = dict.fromkeys(row.batch_size for row in decode)
        for batch_size in batch_sizes:
            batch = f", batch {batch_size}" if len(batch_sizes) > 1 else ""
            some = [row for row in decode if row.batch_size == batch_size]
            lines += [f"decode{batch}", orders(some)]
    return "\n".join([*lines, *slower_with_threads(rows)])


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
        rates: of the machine, before the run.
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
