"""Execute the chapters and bring them to normal form.

    python tools/notebooks.py                      execute and normalise every chapter
    python tools/notebooks.py chapters/02-*.ipynb  these only
    python tools/notebooks.py --retime             store new timings in any case
    python tools/notebooks.py --normalise-only     no execution
    python tools/notebooks.py --check              no execution, no writing: fail if not normal

Normal form is what git stores: a second run changes no byte, so a diff shows what changed.
Cells tagged ``nbval-ignore-output`` hold timings, which differ at every run: a chapter in which
nothing else changed keeps the ones it has. Pictures become palette PNGs, a third of the size.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import os
import re
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"

# What a kernel sees, here and under nbval (conftest.py): one thread, so that sums are added in
# one order and two kernels share two cores; the kernel of this environment, not the user's.
KERNEL_ENV = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",
    "JUPYTER_PREFER_ENV_PATH": "1",
}

# A chapter says where it runs and nothing of the machine it ran on. `accelerator` and `colab`
# are what Colab reads: ask for a GPU, keep no link to a user's drive.
METADATA = {
    "accelerator": "GPU",
    "colab": {"provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT_CELL_METADATA = ("attnlib", "mystnb", "tags")
COLOUR = re.compile(r"\x1b\[[\d;]*m")  # a terminal's, in tracebacks
PNG = "image/png"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_CODE = re.compile(r'<(style|script) data-attnlib="(\w+)">.*?</\1>', re.DOTALL)

CELL_TIMEOUT_S = 300
SLOW_CHAPTER_S = 60


class ChapterError(Exception):
    """A chapter that did not run: its name, the cell and the error, in that order."""


def normalise(notebook: NotebookNode, chapter: str) -> NotebookNode:
    """Return the chapter in normal form; the notebook given is left as it was.

    Args:
        notebook: a notebook in format 4.
        chapter: its name without suffix, part of the cell ids.
    """
    result = nbformat.v4.new_notebook(metadata=METADATA)
    seen: Counter[tuple[str, str]] = Counter()
    count = 0
    for cell in notebook.cells:
        source = cell.source.rstrip()
        if not source:
            continue
        occurrence = seen[cell.cell_type, source]
        seen[cell.cell_type, source] += 1
        cell_id = cell_id_of(chapter, cell.cell_type, source, occurrence)
        metadata = normal_metadata(cell)
        if cell.cell_type == "code":
            executed = cell.execution_count is not None
            count += executed
            number = count if executed else None
            new = nbformat.v4.new_code_cell(
                source,
                id=cell_id,
                metadata=metadata,
                execution_count=number,
                outputs=normal_outputs(cell.outputs, number),
            )
        else:
            make = getattr(nbformat.v4, f"new_{cell.cell_type}_cell")
            new = make(source, id=cell_id, metadata=metadata)
            if cell.get("attachments"):
                new.attachments = cell.attachments
        result.cells.append(new)
    result.nbformat_minor = 5
    return result


def cell_id_of(chapter: str, cell_type: str, source: str, occurrence: int) -> str:
    """Return an id that depends on nothing but what the cell says and where it says it."""
    text = "\0".join((chapter, cell_type, source, str(occurrence)))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def normal_metadata(cell: NotebookNode) -> dict:
    """Return the metadata that chapters use; timings, scroll states and the like are dropped.

    The tag ``hide-input`` folds the input away in the book. JupyterLab and Colab each have a
    word of their own for that, which follows the tag.
    """
    kept = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
    if cell.cell_type == "code" and "hide-input" in kept.get("tags", []):
        kept["jupyter"] = {"source_hidden": True}
        kept["cellView"] = "form"
    return kept


def normal_outputs(outputs: list[NotebookNode], number: int | None) -> list[NotebookNode]:
    """Return outputs without what changes from run to run.

    Neighbouring pieces of one stream are joined, a traceback is cut to its last line (its
    frames hold paths), and a widget's view, whose id is random, gives way to its HTML, with
    the code that attnlib has today. Pictures are stored small.
    """
    result: list[NotebookNode] = []
    for output in outputs:
        new = nbformat.from_dict(output)
        if new.output_type == "stream":
            if result and result[-1].get("name") == new.name:
                result[-1].text += new.text
                continue
        elif new.output_type == "error":
            new.traceback = [f"{new.ename}: {new.evalue}"]
        else:
            new.pop("transient", None)
            if "text/html" in new.data:
                new.data.pop(WIDGET_VIEW, None)
                new.data["text/html"] = WIDGET_CODE.sub(todays_code, new.data["text/html"])
            if PNG in new.data:
                picture = small_png(base64.b64decode(new.data[PNG]))
                new.data[PNG] = base64.b64encode(picture).decode("ascii")
            if new.output_type == "execute_result":
                new.execution_count = number
        result.append(new)
    return result


def todays_code(element: re.Match) -> str:
    """Return attnlib's own code for a style or script element of a widget's stored HTML."""
    from attnlib.book.widgets import base  # only where a chapter has a widget

    make = {"style": base.style_element, "script": base.script_element}[element[1]]
    return make(element[2])


def small_png(picture: bytes) -> bytes:
    """Return a PNG with a palette of 256 colours, which no eye tells from the one given.

    A figure has few colours and their shades at the edges of its letters. Without dithering
    flat areas stay flat. One that has a palette, is translucent or gains nothing is returned
    as it is, so that what this returns is left alone when it comes again.

    Args:
        picture: the bytes of a PNG file.

    Returns:
        The bytes of the smaller of the two files.
    """
    with Image.open(io.BytesIO(picture)) as image:
        opaque = image.convert("RGB")
        translucent = "A" in image.mode and image.getchannel("A").getextrema()[0] < 255
        if image.mode == "P" or translucent:
            return picture
        dpi = {"dpi": image.info["dpi"]} if "dpi" in image.info else {}
    few = opaque.quantize(
        256, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE
    )
    file = io.BytesIO()
    few.save(file, "PNG", optimize=True, **dpi)
    return min(picture, file.getvalue(), key=len)


def dumps(notebook: NotebookNode) -> str:
    """Return the text of a notebook file: sorted keys, indent 1, one newline at the end."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def normal_text(text: str, chapter: str) -> str:
    """Return the text of a notebook file in normal form."""
    return dumps(normalise(nbformat.reads(text, as_version=4), chapter))


