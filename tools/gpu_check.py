#!/usr/bin/env python3
"""Run everything that is worth running on a borrowed GPU, in order of worth, in a few minutes.

    python3 tools/gpu_check.py                        on CUDA, 8 minutes at most
    python3 tools/gpu_check.py --minutes 4 --out DIR  less time, another folder for the results
    python3 tools/gpu_check.py --only tests cells     some of the parts
    python3 tools/gpu_check.py --device cpu           try the script itself, at tiny sizes

It runs from a bare checkout: it needs Python and what it measures (torch, pytest, matplotlib),
no installation and no network. Each part is a process of its own with a time limit of its own,
so one that fails or hangs stops no other. The folder of results holds one log, one summary in
JSON, rewritten after each part so that a run that is killed leaves what it found, and the files
that the benchmark and the laboratory write themselves. It is at most eight files.

The exit status is 0 only if every part passed or was skipped with a reason.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import linecache
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
THIS = "tools/gpu_check.py"

# Packages that only front ends need: a cell that wants one of them is skipped, not failed.
OPTIONAL = {"anywidget", "ipywidgets", "IPython"}
TIMING = "nbval-ignore-output"  # the tag of cells whose outputs are timings
GRACE = 5.0  # seconds that a part gets to write its last lines once its time is up
LEAST = 3.0  # seconds below which a part is not started
RESERVE = 1.0  # seconds kept for the summary
PACE = "pace-cuda.json"
TAIL = 6000  # characters of a part's log that the summary repeats
CELL_OUTPUT = 2000  # characters of one cell's output that the summary repeats


@dataclass(frozen=True)
class Part:
    """One thing to run.

    Attributes:
        name: short and unique.
        command: arguments of Python.
        share: part of the whole time that it may take, 0 to 1; never more than what is left.
        needs: modules without which it is skipped.
        needs_gib: GPU memory without which it is skipped.
        env: variables added to the environment.
        file: what it writes, in the folder of the results; ``None`` = nothing.
        open_ended: whether it may go on until time is up; a whole ``file`` then means success.
        report: a JSON file outside the results whose content goes into the summary.
    """

    name: str
    command: Sequence[str]
    share: float = 1.0
    needs: Sequence[str] = ()
    needs_gib: float = 0.0
    env: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    open_ended: bool = False
    report: Path | None = None


# What to run


def plan(device: str, out: Path, scratch: Path) -> list[Part]:
    """Return the parts for a device, the most valuable first.

    Args:
        device: "cuda", or "cpu" for tiny sizes that only try the script.
        out: folder of the results.
        scratch: folder for reports of parts; it is thrown away.
    """
    parts = [
        Part("machine", [THIS, "--machine", "--report", str(scratch / "machine.json")], 0.06,
             needs=["torch"], report=scratch / "machine.json"),
        Part("tests", ["-m", "pytest", "-q", "-m", "cuda", "--tb=short", "--durations=5",
                       "-p", "no:cacheprovider", "--confcutdir", "tests/attnlib",
                       "--continue-on-collection-errors", *cuda_tests()], 0.20,
             needs=["torch", "pytest"], env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}),
    ]  # fmt: skip
    if device == "cuda":
        big = ["--device", "cuda", "--dtype", "bfloat16", "--steps", "30"]
        parts += [
            bench(out / "bench-cuda-b1.json", 0.20, 12, *big, "--batch-size", "1",
                  "--tokens", "8192,32768,131072", "--prefill", "512,2048"),
            bench(out / "bench-cuda-b16.json", 0.15, 40, *big, "--batch-size", "16",
                  "--tokens", "8192,32768", "--prefill", "512"),
            # transformers' caches of this size would not fit beside the others
            bench(out / "bench-cuda-b16-long.json", 0.10, 48, *big, "--batch-size", "16",
                  "--tokens", "131072", "--prefill", "512", "--no-compare"),
            Part("pace", ["-m", "attnlib.labs.pace", "--device", "cuda", "--dtype", "bfloat16",
                          "--batch-sizes", "1", "4", "16", "64", "--json", str(out / PACE)],
                 0.12, ["torch", "transformers"], 8, file=out / PACE),
        ]  # fmt: skip
    else:
        parts.append(
            bench(out / "bench-cpu.json", 0.3, 0, "--quick", "--steps", "1", "--no-compare",
                  "--tokens", "16", "--prefill", "8")
        )  # fmt: skip
    for chapter in cuda_chapters():
        report = scratch / f"{chapter.stem}.json"
        skips = ["--skip-timings"] if device == "cpu" else []
        parts.append(
            Part(f"cells-{chapter.stem}",
                 [THIS, "--cells", chapter.relative_to(ROOT).as_posix(), *skips,
                  "--report", str(report)], 0.15,
                 needs=["torch", "matplotlib"], report=report)
        )  # fmt: skip
    parts.append(quality(device, out / f"quality-{device}.json"))
    if device == "cpu":  # a trial takes a minute; a busy machine may take its time
        parts = [replace(part, share=0.5) for part in parts]
    return parts


def bench(file: Path, share: float, needs_gib: float, *options: str) -> Part:
    """Return a run of the benchmark that writes a file."""
    command = ["-m", "attnlib.bench", *options, "--json", str(file)]
    env = {"OMP_WAIT_POLICY": "passive"}  # else the benchmark starts again to set it
    return Part(file.stem, command, share, ["torch"], needs_gib, file=file, env=env)


def quality(device: str, file: Path) -> Part:
    """Return the quality laboratory, which trains until time is up and goes on in its file."""
    sizes = {"d-model": 512, "n-layers": 8, "head-dim": 64, "d-ff": 2048, "tokens": 512,
             "batch-size": 16, "steps": 1000, "warmup": 50}  # fmt: skip
    seeds, names = range(10), ["MHA", "GQA", "MQA", "MLA", "MQA, wide heads", "MHA, few heads"]
    if device == "cpu":
        sizes = {"d-model": 32, "n-layers": 1, "head-dim": 8, "d-ff": 64, "tokens": 16,
                 "batch-size": 2, "steps": 4, "warmup": 1, "n-heads": 4, "looks": 2,
                 "held-out-windows": 8}  # fmt: skip
        seeds, names = range(1), ["MHA", "MLA"]
    command = ["-m", "attnlib.labs.quality", "--device", device, "--json", str(file),
               *(text for name, size in sizes.items() for text in (f"--{name}", str(size))),
               "--seeds", *map(str, seeds), "--configurations", *names]  # fmt: skip
    # TF32 is several times faster, so that more seeds fit; the file's provenance says "high".
    env = {"TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"} if device == "cuda" else {}
    return Part("quality", command, needs=["torch"], env=env, file=file, open_ended=True)


def cuda_tests() -> list[str]:
    """Return the test files that have tests for CUDA; ``test_cuda.py`` comes first."""
    files = sorted((ROOT / "tests" / "attnlib").rglob("test_*.py"))
    marked = [path for path in files if "mark.cuda" in path.read_text(encoding="utf-8")]
    marked.sort(key=lambda path: path.name != "test_cuda.py")
    return [path.relative_to(ROOT).as_posix() for path in marked]


def cuda_chapters() -> list[Path]:
    """Return the chapters with a code cell that uses a GPU where there is one."""
    return [
        path
        for path in sorted((ROOT / "chapters").glob("*.ipynb"))
        if any("cuda.is_available" in source(cell) for cell in code_cells(path))
    ]


# Running parts


def run_parts(
    parts: Sequence[Part],
    out: Path,
    seconds: float,
    *,
    facts: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, object]:
    """Run parts one after another within a time budget.

    Args:
        parts: in order of worth.
        out: folder of the results, which exists.
        seconds: for all of them together. No part runs on after it.
        facts: further entries of the summary.
        env: variables added to the environment of every part.
        say: takes a line of text for the terminal.

    Returns:
        The summary, as it stands in ``out / "summary.json"``.
    """
    start = time.monotonic()
    entries = [{"part": part.name, "status": "pending"} for part in parts]
    summary = {
        "started": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        **(facts or {}),
        "budget_seconds": seconds,
        "finished": False,
        "parts": entries,
    }
    log = out / "log.txt"
    log.write_bytes(b"")
    write_json(out / "summary.json", summary)
    for part, entry in zip(parts, entries, strict=True):
        left = seconds - RESERVE - (time.monotonic() - start)
        limit = min(left - GRACE / 2, part.share * seconds)
        machine = next((e.get("report") for e in entries if e["part"] == "machine"), None)
        reason = why_not(part, limit, machine or {})
        if reason:
            entry.update(status="skipped", reason=reason, seconds=0.0)
        else:
            entry["status"] = "running"
            write_json(out / "summary.json", summary)
            say(f"{part.name}: at most {limit:.0f} s ...")
            entry.update(run_part(part, log, limit, min(GRACE, left - limit), env or {}))
        took = time.monotonic() - start
        summary["seconds"] = round(took, 1)
        write_json(out / "summary.json", summary)
        say(f"{part.name}: {entry['status']} {entry.get('reason', '')}".rstrip())
    summary["finished"] = True
    write_json(out / "summary.json", summary)
    return summary


def why_not(part: Part, limit: float, machine: Mapping[str, object]) -> str:
    """Return the reason to skip a part, or "" if there is none."""
    missing = [name for name in part.needs if find_spec(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    has = machine.get("gpu_memory_bytes")
    if part.needs_gib and isinstance(has, int) and has < part.needs_gib * 2**30:
        return f"needs {part.needs_gib:.0f} GiB of GPU memory, there are {has / 2**30:.0f}"
    if limit < LEAST:
        return "no time left"
    return ""


def run_part(
    part: Part, log: Path, limit: float, grace: float, env: Mapping[str, str]
) -> dict[str, object]:
    """Run one part in a process of its own.

    Args:
        part: what to run.
        log: file to which its output is added.
        limit: seconds after which it is interrupted.
        grace: seconds after which it is then killed.
        env: variables added to the environment.

    Returns:
        The part's entry of the summary.
    """
    for old in (part.report, None if part.open_ended else part.file):
        if old:
            old.unlink(missing_ok=True)  # an earlier run's results are not this run's
    shown = clean(shlex.join(["python", *part.command]))
    line = log.read_bytes().count(b"\n") + 1
    with log.open("ab") as stream:
        stream.write(f"===== {part.name}: {shown}\n".encode())
        stream.flush()
        begins = stream.tell()
        start = time.monotonic()
        code, stopped = run_process(part, stream, limit, grace, env)
        seconds = time.monotonic() - start
    with log.open("rb") as stream:
        stream.seek(begins)
        text = clean(stream.read().decode(errors="replace"))
    report = read_json(part.report)
    status, reason = verdict(part, code, stopped, text)
    entry = {"status": status, "reason": reason, "seconds": round(seconds, 1),
             "limit_seconds": round(limit, 1), "returncode": code, "command": shown,
             "log": f"{log.name}, line {line}", "tail": text[-TAIL:]}  # fmt: skip
    if part.file and part.file.exists():
        entry["file"] = part.file.name
        found = read_json(part.file)
        left_out = found.get("skipped") if isinstance(found, dict) else None
        if left_out:  # the benchmark goes on where a measurement does not fit into memory
            entry["reason"] = "; ".join(filter(None, (reason, f"{len(left_out)} left out")))
    if report is not None:
        entry["report"] = report
    return entry


def run_process(
    part: Part, stream: io.BufferedWriter, limit: float, grace: float, env: Mapping[str, str]
) -> tuple[int, bool]:
    """Run a part's process; return its exit status and whether its time was up."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, *part.command],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "MPLBACKEND": "Agg",
             "HF_HUB_OFFLINE": "1", **env, **part.env},
        stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        preexec_fn=own_group,
    )  # fmt: skip
    try:
        return process.wait(timeout=limit), False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)  # pytest then still reports what failed
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace)
        return process.returncode or -signal.SIGKILL, True
    finally:  # also if this script itself is interrupted
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def own_group() -> None:
    """Put a new process into its own group, where it can be interrupted with its children."""
    os.setpgrp()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job would ignore it


