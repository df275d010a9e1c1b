"""Run the worked solutions of the exercises, and keep what they print.

    python -m tools solutions                     run them all, store what they print
    python -m tools solutions chapters/scaling.*  those of these chapters only
    python -m tools solutions --build             write them as notebooks for nbval

A solution stands in the Markdown of a chapter, so that it is folded away wherever the chapter
is read. Each of its blocks of Python is followed by a block of text with what it prints. Here
the blocks of a chapter become the cells of a notebook, and the text their stored outputs. For
nbval, which runs them and compares, chapters share a notebook, since a kernel takes seconds to
start; each chapter begins without a variable of the one before.
"""

from __future__ import annotations

import ast
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools import BUILD, arguments
from tools.canonical import METADATA, dumps, normalise, write_if_changed
from tools.kernel import client, without_colours

SOLUTIONS = BUILD / "solutions"
N_NOTEBOOKS = 2  # one for each process of nbval
FORGET = "%reset -f"  # deletes all variables

SOLUTION = re.compile(r'<details class="solution">.*?</details>', re.DOTALL)
BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```$(?P<printed>\n\n^```text\n(?P<text>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


class Block(NamedTuple):
    """A block of Python in a solution, and what stands below it.

    Attributes:
        code: the Python.
        text: what it printed when it last ran; ``None`` if no block of text follows.
    """

    code: str
    text: str | None


class SolutionError(Exception):
    """A solution that does not run or is not told right; the message says where."""


def blocks(source: str) -> Iterator[Block]:
    """Yield the blocks of Python of all solutions in a Markdown cell."""
    for solution in SOLUTION.findall(source):
        for found in BLOCK.finditer(solution):
            yield Block(found["code"].rstrip("\n"), found["text"])


def ends_in_value(code: str) -> bool:
    """Whether a cell ends in an expression whose value a notebook would show."""
    last = ast.parse(code).body[-1]
    if not isinstance(last, ast.Expr):
        return False
    call = last.value
    return not (isinstance(call, ast.Call) and getattr(call.func, "id", "") == "print")


def as_notebook(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook whose cells are the blocks of a chapter's solutions."""
    cells = []
    for cell in notebook.cells:
        for block in blocks(cell.source) if cell.cell_type == "markdown" else ():
            count, outputs = len(cells) + 1, []
            if block.text is not None and ends_in_value(block.code):
                data = {"text/plain": block.text.rstrip("\n")}
                outputs = [new_output("execute_result", data=data, execution_count=count)]
            elif block.text is not None:
                outputs = [new_output("stream", name="stdout", text=block.text)]
            cells.append(new_code_cell(block.code, execution_count=count, outputs=outputs))
    return new_notebook(metadata=METADATA, cells=cells)


def run(path: Path, notebook: NotebookNode) -> list[str]:
    """Run the solutions of a chapter in one fresh kernel; return what each block prints.

    Raises:
        SolutionError: if a block raises, or prints and ends in a value as well.
    """
    try:
        client(notebook, path.parent).execute()
    except CellExecutionError as error:
        raise SolutionError(f"{path.name}: {without_colours(str(error))}") from None
    texts = []
    for cell in notebook.cells:
        kinds = {output.output_type for output in cell.outputs}
        if len(kinds) > 1:
            raise SolutionError(
                f"{path.name}: a block must either print or end in a value, not both:\n"
                f"{cell.source}"
            )
        shown = (output.get("text") or output.data["text/plain"] for output in cell.outputs)
        texts.append("".join(shown).rstrip("\n"))
    return texts


def with_texts(source: str, texts: Iterator[str]) -> str:
    """Return a Markdown cell with what each block of its solutions prints below it."""

    def renewed(found: re.Match[str]) -> str:
        text = next(texts)
        printed = f"\n\n```text\n{text}\n```" if text else ""
        return f"```python\n{found['code']}```{printed}"

    return SOLUTION.sub(lambda solution: BLOCK.sub(renewed, solution[0]), source)


def write(path: Path) -> bool:
    """Run a chapter's solutions and store what they print; return whether that changed."""
    chapter = nbformat.read(path, as_version=4)
    solved = as_notebook(chapter)
    if not solved.cells:
        return False
    texts = iter(run(path, solved))
    for cell in chapter.cells:
        if cell.cell_type == "markdown":
            cell.source = with_texts(cell.source, texts)
    return write_if_changed(path, dumps(normalise(chapter, path.stem)))


def build(paths: list[Path], folder: Path = SOLUTIONS) -> int:
    """Write all solutions into a few notebooks, for nbval; return of how many chapters."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    solved = [as_notebook(nbformat.read(path, as_version=4)).cells for path in paths]
    solved = [cells for cells in solved if cells]
    for number in range(N_NOTEBOOKS):
        shared = []
        for cells in solved[number::N_NOTEBOOKS]:
            shared += [new_code_cell(FORGET, execution_count=1), *cells]  # renumbered below
        notebook = normalise(new_notebook(cells=shared), f"solutions-{number}")
        (folder / f"{number}.ipynb").write_text(dumps(notebook), encoding="utf-8")
    return len(solved)


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    arguments.add_chapters(parser)
    parser.add_argument("--build", action="store_true", help="write notebooks for nbval")
    options = parser.parse_args(argv)
    paths = options.chapters
    if options.build:
        print(f"solutions of {build(paths)} chapters")
        return 0
    failures = []
    for path in paths:
        try:
            print(f"{path.name}: {'changed' if write(path) else 'unchanged'}", flush=True)
        except SolutionError as error:
            failures.append(str(error))
    print(*failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0
