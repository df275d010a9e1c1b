"""Execute the chapters and store them in canonical form.

    python -m tools notebooks                     every chapter
    python -m tools notebooks chapters/scaling.*  these only
    python -m tools notebooks --retime            store new timings in any case

Cells tagged ``nbval-ignore-output`` print timings, which differ at every run. A chapter in
which nothing else changed keeps the timings it has.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from tools import arguments
from tools.canonical import canonical_text, dumps, normalise, write_if_changed
from tools.kernel import CELL_TIMEOUT_S, client, without_colours

SLOW_CHAPTER_S = 60


class ChapterError(Exception):
    """A chapter that did not run; the message names the chapter, the cell and the error."""


def execute(path: Path) -> tuple[str, float]:
    """Run one chapter in a fresh kernel; return its canonical text and the seconds it took.

    Raises:
        ChapterError: if a cell fails, takes too long or kills the kernel.
    """
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    try:
        client(notebook, path.parent).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise ChapterError(describe_failure(path, notebook, error)) from None
    return dumps(normalise(notebook, path.stem)), time.perf_counter() - start


def describe_failure(path: Path, notebook: NotebookNode, error: Exception) -> str:
    """Return chapter, number and source of the failing cell, and the error."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    failing = next((c for c in code if any(o.output_type == "error" for o in c.outputs)), None)
    if failing is not None:
        output = next(o for o in failing.outputs if o.output_type == "error")
        reason = without_colours("\n".join(output.traceback))
    else:  # a dead kernel leaves no error output
        ran = [cell for cell in code if cell.execution_count is not None]
        failing = code[min(len(ran), len(code) - 1)]
        reason = f"{type(error).__name__}: {error}"
    if isinstance(error, CellTimeoutError):
        reason = f"stopped after {CELL_TIMEOUT_S} s"
    return f"{path.name}, code cell {code.index(failing) + 1}:\n\n{failing.source}\n\n{reason}"


def pictures(text: str) -> int:
    """Return how many pictures a notebook's text stores."""
    cells = nbformat.reads(text, as_version=4).cells
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def equal_except_timings(old: str, new: str) -> bool:
    """Whether two notebook texts differ only in outputs that nbval ignores."""

    def without(text: str) -> NotebookNode:
        notebook = nbformat.reads(text, as_version=4)
        for cell in notebook.cells:
            if "nbval-ignore-output" in cell.metadata.get("tags", []) and cell.outputs:
                cell.outputs = ["stored"]
        return notebook

    return without(old) == without(new)


def execute_all(
    paths: list[Path], jobs: int, *, retime: bool, fewer_pictures: bool = False
) -> bool:
    """Execute chapters in parallel, write each that changed; return whether all ran."""
    failures = []
    with ProcessPoolExecutor(max_workers=jobs) as pool:
        running = {pool.submit(execute, path): path for path in paths}
        for done, future in enumerate(as_completed(running), start=1):
            path = running[future]
            label = f"[{done}/{len(paths)}] {path.name}"
            try:
                text, seconds = future.result()
            except ChapterError as error:
                failures.append(str(error))
                print(f"{label}: FAILED", flush=True)
                continue
            old = path.read_text(encoding="utf-8")
            lost = pictures(old) - pictures(text)
            if lost > 0 and not fewer_pictures:
                failures.append(
                    f"{path.name}: {pictures(text)} pictures, {lost} fewer than stored; if that"
                    " is meant, add --fewer-pictures"
                )
                print(f"{label}: FAILED", flush=True)
                continue
            if not retime and equal_except_timings(old, text):
                text = canonical_text(old, path.stem)
            note = "changed" if write_if_changed(path, text) else "unchanged"
            slow = f", over the limit of {SLOW_CHAPTER_S} s" * (seconds > SLOW_CHAPTER_S)
            print(f"{label}: {seconds:.1f} s, {note}{slow}", flush=True)
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    if failures:
        print(
            f"\n{len(failures)} of {len(paths)} chapters failed and were not changed:"
            " correct the cell named above, then run this again.",
            file=sys.stderr,
        )
    return not failures


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    arguments.add_chapters(parser)
    parser.add_argument("--retime", action="store_true", help="store new timings in any case")
    parser.add_argument(
        "--fewer-pictures", action="store_true", help="a chapter may lose a picture"
    )
    parser.add_argument("--jobs", type=int, default=2, help="chapters at a time (default: 2)")
    options = parser.parse_args(argv)
    paths = options.chapters
    ran = execute_all(
        paths, options.jobs, retime=options.retime, fewer_pictures=options.fewer_pictures
    )
    return 0 if ran else 1