def verdict(part: Part, code: int, stopped: bool, text: str) -> tuple[str, str]:
    """Return a part's status and the reason for it.

    Args:
        part: that ran.
        code: exit status of its process.
        stopped: whether its time was up.
        text: its output.
    """
    counts = ""
    if "pytest" in part.command:
        found = re.findall(r"\d+ (?:passed|failed|skipped|deselected|errors?)\b", text)
        counts = ", ".join(dict.fromkeys(found[-5:]))
    if stopped:
        runs = read_json(part.file) if part.open_ended else None
        if runs is not None:
            return (
                "passed",
                f"went on until its time was up; {part.file.name} has what it found",
            )
        return "timeout", counts or "its time was up"
    if code != 0:
        return "failed", counts or last_line(text)
    if counts and "passed" not in counts:
        return "skipped", f"every test skipped itself: {counts}"
    return "passed", counts or (last_line(text) if "--cells" in part.command else "")


def last_line(text: str) -> str:
    """Return the last line that says something, which in a traceback is the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "no output"


def clean(text: str) -> str:
    """Take the folders of this machine out of a text, which may be stored."""
    text = text.replace(f"{ROOT}{os.sep}", "").replace(str(ROOT), ".")
    return re.sub(r"(?<![\w./:])/(?:[\w.+-]+/){2,}(?=[\w.])", ".../", text)


def write_json(path: Path, content: object) -> None:
    """Write JSON so that whoever reads it meanwhile gets the old content or the new."""
    unfinished = path.with_suffix(".tmp")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def read_json(path: Path | None) -> object:
    """Return the content of a JSON file, or ``None`` if there is no whole one."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path else None
    except (OSError, ValueError):
        return None


