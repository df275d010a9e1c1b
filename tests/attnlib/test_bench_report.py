"""Tables and orders of what the benchmark measured."""

from dataclasses import replace

import pytest

from attnlib import bench
from attnlib.bench import Rates, Row

RATES = Rates(1e9, 1e10, "cpu", "float32", 1, 2**20, 64)


def row(variant="MHA", tokens=5, seconds=3.0, floor=2.0, **options):
    fields = {"code": "attnlib", "phase": "decode", "batch_size": 1, "low": 2.5, "high": 4.0,
              "flops": 10, "n_bytes": 20, "bytes_per_second": 1e9, "flops_per_second": 1e10,
              **options}  # fmt: skip
    return Row(variant=variant, tokens=tokens, seconds=seconds, floor_seconds=floor, **fields)


def test_table_shows_milliseconds_and_ratio():
    """Catches a wrong unit, and columns that are swapped."""
    text = bench.table(
        [row(backend="none", peak_bytes=3 * 2**20), row("MLA", 8192, graph=True)]
    )
    head, first, second = text.splitlines()
    assert head.split()[:4] == ["phase", "tokens", "variant", "code"]
    assert first.split() == ["decode", "5", "MHA", "attnlib", "3000.00", "2500.00", "to",
                             "4000.00", "2000.00", "1.50", "3.0", "MiB", "none"]  # fmt: skip
    assert "8,192  MLA" in second
    assert "attnlib (graph)" in second


def test_table_shows_batch_sizes_that_differ():
    """Catches rows of two batch sizes that look alike."""
    head, first, second = bench.table([row(), row(batch_size=16)]).splitlines()
    assert head.split()[2] == "batch"
    assert (first.split()[2], second.split()[2]) == ("1", "16")


def test_rankings_compare_predicted_with_measured():
    """Catches an order of the fastest first, and rows of other code that count."""
    rows = [row("MHA", 5, 3.0, 2.0), row("GQA", 5, 4.0, 1.0), row("MQA", 7, 1.0, 1.0),
            row("MQA", 5, 9.0, 9.0, code="transformers")]  # fmt: skip
    assert bench.rankings(rows) == {5: (["MHA", "GQA"], ["GQA", "MHA"]), 7: (["MQA"], ["MQA"])}
    rows.append(row("MHA", 5, 1.0, 2.0, graph=True))
    assert bench.rankings(rows) == {5: (["MHA"], ["MHA"])}
    with pytest.raises(ValueError, match="one phase and one batch size"):
        bench.rankings([*rows, row(batch_size=2)])


def test_one_variant_has_no_order():
    """Catches "predicted MHA; measured MHA" below a table of one variant."""
    assert bench.orders([row("MHA", 5, 3.0, 2.0, low=2.9, high=3.1)]) == ""


def test_orders_join_what_cannot_be_told_apart():
    """Catches an order between steps whose quartiles overlap."""
    rows = [
        row("MHA", 5, 9.0, 3.0, low=8.0, high=10.0),
        row("GQA", 5, 4.0, 1.5, low=3.9, high=5.0),
        row("MLA", 5, 3.8, 2.0, low=3.5, high=4.0),
    ]
    assert bench.orders(rows).splitlines() == [
        "5 tokens, slowest first: predicted MHA, MLA, GQA;",
        "  measured MHA, GQA = MLA",
    ]


CALM = {"low": 2.9, "high": 3.1}
DISTURBED = {
    "another program had the processor in 60% of the calls": {**CALM, "interrupted": 0.6},
    "the machine's own rates changed by 50 % between rounds": {**CALM, "rate_spread": 1.5},
    "equal steps took 2000.0 to 4000.0 ms (MHA, 5 tokens)": {"low": 2.0, "high": 4.0},
}


@pytest.mark.parametrize("reason", DISTURBED)
def test_a_disturbed_run_says_so_and_shows_no_order(reason):
    """Catches an order, or medians that suggest one, from a machine that was busy."""
    rows = [row("MHA", **DISTURBED[reason]), row("GQA", seconds=1.0, low=0.9, high=1.1)]
    assert bench.disturbance(rows) == reason
    assert bench.disturbance([replace(row, code="transformers") for row in rows]) is None
    for text in (bench.orders(rows), bench.brief(rows), bench.summary(RATES, RATES, rows)):
        assert f"disturbed by something else: {reason}." in text
        assert "No order: close what else is running" in text
        assert "measured MHA" not in text
    assert "3000.00" not in bench.brief(rows)


def test_brief_shows_floor_time_and_ratio_with_its_quartiles():
    """Catches columns that are swapped, and an order where there is one variant only."""
    rows = [row("MHA", 8192, 3.0, 2.0, low=2.9, high=3.1)]
    assert bench.disturbance(rows) is None
    rates, head, line = bench.brief(rows).splitlines()
    assert rates == (
        "threads: 1, GB/s read: 1.0, GFLOP/s: 10, ridge point: 10.0 FLOPs per byte"
    )
    assert head.split() == ["tokens", "floor,", "ms", "measured", "times", "the", "floor"]
    assert line.split() == [
        "8,192",
        "MHA",
        "2000.00",
        "3000.00",
        "1.50",
        "(1.45",
        "to",
        "1.55)",
    ]
    rows.append(row("GQA", 8192, 1.0, 1.0, low=0.9, high=1.1, graph=False))
    assert bench.brief(rows).endswith("predicted MHA, GQA;\n  measured MHA, GQA")
    with pytest.raises(ValueError, match="rows must hold at least one, got none"):
        bench.brief([])


def test_summary_says_where_threads_are_no_help():
    """Catches several threads that wait for each other, unsaid."""
    rows = [
        row(name, 5, seconds, threads=threads, **CALM)
        for name, *both in (("MHA", 3.0, 6.0), ("GQA", 3.0, 2.0))
        for threads, seconds in enumerate(both, start=1)
    ]
    text = bench.summary(RATES, RATES._replace(bytes_per_second=2e9), rows)
    assert "rates before: read 1.0 GB/s, multiply 10.0 GFLOP/s" in text
    assert "rates afterwards: read 2.0 GB/s" in text
    assert text.count("slower with 2 threads") == 1
    assert text.endswith("than with one: decode, 5 tokens, MHA, attnlib, 2.0 times")
    assert text.index("threads: 1") < text.index("threads: 2")


def test_summary_keeps_batch_sizes_apart():
    """Catches an order in which one variant comes twice."""
    rows = [row(name, 5, s * b, s * b, batch_size=b, low=0.99 * s * b, high=1.01 * s * b)
            for b in (1, 16) for name, s in (("MHA", 3.0), ("GQA", 2.0))]  # fmt: skip
    text = bench.summary(RATES, RATES, rows)
    assert text.count("5 tokens, slowest first: predicted MHA, GQA;\n  measured MHA, GQA") == 2
    assert text.index("decode, batch 1\n") < text.index("decode, batch 16\n")
