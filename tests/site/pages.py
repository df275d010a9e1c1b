"""Where the book has widgets, and what their chapters compute when they run again."""

from __future__ import annotations

import ast
import contextlib
import io
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import guards
from nbformat import NotebookNode
from visits import PAGES

from tools import ROOT

CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
TRAINED = {"what-heads-learn", "conversion-lab", "real-model"}  # they train or load a model
STORED = re.compile(r'<div class="attnlib-widget"[^>]* data-widget="(\w+)">')


class Place(NamedTuple):
    """Where a widget is: the chapter, and which of the chapter's widgets it is."""

    chapter: str
    index: int


def stored_widgets(chapter: Path) -> list[str]:
    """Return the names of the widgets that a chapter stores, in order."""
    return [
        name
        for _, cell in guards.cells(guards.load(chapter), "code")
        for text in guards.output_texts(cell)
        for name in STORED.findall(text)
    ]


WIDGETS = {path.stem: stored_widgets(path) for path in CHAPTERS}
ALIVE = [name for name in PAGES if WIDGETS.get(Path(name).stem)]  # pages with widgets


def places(name: str) -> list[Place]:
    """Return where the book has widgets of a name, for ``pytest.mark.parametrize``."""
    return [
        Place(chapter, index)
        for chapter, widgets in WIDGETS.items()
        for index, found in enumerate(widgets)
        if found == name
    ]


class Run:
    """A chapter that is run cell by cell, as far as its widgets are asked for.

    What measures this machine is left out, with what uses it: no widget shows that.
    """

    def __init__(self, stem: str):
        from IPython.core.interactiveshell import InteractiveShell

        self.stem, self.widgets, self.measured = stem, [], set()
        self.shell = InteractiveShell()
        self.shell.run_cell("import matplotlib; matplotlib.use('agg')")
        notebook = guards.load(ROOT / "chapters" / f"{stem}.ipynb")
        self.cells = iter(list(guards.cells(notebook, "code")))

    def variables(self) -> dict:
        """Return the variables that the cells run so far have set."""
        return self.shell.user_ns

    def widget(self, index: int):
        """Return one of the chapter's widgets; run the cells up to it if they have not run."""
        import torch

        torch.set_default_dtype(torch.float32)  # another chapter may have left another one
        while len(self.widgets) <= index:
            name, cell = next(self.cells, (None, None))
            assert cell, (
                f"{self.stem} shows {index + 1} widgets or more, made {len(self.widgets)}"
            )
            self.run(name, cell)
        torch.set_default_dtype(torch.float32)
        return self.widgets[index]

    def run(self, name: str, cell: NotebookNode) -> None:
        """Run a cell unless it measures something; keep the widget that it shows."""
        from attnlib.book.widgets import Widget

        read, written = names_in(cell.source)
        if "nbval-ignore-output" in guards.tags(cell) or read & self.measured:
            self.measured |= written
            return
        self.measured -= written
        with contextlib.redirect_stdout(io.StringIO()):
            result = self.shell.run_cell(cell.source)
        if "raises-exception" not in guards.tags(cell):
            assert result.success, f"{self.stem}, {name}: {result.error_in_exec}"
        if isinstance(result.result, Widget):
            self.widgets.append(result.result)


@cache
def run(stem: str) -> Run:
    """Return the one run of a chapter in this process."""
    return Run(stem)


def names_in(source: str) -> tuple[set[str], set[str]]:
    """Return the names that a cell reads, and those that it binds at its top."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a magic command
        return set(), set()
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    read = {name.id for name in names if isinstance(name.ctx, ast.Load)}
    written = {name.id for name in names if isinstance(name.ctx, ast.Store)}
    return read - written, written | defined


def act(element, way: str, key: str = "Enter") -> None:
    """Press a button or choose a radio button by mouse, by keys or by touch."""
    if way == "keys":
        element.focus()
        element.press(key)
    else:
        (element.tap if way == "touch" else element.click)()