def table(summary: Mapping[str, object]) -> str:
    """Return the summary as a table for the terminal."""
    rows = [("part", "status", "seconds", "log", "")]
    rows += [
        (e["part"], e["status"], f"{e.get('seconds', 0):.1f}", e.get("log", "-"),
         e.get("reason", ""))
        for e in summary["parts"]
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = []
    for name, status, seconds, log, reason in rows:
        cells = (name.ljust(widths[0]), status.ljust(widths[1]), seconds.rjust(widths[2]),
                 log.ljust(widths[3]), reason)  # fmt: skip
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


# What parts run in this file


def describe_machine(report: Path) -> int:
    """Write down what this machine is, without its name; fail if a wanted GPU is missing."""
    import platform

    import torch

    facts = {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "modules": {
            name: find_spec(name) is not None
            for name in ("transformers", "triton", "matplotlib", "pytest", *sorted(OPTIONAL))
        },
    }
    if torch.cuda.is_available():
        gpu = torch.cuda.get_device_properties(0)
        facts |= {
            "gpu": gpu.name,
            "compute_capability": f"{gpu.major}.{gpu.minor}",
            "gpu_memory_bytes": gpu.total_memory,
            "gpu_memory_free_bytes": torch.cuda.mem_get_info()[0],
        }
        x = torch.ones(1000, device="cuda")
        assert x.sum().item() == 1000  # the driver really runs something
    print(json.dumps(facts, indent=1))
    write_json(report, facts)
    if os.environ.get("CUDA_VISIBLE_DEVICES") != "" and not torch.cuda.is_available():
        print("torch finds no CUDA device; --device cpu tries the script without one")
        return 1
    return 0


def code_cells(notebook: Path) -> list[dict]:
    """Return the code cells of a notebook."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def source(cell: Mapping[str, object]) -> str:
    """Return the source of a cell."""
    return "".join(cell["source"])


def run_cells(notebook: Path, report: Path, *, skip_timings: bool = False) -> int:
    """Run the code cells of a notebook in one namespace, without Jupyter.

    A cell that wants a widget where anywidget is missing is skipped, and so is a cell that
    needs a name from a skipped one. After an error the next cells run all the same.

    Args:
        notebook: which one.
        report: JSON file that is rewritten after each cell.
        skip_timings: whether to leave out cells whose outputs are timings.

    Returns:
        0 if no cell failed, else 1.
    """
    module = ModuleType("chapter")
    sys.modules["chapter"] = module
    skipped: set[str] = set()  # names that only skipped cells would have defined
    done: list[dict[str, object]] = []
    for number, cell in enumerate(code_cells(notebook), start=1):
        entry = {"cell": cell.get("id", str(number)), "status": "running", "seconds": 0.0}
        done.append(entry)
        write_json(report, done)
        start, printed = time.perf_counter(), io.StringIO()
        try:
            with redirect_stdout(Tee(sys.stdout, printed)):
                entry |= run_cell(cell, number, notebook.stem, module, skipped, skip_timings)
        except KeyboardInterrupt:
            entry |= {"status": "stopped"}
        entry["seconds"] = round(time.perf_counter() - start, 2)
        entry["output"] = printed.getvalue()[:CELL_OUTPUT]
        write_json(report, done)
        print(f"--- cell {number}, {entry['cell']}: {entry['status']}, {entry['seconds']} s"
              f" {entry.get('reason', '')}".rstrip(), flush=True)  # fmt: skip
        if entry["status"] == "stopped":
            return 1
    counts = {status: sum(e["status"] == status for e in done) for status in
              ("passed", "skipped", "failed")}  # fmt: skip
    print(", ".join(f"{count} cells {status}" for status, count in counts.items()))
    return 1 if counts["failed"] else 0


def run_cell(
    cell: Mapping[str, object],
    number: int,
    title: str,
    module: ModuleType,
    skipped: set[str],
    skip_timings: bool,
) -> dict[str, str]:
    """Run one cell; return its status, and the reason unless it passed.

    Args:
        cell: of a notebook.
        number: of the code cell, from 1, for tracebacks.
        title: of the notebook, for tracebacks.
        module: whose namespace all cells share.
        skipped: names that skipped cells would have defined; a skipped cell adds its own.
        skip_timings: whether cells whose outputs are timings are left out.
    """
    code, tags = source(cell), cell.get("metadata", {}).get("tags", ())
    if re.search(r"^\s*[%!]", code, re.MULTILINE):
        return {"status": "skipped", "reason": "needs IPython or installs something"}
    names = defined_names(code)
    if skip_timings and TIMING in tags:
        skipped |= names - set(vars(module))
        return {"status": "skipped", "reason": "a timing"}
    try:
        execute(code, f"<{title}, cell {number}>", vars(module))
    except Exception as error:
        if "raises-exception" in tags:
            return {"status": "passed", "reason": f"raised {type(error).__name__}, as meant"}
        missing = (getattr(error, "name", None) or "").partition(".")[0]
        reason = ""
        if isinstance(error, ImportError) and missing in OPTIONAL:
            reason = f"{missing} missing"
        elif isinstance(error, NameError) and missing in skipped:
            reason = f"needs {missing} from a skipped cell"
        if reason:
            skipped |= names - set(vars(module))
            return {"status": "skipped", "reason": reason}
        text = "".join(traceback.format_exception(error))
        print(text, flush=True)
        return {"status": "failed", "reason": last_line(text), "traceback": clean(text)[-TAIL:]}
    skipped -= set(vars(module))
    return {"status": "passed"}


def execute(code: str, filename: str, namespace: dict[str, object]) -> None:
    """Run code as a cell runs: the value of a last expression is printed."""
    linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
    tree = ast.parse(code, filename)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not code.rstrip().endswith(";"):
        last = ast.Expression(tree.body.pop().value)
    exec(compile(tree, filename, "exec"), namespace)
    if last is not None:
        value = eval(compile(last, filename, "eval"), namespace)
        if value is not None:
            print(repr(value))
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


def defined_names(code: str) -> set[str]:
    """Return the names that the top level of some code defines or imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(a.asname or a.name).partition(".")[0] for a in node.names}
    return names


