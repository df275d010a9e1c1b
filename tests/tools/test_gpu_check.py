"""The script for a borrowed GPU: on a CPU it runs through, keeps its budget, and survives."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "gpu_check.py"
SUMMARY = "summary.json"

# What a borrowed machine does not have.
ABSENT = ("anywidget", "ipywidgets", "IPython", "nbclient", "nbformat", "jupyter_core", "nbval",
          "playwright", "jupyter_book")  # fmt: skip


def load_script():
    """The script as a module, wherever the folder of tools stands on the path."""
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    spec.loader.exec_module(module)
    return module


gpu_check = load_script()


@pytest.fixture
def hasty(monkeypatch):
    """Parts that get one second to write their last lines."""
    monkeypatch.setattr(gpu_check, "GRACE", 1.0)
    monkeypatch.setattr(gpu_check, "LEAST", 0.5)


def python(name, code, **options):
    """A part that runs a line of Python."""
    return gpu_check.Part(name, ["-c", code], **options)


def run(parts, out, seconds=60.0, **options):
    """Run parts without a word; return their entries by name."""
    summary = gpu_check.run_parts(parts, out, seconds, say=lambda line: None, **options)
    assert summary == json.loads((out / SUMMARY).read_text())
    return {entry["part"]: entry for entry in summary["parts"]}


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment in which the packages of a borrowed machine's gaps cannot be imported."""
    folder = tmp_path_factory.mktemp("bare")
    code = f"import sys\nsys.modules.update(dict.fromkeys({ABSENT!r}))\n"  # None: not there
    (folder / "sitecustomize.py").write_text(code)
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return {**kept, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}


# What the script is for


@pytest.mark.slow
def test_the_script_runs_through_on_a_cpu(tmp_path, bare):
    """Catches an option that a command no longer has, and an import that is not there."""
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--out", str(tmp_path),
               "--minutes", "20"]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True)
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert done.returncode == 0, done.stdout + done.stderr
    entries = {entry["part"]: entry for entry in summary["parts"]}
    expected = ["machine", "tests", "bench-cpu", "cells-measure-it-yourself", "quality"]
    assert list(entries) == expected
    assert summary["finished"] and summary["device"] == "cpu"
    assert entries.pop("tests")["status"] == "skipped"  # every one of them needs a GPU
    assert {entry["status"] for entry in entries.values()} == {"passed"}
    assert not any(entries["machine"]["report"]["modules"][name] for name in gpu_check.OPTIONAL)
    cells = entries["cells-measure-it-yourself"]["report"]
    assert {cell["status"] for cell in cells} == {"passed", "skipped"}
    assert sum(cell["status"] == "passed" for cell in cells) > 15
    bench = json.loads((tmp_path / entries["bench-cpu"]["file"]).read_text())
    assert bench["provenance"]["device"] == "cpu" and bench["rows"]
    quality = json.loads((tmp_path / entries["quality"]["file"]).read_text())
    assert [run["configuration"] for run in quality["runs"]] == ["MHA", "MLA"]
    assert len(list(tmp_path.iterdir())) <= 8
    text = done.stdout + (tmp_path / SUMMARY).read_text()
    assert str(ROOT) not in text and sys.prefix not in text


def test_the_plan_for_a_gpu_names_what_exists(tmp_path):
    """Catches tests, chapters or options that have moved, and shares that exceed the whole."""
    from attnlib.labs import quality

    parts = {part.name: part for part in gpu_check.plan("cuda", tmp_path, tmp_path)}
    names = list(parts)
    assert names[:2] == ["machine", "tests"] and names[-1] == "quality"
    assert [name for name in names if name.startswith("bench")] == [
        "bench-cuda-b1", "bench-cuda-b16", "bench-cuda-b16-long"]  # fmt: skip
    tests = [text for text in parts["tests"].command if text.endswith(".py")]
    assert tests[0] == "tests/attnlib/test_cuda.py" and len(tests) >= 3
    assert "cells-measure-it-yourself" in parts
    assert sum(part.share for part in parts.values() if part.name != "quality") <= 1
    lengths = {part.command[part.command.index("--tokens") + 1]
               for part in parts.values() if part.name.startswith("bench")}  # fmt: skip
    assert lengths == {"8192,32768,131072", "8192,32768", "131072"}
    command = list(parts["quality"].command)
    assert set(command[command.index("--configurations") + 1 :]) <= set(quality.CONFIGURATIONS)
    assert len([part for part in parts.values() if part.file]) + 2 <= 8  # and log and summary


# A part that fails, hangs or is missing something


