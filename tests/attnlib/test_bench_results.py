"""Stored runs of the benchmark: what is in them fits together, and is found or refused."""

import json
import re
from datetime import datetime
from importlib.resources import files

import pytest

from attnlib.bench import disturbance, results
from attnlib.bench.report import RATES_DISAGREE
from attnlib.bench.results import BenchRun
from attnlib.costs import decode_cost, prefill_cost

CODES = {"decode": {"attnlib", "transformers"}, "prefill": {"attnlib", "transformers", "parts"}}
EVERY_RUN = pytest.mark.parametrize("name", results.names())


def test_there_is_a_run_of_a_cpu():
    assert "cpu-float32" in results.names()
    assert results.load_run("cpu-float32").provenance["device"] == "cpu"


def test_an_unknown_run_is_refused_with_the_names_that_there_are():
    with pytest.raises(ValueError, match=r"name must be one of .*cpu-float32.*, got 'gpu'"):
        results.load_run("gpu")


@EVERY_RUN
def test_floors_are_those_of_its_rates_and_sizes(name):
    """Catches floors of another run, of other layers, or of formulas that have changed."""
    run = results.load_run(name)
    for row in run.rows:
        count = decode_cost if row.phase == "decode" else prefill_cost
        layer, dtype = run.geometries[row.variant], run.rates.dtype
        cost = count(layer, row.tokens, batch_size=row.batch_size, dtype=dtype)
        assert (row.flops, row.n_bytes) == (cost.flops, cost.bytes), row
        floor = cost.floor(
            bytes_per_second=row.bytes_per_second, flops_per_second=row.flops_per_second
        )
        assert row.floor_seconds == pytest.approx(floor.seconds, rel=1e-12), row


@EVERY_RUN
def test_nothing_disturbed_it(name):
    """Catches a stored run whose order means nothing."""
    decode = results.load_run(name).select("decode")
    assert disturbance(decode) is None


@EVERY_RUN
def test_the_machine_kept_its_pace(name):
    """Catches a run during which the machine's rates changed: its floors would mean nothing."""
    run = results.load_run(name)
    assert all(row.rate_spread < RATES_DISAGREE for row in run.rows)
    for rate in ("bytes_per_second", "flops_per_second"):
        before, after = getattr(run.rates, rate), getattr(run.rates_afterwards, rate)
        if all(getattr(row, rate) == before for row in run.rows):  # not measured in turns
            assert before == pytest.approx(after, rel=0.1), rate


@EVERY_RUN
def test_times_are_in_order_and_ratios_are_theirs(name):
    text = (files("attnlib.bench.results") / f"{name}.json").read_text(encoding="utf-8")
    for row, stored in zip(results.parse_run(text).rows, json.loads(text)["rows"], strict=True):
        assert 0 < row.low <= row.seconds <= row.high, row
        assert stored["ratio"] == pytest.approx(row.seconds / row.floor_seconds), row
        assert row.code in CODES[row.phase], row
        assert row.backend, row


@EVERY_RUN
def test_every_variant_is_measured_at_every_length(name):
    run = results.load_run(name)
    for phase in CODES:
        rows = run.select(phase)
        lengths = {row.tokens for row in rows}
        measured = [(row.tokens, row.variant, row.graph, row.threads) for row in rows]
        # On a GPU launched as it is, and as a graph; on a CPU with one thread and with all.
        ways = {(row.graph, row.threads) for row in rows}
        wanted = [(n, v, *way) for n in lengths for v in run.geometries for way in ways]
        assert sorted(measured) == sorted(wanted)


@EVERY_RUN
def test_provenance_says_where_and_with_what_but_not_whose(name):
    """Catches a missing fact, and a host's name or a path in a file that is published."""
    run = results.load_run(name)
    for fact in ("date", "processor", "threads", "dtype", "torch", "transformers", "python"):
        assert run.provenance[fact], fact
    text = json.dumps(run.provenance)
    assert not re.search(r"/(?:home|root|tmp|usr|work)\b|hostname|node", text, re.IGNORECASE)
    assert (
        run.rates.threads == run.provenance["threads"] == max(row.threads for row in run.rows)
    )
    assert run.rates.dtype == run.provenance["dtype"]


@EVERY_RUN
def test_description_names_day_and_rates(name):
    run = results.load_run(name)
    day = datetime.fromisoformat(run.provenance["date"].replace("Z", "+00:00"))
    lines = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in run.describe().splitlines())
    assert lines["day"] == f"{day.day} {day:%B %Y}"
    for rates, shown in zip(
        (run.rates, run.rates_afterwards), lines["read, GB/s"].split(" and "), strict=True
    ):
        assert shown == f"{rates.bytes_per_second / 1e9:.1f}"
    assert run.provenance["torch"] in lines["versions"]


def test_description_of_a_gpu_names_the_card_not_the_cpu():
    run = results.load_run("cpu-float32")
    other = run._replace(provenance={**run.provenance, "gpu": "a card"})
    assert "a card" in other.describe()
    assert str(run.provenance["processor"]) not in other.describe()


@pytest.mark.parametrize(("phase", "code"), [("training", "attnlib"), ("decode", "parts")])
def test_select_refuses_what_was_not_measured(phase, code):
    with pytest.raises(ValueError, match=re.escape(f"got {(phase, code)}")):
        results.load_run("cpu-float32").select(phase, code)


def test_select_keeps_phase_and_code_apart():
    run = results.load_run("cpu-float32")
    parts = [run.select(phase, code) for phase, codes in CODES.items() for code in codes]
    assert all(rows for rows in parts)
    assert sum(map(len, parts)) == len(run.rows)


def test_what_the_benchmark_writes_is_what_is_loaded():
    """Catches a field that the benchmark writes and the loader drops, or the reverse."""
    text = (files("attnlib.bench.results") / "cpu-float32.json").read_text(encoding="utf-8")
    run, report = results.parse_run(text), json.loads(text)
    assert isinstance(run, BenchRun)
    assert run.rates._asdict() == report["rates"]
    assert run.rates_afterwards._asdict() == report["rates_afterwards"]
    assert run.provenance == report["provenance"]
    for row, stored in zip(run.rows, report["rows"], strict=True):
        assert {**vars(row), "ratio": row.ratio} == pytest.approx(stored)
