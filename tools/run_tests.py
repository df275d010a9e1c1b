"""Run everything that has to hold, one step after another; stop at the first that fails.

python tools/run_tests.py               all steps
python tools/run_tests.py lint nbval    these only
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from notebooks import KERNEL_ENV

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable


class Step(NamedTuple):
    """Commands that prove one thing, with what to do if one of them fails."""

    name: str
    what: str
    commands: tuple[tuple[str, ...], ...]
    remedy: str


def tool(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command that runs one of the tools beside this file."""
    return (PYTHON, f"tools/{name}.py", *arguments)


def ruff(*arguments: str) -> tuple[str, ...]:
    """Return a command of ruff."""
    return (PYTHON, "-m", "ruff", *arguments)


def pytest(*arguments: str) -> tuple[str, ...]:
    """Return a command of pytest."""
    return (PYTHON, "-m", "pytest", "-q", *arguments)


def schema(name: str, *files: str) -> tuple[str, ...]:
    """Return the command that holds files to a schema which check-jsonschema brings along."""
    return (PYTHON, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{name}", *files)


GUARD_FILES = (
    "test_notebooks.py",
    "test_instructors.py",
    "test_api.py",
    "test_glossary.py",
    "test_learning.py",
    "test_links.py",
    "test_names.py",
    "test_numbers.py",
    "test_repository.py",
    "test_publish.py",
    "test_spelling.py",
    "test_tools.py",
    "test_workflows.py",
)

WORKFLOWS = tuple(
    str(path.relative_to(ROOT)) for path in sorted(ROOT.glob(".github/workflows/*.yml"))
)

# Also what `make lint` runs. Nothing here asks a network.
LINT = (
    ruff("check", "."),
    (PYTHON, "-m", "codespell_lib"),
    (str(Path(PYTHON).with_name("zizmor")), "--offline", "--quiet", "--no-progress", ".github"),
    schema("github-workflows", *WORKFLOWS),
    schema("dependabot", ".github/dependabot.yml"),
)

STEPS = (
    Step(
        "chromium",
        "a browser for the last step",
        (tool("browser"),),
        "any of the ways above provides one.",
    ),
    Step(
        "lint",
        "ruff on code and notebooks, spelling everywhere, workflows",
        LINT,
        "`make format` corrects what can be corrected by itself; the rest is named above.",
    ),
    Step(
        "format",
        "ruff's formatting of Python files",
        (ruff("format", "--check", "."),),
        "`make format` formats them.",
    ),
    Step(
        "listings",
        "listing cells, notation and names show the library's own source",
        (tool("listings", "--check"), tool("notation", "--check")),
        "`make listings`, then `make notebooks`.",
    ),
    Step(
        "pictures",
        "the front page's pictures are drawn by today's code",
        (tool("pictures", "--check"),),
        "`make pictures`.",
    ),
    Step(
        "normal",
        "chapters are in normal form",
        (tool("notebooks", "--check"),),
        "`make notebooks` executes and normalises, `make normalise` only normalises.",
    ),
    Step(
        "guards",
        "what nbval cannot see in a notebook, and the repository itself",
        (pytest(*(f"tests/{name}" for name in GUARD_FILES)),),
        "each failure names the file, the cell and the rule.",
    ),
    Step(
        "unit",
        "unit tests of attnlib",
        (pytest("tests/unit", "-n2"),),
        "one file: .venv/bin/python -m pytest tests/unit/FILE",
    ),
    Step(
        "nbval",
        "every chapter and every solution runs again and gives the outputs it shows",
        (
            tool("solutions", "--build"),
            pytest(
                "--nbval",
                "--nbval-current-env",
                "--nbval-sanitize-with=tests/nbval_sanitize.cfg",
                "-n2",
                "--dist=loadscope",
                "chapters",
                "_build/solutions",
            ),
        ),
        "if the new outputs are right, `make notebooks` stores them; if not, it is a bug.",
    ),
    Step(
        "editions",
        "students' notebooks hold no solution and run, slides ask no network",
        (pytest("tests/test_editions.py"),),
        "`make editions` writes them to _build/editions, to look at.",
    ),
    Step(
        "site",
        "the book builds from nothing without a warning",
        (tool("build_site", "--fresh"),),
        "the warnings above name file and line.",
    ),
    Step(
        "browser",
        "every page in Chromium, over http and from disk, with no other address",
        (pytest("tests/test_site.py"),),
        "`make book` serves the page that fails; tests/test_site.py says what it looks for.",
    ),
    Step(
        "axe",
        "axe finds nothing on any page; focus shows, nothing moves, paper is white",
        (pytest("tests/test_axe.py", "tests/test_look.py", "-n2"),),
        "each line names the state of the page, the rule of axe and the element.",
    ),
    Step(
        "widgets",
        "every widget on its page, driven by mouse, keys and touch, against attnlib",
        (pytest("tests/widgets", "-n2", "--dist=loadfile"),),
        "`make book` serves the page; one file: .venv/bin/python -m pytest tests/widgets/FILE",
    ),
    Step(
        "lab",
        "widgets in a JupyterLab of their own, in step with Python",
        (pytest("tests/test_lab.py"),),
        "`make lab` opens the chapters; the output above ends with what page and server say.",
    ),
)


def run(steps: list[Step]) -> int:
    """Run the steps in turn; return the exit status of the first that fails, or 0."""
    environment = os.environ | KERNEL_ENV
    begin = time.perf_counter()
    times = []
    for number, step in enumerate(steps, start=1):
        print(f"\n== [{number}/{len(steps)}] {step.name}: {step.what}", flush=True)
        start = time.perf_counter()
        status = run_step(step, environment)
        times.append(f"{step.name} {time.perf_counter() - start:.0f} s")
        if status != 0:
            print(f"\n== FAILED in {step.name}: {step.remedy}")
            print(f"   only this step: make test STEPS={step.name}")
            print(f"steps: {number - 1} passed, 1 failed", flush=True)
            return status
    print(f"\n== {', '.join(times)}; together {time.perf_counter() - begin:.0f} s")
    print(f"steps: {len(steps)} passed, 0 failed", flush=True)
    return 0


def run_step(step: Step, environment: dict[str, str]) -> int:
    """Run a step's commands; return the exit status of the first that fails, or 0."""
    for command in step.commands:
        status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if status != 0:
            return status
    return 0


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit status."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("steps", nargs="*", metavar="STEP", help=", ".join(names))
    options = parser.parse_args(argv)
    unknown = set(options.steps) - set(names)
    if unknown:
        parser.error(f"no step {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return run([step for step in STEPS if not options.steps or step.name in options.steps])


if __name__ == "__main__":
    sys.exit(main())