def test_other_parts_survive_one_that_fails_or_hangs(tmp_path, hasty):
    """Catches a failure that ends the run, and a process that is left to itself."""
    beside = tmp_path / "pid"
    hanging = (
        "import os, pathlib, signal, time\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        f"pathlib.Path({str(beside)!r}).write_text(str(os.getpid()))\n"
        "print('began', flush=True)\n"
        "time.sleep(600)"
    )
    out = tmp_path / "out"
    out.mkdir()
    parts = [
        python("fails", "print('first'); raise ValueError('no such kernel')"),
        python("dies", "import os; os.abort()"),
        python("hangs", hanging, share=0.05),
        python("works", "print('fine')"),
    ]
    start = time.monotonic()
    entries = run(parts, out, 60.0)
    assert time.monotonic() - start < 30
    assert [entry["status"] for entry in entries.values()] == [
        "failed", "failed", "timeout", "passed"]  # fmt: skip
    assert entries["fails"]["reason"] == "ValueError: no such kernel"
    assert entries["fails"]["tail"].startswith("first\n")
    assert entries["dies"]["returncode"] == -signal.SIGABRT
    assert "began" in entries["hangs"]["tail"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(beside.read_text()), 0)
    log = (out / "log.txt").read_text().splitlines()
    for name, entry in entries.items():
        line = int(entry["log"].rpartition(" ")[2])
        assert log[line - 1].startswith(f"===== {name}: python -c ")


def test_the_budget_is_kept(tmp_path, hasty):
    """Catches parts whose limits add up to more than the whole."""
    slow = "import time; time.sleep(600)"
    parts = [python(f"slow-{i}", slow, share=0.5) for i in range(4)]
    start = time.monotonic()
    entries = run(parts, tmp_path, 6.0)
    assert time.monotonic() - start < 7
    assert entries["slow-0"]["status"] == "timeout"
    assert entries["slow-3"] == {"part": "slow-3", "status": "skipped", "seconds": 0.0,
                                 "reason": "no time left"}  # fmt: skip


def test_an_open_ended_part_passes_with_what_it_has_written(tmp_path, hasty):
    """Catches partial results that count as a failure, and none that count as a success."""
    writes = (
        "import pathlib, sys, time\n"
        "pathlib.Path(sys.argv[1]).write_text('{\"runs\": [1]}')\n"
        "time.sleep(600)"
    )
    file, none = tmp_path / "found.json", tmp_path / "none.json"
    parts = [
        gpu_check.Part("found", ["-c", writes, str(file)], 0.2, file=file, open_ended=True),
        python("none", "import time; time.sleep(600)", share=0.2, file=none, open_ended=True),
    ]
    entries = run(parts, tmp_path, 20.0)
    assert entries["found"]["status"] == "passed" and entries["found"]["file"] == "found.json"
    assert entries["none"]["status"] == "timeout" and "file" not in entries["none"]


def test_results_are_those_of_this_run(tmp_path):
    """Catches an earlier run's file that counts, and measurements that were left out unseen."""
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text("{}")
    writes = (
        "import pathlib, sys\n"
        'pathlib.Path(sys.argv[1]).write_text(\'{"rows": [], "skipped": ["MHA", "MLA"]}\')'
    )
    parts = [
        python("old", "", file=old),
        gpu_check.Part("new", ["-c", writes, str(new)], file=new),
    ]
    entries = run(parts, tmp_path)
    assert "file" not in entries["old"] and not old.exists()
    assert entries["new"]["status"] == "passed" and entries["new"]["reason"] == "2 left out"


def test_what_a_machine_lacks_is_a_reason_to_skip(tmp_path):
    """Catches a part that fails for want of a package or of memory."""
    report = tmp_path / "machine.json"
    machine = (
        f"import pathlib; pathlib.Path({str(report)!r}).write_text"
        "('{\"gpu_memory_bytes\": 17179869184}')"
    )
    parts = [
        python("machine", machine, report=report),
        python("module", "", needs=["no_such_module"]),
        python("large", "", needs_gib=40),
        python("small", "", needs_gib=16),
    ]
    entries = run(parts, tmp_path)
    assert entries["module"]["reason"] == "not installed: no_such_module"
    assert entries["large"]["reason"] == "needs 40 GiB of GPU memory, there are 16"
    assert entries["small"]["status"] == "passed"