def execute(path: Path) -> tuple[str, float]:
    """Run one chapter in a fresh kernel; return its text in normal form and its seconds."""
    os.environ.update(KERNEL_ENV)
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=CELL_TIMEOUT_S,
        record_timing=False,
        store_widget_state=False,
        extra_arguments=["--log-level=ERROR"],  # a warning about TCP at every start
        resources={"metadata": {"path": str(path.resolve().parent)}},
    )
    start = time.perf_counter()
    try:
        client.execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise ChapterError(describe_failure(path, notebook, error)) from None
    return dumps(normalise(notebook, path.stem)), time.perf_counter() - start


def describe_failure(path: Path, notebook: NotebookNode, error: Exception) -> str:
    """Return chapter, number and source of the failing cell, and the error."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    failing = next((c for c in code if any(o.output_type == "error" for o in c.outputs)), None)
    if failing is not None:
        output = next(o for o in failing.outputs if o.output_type == "error")
        reason = COLOUR.sub("", "\n".join(output.traceback))
    else:  # a dead kernel leaves no error output
        ran = [cell for cell in code if cell.execution_count is not None]
        failing = code[min(len(ran), len(code) - 1)]
        reason = f"{type(error).__name__}: {error}"
    if isinstance(error, CellTimeoutError):
        reason = f"stopped after {CELL_TIMEOUT_S} s"
    return f"{path.name}, code cell {code.index(failing) + 1}:\n\n{failing.source}\n\n{reason}"


def same_but_for_timings(old: str, new: str) -> bool:
    """Whether two notebook texts differ in nothing but outputs that nbval ignores."""

    def without(text: str) -> NotebookNode:
        notebook = nbformat.reads(text, as_version=4)
        for cell in notebook.cells:
            if "nbval-ignore-output" in cell.metadata.get("tags", []) and cell.outputs:
                cell.outputs = ["stored"]
        return notebook

    return without(old) == without(new)


def execute_all(paths: list[Path], jobs: int, *, retime: bool) -> bool:
    """Execute chapters side by side, write each that changed; return whether all ran."""
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
            if not retime and same_but_for_timings(old, text):
                text = normal_text(old, path.stem)
            note = "changed" if write_if_changed(path, text) else "unchanged"
            slow = f", over the {SLOW_CHAPTER_S} s of a chapter" * (seconds > SLOW_CHAPTER_S)
            print(f"{label}: {seconds:.1f} s, {note}{slow}", flush=True)
    for failure in failures:
        print(f"\n{failure}", file=sys.stderr)
    if failures:
        print(
            f"\n{len(failures)} of {len(paths)} chapters failed and were left as they were:"
            " correct the cell named above, then run this again.",
            file=sys.stderr,
        )
    return not failures


def write_if_changed(path: Path, text: str) -> bool:
    """Write the file if its text differs; return whether it did."""
    if path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8", newline="\n")
    return True


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="*", type=Path, help="chapters (default: all)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="only say what is not normal")
    mode.add_argument("--normalise-only", action="store_true", help="do not execute")
    mode.add_argument("--retime", action="store_true", help="store new timings in any case")
    parser.add_argument("--jobs", type=int, default=2, help="chapters at a time (default: 2)")
    options = parser.parse_args(argv)
    options.paths = options.paths or sorted(CHAPTERS.glob("*.ipynb"))
    for path in options.paths:
        try:
            nbformat.read(path, as_version=4)
        except FileNotFoundError:
            parser.error(f"{path} is not there")
        except nbformat.reader.NotJSONError:
            parser.error(f"{path} is no notebook; a merge conflict in it, perhaps?")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit status."""
    options = parse_arguments(argv)
    paths = options.paths
    if not (options.check or options.normalise_only):
        return 0 if execute_all(paths, options.jobs, retime=options.retime) else 1
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    changed = [p for p, text in texts.items() if normal_text(text, p.stem) != text]
    for path in changed:
        print(f"{path.name}: {'not in normal form' if options.check else 'normalised'}")
        if options.normalise_only:
            write_if_changed(path, normal_text(texts[path], path.stem))
    if options.check and changed:
        print("`make normalise` brings them to normal form.", file=sys.stderr)
        return 1
    print(f"{len(paths)} chapters in normal form")
    return 0


if __name__ == "__main__":
    sys.exit(main())
