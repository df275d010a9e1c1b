"""The benchmark's command line: ``python -m attnlib.bench``."""

import importlib
import json
import os
import sys

import pytest
import torch

from attnlib.bench import Rates, Row
from attnlib.bench.results import parse_run
from attnlib.costs import Geometry
from attnlib.variants import VARIANTS

command = importlib.import_module("attnlib.bench.__main__")
ALL = len(VARIANTS)
WITH_PARTS = ALL - 1  # a window has no "parts"
RATES = Rates(1e9, 1e10, "cpu", "float32", 1, 2**20, 64)


def test_command_line_writes_all_numbers(tmp_path, capsys, monkeypatch):
    """Catches a file without origin, rows that are lost, and a table that is not printed."""
    monkeypatch.setattr(command, "machine_rates", lambda **options: RATES)
    file = tmp_path / "new" / "folder" / "run.json"
    command.main(["--quick", "--tokens", "3,6", "--prefill", "4", "--steps", "1",
                  "--no-compare", "--batch-size", "2", "--dtype", "bfloat16",
                  "--json", str(file)])  # fmt: skip
    out, err = capsys.readouterr()
    report = json.loads(file.read_text())
    facts = report["provenance"]
    assert facts["torch"] == torch.__version__
    assert (facts["device"], facts["dtype"]) == ("cpu", "bfloat16")
    assert facts["threads"] == torch.get_num_threads()
    assert facts["date"][:2] == "20"
    assert facts["date"].endswith("Z")
    assert {"processor", "system", "python", "transformers"} <= set(facts)
    assert report["rates"] == RATES._asdict()
    assert Geometry(**report["geometries"]["MLA"]).kv_lora_rank == 64
    wanted = [("decode", 3)] * ALL + [("decode", 6)] * ALL
    wanted += [("prefill", 4)] * (ALL + WITH_PARTS)
    assert [(row["phase"], row["tokens"]) for row in report["rows"]] == wanted
    for entry in report["rows"]:
        ratio = entry.pop("ratio")
        assert Row(**entry).ratio == ratio
        assert entry["backend"]
        assert entry["batch_size"] == 2
    lines = out.splitlines()
    assert sum(line.startswith(("decode  ", "prefill  ")) for line in lines) == len(wanted)
    assert "round 1 of 1" in err
    assert "round" not in out
    assert [path.name for path in file.parent.iterdir()] == ["run.json"]
    assert len(parse_run(file.read_text()).rows) == len(wanted)


def test_batch_sizes_may_be_several(tmp_path, capsys, monkeypatch):
    """Catches a list of which only one counts."""
    monkeypatch.setattr(command, "machine_rates", lambda **options: RATES)
    file = tmp_path / "run.json"
    command.main(["--quick", "--tokens", "3", "--prefill", "4", "--steps", "1", "--no-compare",
                  "--batch-size", "1,2", "--json", str(file)])  # fmt: skip
    run = parse_run(file.read_text())
    assert [row.batch_size for row in run.select("decode")] == [1] * ALL + [2] * ALL
    assert [row.batch_size for row in run.select("decode", batch_size=2)] == [2] * ALL
    with pytest.raises(ValueError, match=r"batch_size must be among \[1, 2\], got 3"):
        run.select("decode", batch_size=3)


def test_a_stopped_run_leaves_what_it_has(tmp_path, monkeypatch):
    """Catches a file that is written only at the very end."""
    monkeypatch.setattr(command, "machine_rates", lambda **options: RATES)

    def stops(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "measure_prefill", stops)
    file = tmp_path / "run.json"
    with pytest.raises(KeyboardInterrupt):
        command.main(["--quick", "--tokens", "3", "--steps", "1", "--no-compare",
                      "--json", str(file)])  # fmt: skip
    assert [row.phase for row in parse_run(file.read_text()).rows] == ["decode"] * ALL


def test_what_failed_is_told_and_stored(tmp_path, capsys, monkeypatch):
    """Catches a variant that is missing in silence."""
    monkeypatch.setattr(command, "machine_rates", lambda **options: RATES)

    def fails(layers, tokens, *, on_failure, **options):
        on_failure("decode, 3 tokens, batch 1, MLA, attnlib: out of memory")
        return []

    monkeypatch.setattr(command, "measure_decode", fails)
    file = tmp_path / "run.json"
    command.main(["--quick", "--tokens", "3", "--prefill", "4", "--steps", "1", "--no-compare",
                  "--json", str(file)])  # fmt: skip
    line = "decode, 3 tokens, batch 1, MLA, attnlib: out of memory"
    assert json.loads(file.read_text())["skipped"] == [line]
    assert f"left out: {line}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tokens", "0"], "--tokens: must be whole numbers of at least 1"),
        (["--tokens", "8,many"], "--tokens: must be whole numbers of at least 1"),
        (["--prefill", "0"], "--prefill: must be whole numbers of at least 1"),
        (["--batch-size", "1,-2"], "--batch-size: must be whole numbers of at least 1"),
        (["--steps", "0"], "--steps: must be whole numbers of at least 1"),
        (["--steps", "3,4"], "--steps: must be one number"),
        (["--device", "abacus"], "invalid choice: 'abacus'"),
        (["--json", "{folder}"], "json must be a file, got the folder"),
        (["--json", "{folder}/file/below.json"], "json must be a file that can be written"),
        (["--variants", "MHA,XYZ"], "argument --variants: must be among MHA, "),
        (["--pattern", "SXF"], "pattern must be letters S and F, such as SSSF, got 'SXF'"),
    ],
    ids=str,
)
def test_arguments_are_refused_before_anything_is_measured(
    arguments, message, tmp_path, capsys, monkeypatch
):
    """Catches a traceback, and an hour's run whose result cannot be written."""
    monkeypatch.setattr(command, "machine_rates", lambda **options: pytest.fail("measured"))
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        command.main([text.replace("{folder}", str(tmp_path)) for text in arguments])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("python -m attnlib.bench: error: ") and message in line


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="the message is for machines without a GPU"
)
def test_a_gpu_that_is_not_there_is_named(capsys):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--device", "cuda"])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("device must be cpu where torch finds no GPU, got cuda")


def test_a_pattern_is_measured_as_one_more_row(tmp_path, monkeypatch):
    """Catches a pattern or a choice of variants that does not reach the run."""
    monkeypatch.setattr(command, "machine_rates", lambda **options: RATES)
    file = tmp_path / "run.json"
    command.main(["--quick", "--tokens", "9", "--prefill", "4", "--steps", "1", "--no-compare",
                  "--variants", "MQA,MHA", "--pattern", "SSF", "--window", "5",
                  "--json", str(file)])  # fmt: skip
    run = parse_run(file.read_text())
    assert [row.variant for row in run.select("decode")] == ["MQA", "MHA", "SSF"]
    stack = Geometry(**json.loads(file.read_text())["geometries"]["SSF"])
    assert (stack.n_layers, stack.n_window_layers, stack.window) == (3, 2, 5)


def test_the_program_begins_again_with_threads_that_sleep(monkeypatch):
    """Catches threads that keep the processor from the one that they wait for."""
    started = []
    monkeypatch.setattr(command.os, "name", "posix")
    monkeypatch.setattr(command.os, "execv", lambda *call: started.append(call))
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")  # so that it is restored afterwards
    monkeypatch.delenv("OMP_WAIT_POLICY")
    command.let_waiting_threads_sleep()
    assert started == [(sys.executable, sys.orig_argv)]
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
    command.let_waiting_threads_sleep()  # as it runs in the program that was started
    assert len(started) == 1