class Tee(io.TextIOBase):
    """Writes to several streams at once."""

    def __init__(self, *streams: io.TextIOBase):
        self.streams = streams

    def write(self, text: str) -> int:
        """Write a text to each stream."""
        for stream in self.streams:
            stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush each stream."""
        for stream in self.streams:
            stream.flush()


# The command line


def commit() -> str | None:
    """Return the commit that is checked out, or ``None`` where git does not know."""
    try:
        git = ["git", "rev-parse", "HEAD"]
        found = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None


@contextmanager
def terminable() -> Iterator[None]:
    """Let a SIGTERM end the script as Ctrl-C does, so that no part outlives it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(arguments: Iterable[str] | None = None) -> int:
    """Run the script; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--minutes", type=float, default=8.0, help="for everything together; default: 8")
    add("--out", type=Path, default=ROOT / "gpu-results", metavar="DIR",
        help="folder of the results; default: gpu-results")  # fmt: skip
    add("--device", choices=("cuda", "cpu"), default="cuda",
        help="cpu only tries the script, at tiny sizes")  # fmt: skip
    add("--only", nargs="+", metavar="PART", help="parts whose names begin so")
    add("--machine", action="store_true", help=argparse.SUPPRESS)
    add("--cells", type=Path, help=argparse.SUPPRESS)
    add("--skip-timings", action="store_true", help=argparse.SUPPRESS)
    add("--report", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.machine:
        return describe_machine(options.report)
    if options.cells:
        return run_cells(options.cells, options.report, skip_timings=options.skip_timings)
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    env = {"CUDA_VISIBLE_DEVICES": ""} if options.device == "cpu" else {}
    with tempfile.TemporaryDirectory() as scratch, terminable():
        parts = plan(options.device, out, Path(scratch))
        if options.only:
            parts = [p for p in parts if p.name.startswith(tuple(options.only))]
            if not parts:
                parser.error(f"--only: no part begins with {', '.join(options.only)}")
        facts = {"device": options.device, "commit": commit()}
        try:
            summary = run_parts(parts, out, 60 * options.minutes, facts=facts, env=env)
        except KeyboardInterrupt:
            print(f"interrupted; {out / 'summary.json'} has what was found")
            return 130
    for entry in summary["parts"]:
        if entry["status"] in ("failed", "timeout"):
            print(f"\n===== end of the log of {entry['part']}\n{entry['tail'][-2500:]}")
    print(f"\n{table(summary)}\nresults: {out}")
    good = all(entry["status"] in ("passed", "skipped") for entry in summary["parts"])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
