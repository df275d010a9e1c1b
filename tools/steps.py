"""Run the checks and tests, one step after another; stop at the first that fails.

    python -m tools test               all steps
    python -m tools test lint attnlib  these only

A step is a folder of tests or a few commands. Two processes share a folder's tests; folders
that follow each other are run as one. The build, which keeps one core busy, begins beside the
first steps; its turn waits for its end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tools import ROOT, arguments

Command = tuple[str, ...]


class Step(NamedTuple):
    """Commands that check one thing.

    Attributes:
        name: what ``STEPS`` selects the step by.
        summary: what it checks.
        commands: run in turn until one fails.
        remedy: what to do when one fails.
        is_early: whether its one command begins when the first step does.
        folder: of tests, if it runs nothing else.
        is_offline: whether its commands run without a network.
    """

    name: str
    summary: str
    commands: tuple[Command, ...]
    remedy: str
    is_early: bool = False
    folder: str | None = None
    is_offline: bool = False


@contextlib.contextmanager
def started(step: Step) -> Iterator[Callable[[], int]]:
    """Run the command of an early step beside other steps; end it when the block is left.

    Yields:
        What waits for the command, writes its output, and returns its exit status.
    """
    (command,) = step.commands
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a group, so that what the command started ends with it
        )

        def finish() -> int:
            status = process.wait()
            output.seek(0)
            print(output.read().decode(errors="replace"), end="", flush=True)
            return status

        try:
            yield finish
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait()


def module(name: str, *options: str) -> Command:
    """Return the command that runs a Python module."""
    return (sys.executable, "-m", name, *options)


def program(name: str, *options: str) -> Command:
    """Return the command that runs a program installed beside Python."""
    return (str(Path(sys.executable).with_name(name)), *options)


def tool(name: str, *options: str) -> Command:
    """Return the command that runs a tool of this package."""
    return module("tools", name, *options)


def pytest(*options: str) -> Command:
    """Return the command that runs tests in two processes."""
    return module("pytest", "-q", "-n2", "--dist=worksteal", *options)


def folder(name: str, summary: str, remedy: str) -> Step:
    """Return the step that runs one folder of ``tests``."""
    path = f"tests/{name}"
    return Step(name, summary, (pytest(path),), remedy, folder=path)


def joined(steps: list[Step]) -> list[Step]:
    """Make one step of those whose folders follow each other: to start pytest takes seconds."""
    result: list[Step] = []
    for are_folders, group in itertools.groupby(steps, lambda step: step.folder is not None):
        found = list(group)
        if not are_folders or len(found) == 1:
            result += found
            continue
        result.append(
            Step(
                " ".join(step.name for step in found),
                "; ".join(step.summary for step in found),
                (pytest(*(step.folder for step in found if step.folder)),),
                found[0].remedy,
            )
        )
    return result


def schema(name: str, *files: str) -> Command:
    """Return the command that checks files against a schema that check-jsonschema ships."""
    return module("check_jsonschema", "--builtin-schema", f"vendor.{name}", *files)


WORKFLOWS = tuple(
    path.relative_to(ROOT).as_posix() for path in sorted(ROOT.glob(".github/workflows/*.yml"))
)

# No network can be reached through this proxy, so a command that needs one fails.
OFFLINE = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy"), "http://127.0.0.1:9")

LINT = (
    module("ruff", "check", "."),
    module("ruff", "format", "--check", "."),
    module("codespell_lib"),
    program("pydoclint", "--quiet", "attnlib"),
    tool("types"),
    program("oxlint", "--deny-warnings", "attnlib", "_static", "tools"),
    program("zizmor", "--offline", "--quiet", "--no-progress", ".github"),
    schema("github-workflows", *WORKFLOWS),
    schema("dependabot", ".github/dependabot.yml"),
)

NBVAL = (
    "--nbval",
    "--nbval-current-env",
    "--nbval-sanitize-with=tests/nbval_sanitize.cfg",
    "--dist=loadscope",  # a notebook's cells share a kernel
)

ONE_FILE = "one file: .venv/bin/python -m pytest FILE"

STEPS = (
    Step(
        "chromium",
        "a browser for the last step exists",
        (tool("browser"),),
        "install one in any of the ways above.",
    ),
    Step(
        "lint",
        "style, types, docstrings, spelling, JavaScript and workflows",
        LINT,
        "`make format` corrects what it can; the rest is listed above.",
        is_offline=True,
    ),
    Step(
        "generated",
        "listings, tables, pictures and notebooks are what their sources generate",
        (
            tool("listings", "--check"),
            tool("notation", "--check"),
            tool("minutes", "--check"),
            tool("contents", "--check"),
            tool("pictures", "--check"),
            tool("normalise", "--check"),
        ),
        "`make listings`, `make pictures` or `make notebooks` writes them again.",
    ),
    folder("attnlib", "the library", ONE_FILE),
    folder("book", "chapters, widgets, exercises and pages", ONE_FILE),
    folder("tools", "tools, workflows and the repository itself", ONE_FILE),
    Step(
        "nbval",
        "chapters and solutions run again and print what they show",
        (tool("solutions", "--build"), pytest(*NBVAL, "chapters", "_build/solutions")),
        "if the new outputs are right, `make notebooks` stores them.",
    ),
    Step(
        "build",
        "the book builds from nothing without a warning",
        (tool("build", "--fresh"),),
        "the warnings above name file and line.",
        is_early=True,
    ),
    folder("site", "built pages in Chromium and widgets in JupyterLab", ONE_FILE),
)


def run(steps: list[Step]) -> int:
    """Run steps until one fails; return its exit status, or 0.

    The last line printed counts the steps that passed and failed.
    """
    begin = time.perf_counter()
    times = []
    with contextlib.ExitStack() as stack:
        early = {
            step.name: stack.enter_context(started(step)) for step in steps if step.is_early
        }
        for number, step in enumerate(steps, start=1):
            print(f"\n== [{number}/{len(steps)}] {step.name}: {step.summary}", flush=True)
            start = time.perf_counter()
            status = early[step.name]() if step.is_early else run_step(step)
            times.append(f"{step.name} {time.perf_counter() - start:.0f} s")
            if status != 0:
                print(f"\n== FAILED in {step.name}: {step.remedy}")
                print(f'   only this step: make test STEPS="{step.name}"')
                print(f"steps: {number - 1} passed, 1 failed", flush=True)
                return status
    print(f"\n== {', '.join(times)}; total {time.perf_counter() - begin:.0f} s")
    print(f"steps: {len(steps)} passed, 0 failed", flush=True)
    return 0


def run_step(step: Step) -> int:
    """Run a step's commands until one fails; return its exit status, or 0."""
    env = os.environ | (OFFLINE if step.is_offline else {})
    for command in step.commands:
        done = subprocess.run(command, cwd=ROOT, env=env, check=False)
        if done.returncode != 0:
            return done.returncode
    return 0


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    names = [step.name for step in STEPS]
    parser = arguments.parser(__doc__)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(names))
    options = parser.parse_args(argv)
    if unknown := sorted(set(options.steps) - set(names)):
        parser.error(f"no step {', '.join(unknown)}; there are {', '.join(names)}")
    chosen = [step for step in STEPS if not options.steps or step.name in options.steps]
    return run(joined(chosen))