def test_a_run_that_is_killed_leaves_a_summary(tmp_path):
    """Catches results that are written at the end only."""
    code = (
        "import importlib.util, pathlib, sys\n"
        f"spec = importlib.util.spec_from_file_location('gpu_check', {str(SCRIPT)!r})\n"
        "g = importlib.util.module_from_spec(spec)\n"
        "sys.modules['gpu_check'] = g\n"
        "spec.loader.exec_module(g)\n"
        "parts = [g.Part('quick', ['-c', 'print(1)']),\n"
        "         g.Part('long', ['-c', 'import time; time.sleep(600)']),\n"
        "         g.Part('last', ['-c', ''])]\n"
        f"g.run_parts(parts, pathlib.Path({str(tmp_path)!r}), 300.0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as p:
        for line in p.stdout:
            if line.startswith("long: at most"):
                break
        p.kill()
    summary = json.loads((tmp_path / SUMMARY).read_text())
    statuses = {entry["part"]: entry["status"] for entry in summary["parts"]}
    assert statuses == {"quick": "passed", "long": "running", "last": "pending"}
    assert summary["finished"] is False


def test_tests_that_all_skip_themselves_are_not_passed(tmp_path):
    """Catches a green table on a machine whose GPU torch does not find."""
    part = gpu_check.Part("tests", ["-m", "pytest"])
    cases = {
        "3 passed, 2 skipped in 1.0s": ("passed", "3 passed, 2 skipped"),
        "5 skipped, 9 deselected in 1.0s": (
            "skipped", "every test skipped itself: 5 skipped, 9 deselected"),
    }  # fmt: skip
    for text, expected in cases.items():
        assert gpu_check.verdict(part, 0, False, text) == expected
    assert gpu_check.verdict(part, 1, False, "1 failed, 4 passed in 1.0s") == (
        "failed", "1 failed, 4 passed")  # fmt: skip


def test_the_exit_status_is_that_of_the_parts(tmp_path, monkeypatch, capsys):
    """Catches a failure that no one sees, and a table without a part."""
    good, bad = python("good", "print(1)"), python("bad", "raise SystemExit('broken')")
    for parts, status in (([good], 0), ([good, bad], 1)):
        monkeypatch.setattr(gpu_check, "plan", lambda *_, parts=parts: parts)
        assert gpu_check.main(["--device", "cpu", "--out", str(tmp_path)]) == status
    printed = capsys.readouterr().out
    assert "===== end of the log of bad\nbroken" in printed
    lines = printed[printed.rindex("part ") :].splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [["good", "passed"], ["bad", "failed"]]


# Cells without Jupyter


def notebook(path, *cells):
    """Write a notebook of code cells, each a source or a pair of a source and tags."""
    pairs = [cell if isinstance(cell, tuple) else (cell, []) for cell in cells]
    content = [
        {"cell_type": "code", "id": f"c{i}", "source": [code], "metadata": {"tags": tags}}
        for i, (code, tags) in enumerate(pairs)
    ]
    prose = {"cell_type": "markdown", "source": ["cuda"], "metadata": {}}
    path.write_text(json.dumps({"cells": [prose, *content]}))
    return path


def run_notebook(tmp_path, *cells, **options):
    """Run cells; return the exit status and their entries."""
    report = tmp_path / "report.json"
    status = gpu_check.run_cells(notebook(tmp_path / "n.ipynb", *cells), report, **options)
    return status, json.loads(report.read_text())


def test_cells_run_in_one_namespace(tmp_path):
    """Catches cells that cannot see each other's names, and a last value that is not shown."""
    status, cells = run_notebook(
        tmp_path,
        "x = 20\ndef double(y):\n    return 2 * y",
        "print('now')\ndouble(x) + 2",
        "import inspect\ninspect.getsource(double)[:12]",
        "None",
    )
    assert status == 0
    assert [cell["status"] for cell in cells] == ["passed"] * 4
    assert cells[1]["output"] == "now\n42\n"
    assert cells[2]["output"] == "'def double(y'\n"
    assert cells[3]["output"] == "" and cells[3]["seconds"] >= 0


def test_a_missing_widget_is_a_reason_to_skip_and_an_error_is_not(tmp_path, monkeypatch):
    """Catches a chapter that counts as broken, or as whole, for want of anywidget."""
    monkeypatch.setitem(sys.modules, "anywidget", None)
    status, cells = run_notebook(
        tmp_path,
        "%pip install attnlib",
        "import anywidget\nlens = anywidget.Lens()",
        "lens.show()",
        "1 / 0",
        "nowhere",
        ("1 / 0", ["raises-exception"]),
        "print('goes on')",
    )
    assert status == 1
    assert [cell["status"] for cell in cells] == [
        "skipped", "skipped", "skipped", "failed", "failed", "passed", "passed"]  # fmt: skip
    assert cells[1]["reason"] == "anywidget missing"
    assert cells[2]["reason"] == "needs lens from a skipped cell"
    assert cells[3]["reason"] == "ZeroDivisionError: division by zero"
    assert "line 1" in cells[3]["traceback"]


def test_timings_can_be_left_out(tmp_path):
    """Catches a trial on a CPU that measures for minutes."""
    status, cells = run_notebook(
        tmp_path, ("rows = 1 / 0", ["nbval-ignore-output"]), "rows", "rows = 2", "rows",
        skip_timings=True,
    )  # fmt: skip
    assert status == 0
    assert [cell["status"] for cell in cells] == ["skipped", "skipped", "passed", "passed"]
