"""Tables and orders of what the benchmark measured."""

import pytest

from attnlib import bench
from attnlib.bench import Rates, Row

RATES = Rates(1e9, 1e10, "cpu", "float32", 1, 2**20, 64)


def row(variant="MHA", tokens=5, seconds=3.0, floor=2.0, **options):
    fields = {"code": "attnlib", "phase": "decode", "batch_size": 1, "low": 2.5, "high": 4.0,
              "flops": 10, "n_bytes": 20, **options}  # fmt: skip
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


def test_summary_names_floors_that_are_almost_equal():
    """Catches a contradiction of prediction and measurement where the prediction is a draw."""
    rows = [row("MHA", 5, 9.0, 3.0), row("GQA", 5, 4.0, 1.05), row("MLA", 5, 7.0, 1.0)]
    text = bench.summary(RATES, RATES._replace(bytes_per_second=2e9), rows)
    assert "rates of the floors: read 1.0 GB/s, multiply 10.0 GFLOP/s" in text
    assert "rates afterwards: read 2.0 GB/s" in text
    assert "predicted MHA, GQA, MLA; measured MHA, MLA, GQA" in text
    assert "the floors of GQA and MLA differ by less than 10 %" in text
    assert "the floors of MHA and GQA" not in text


def test_summary_keeps_batch_sizes_apart():
    """Catches an order in which one variant comes twice."""
    rows = [row(name, 5, s * b, s * b, batch_size=b)
            for b in (1, 16) for name, s in (("MHA", 3.0), ("GQA", 2.0))]  # fmt: skip
    text = bench.summary(RATES, RATES, rows)
    assert "decode, 5 tokens, batch 1, slowest first: predicted MHA, GQA; measured" in text
    assert "decode, 5 tokens, batch 16, slowest first: predicted MHA, GQA; measured" in text
