"""Where the book has widgets, and what their chapters compute when they run again."""

from __future__ import annotations

import contextlib
import io
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import guards
from visits import PAGES

from tools import ROOT

CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))
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


@cache
def run_chapter(stem: str) -> tuple[list, dict]:
    """Run a chapter's code up to its last widget; return its widgets and its variables."""
    import torch
    from IPython.core.interactiveshell import InteractiveShell

    from attnlib.book.widgets import Widget

    shell = InteractiveShell()
    torch.set_default_dtype(torch.float32)  # a chapter that ran before may have left another
    widgets: list[Widget] = []
    wanted = len(WIDGETS[stem])
    notebook = guards.load(ROOT / "chapters" / f"{stem}.ipynb")
    shell.run_cell("import matplotlib; matplotlib.use('agg')")
    for name, cell in guards.cells(notebook, "code"):
        if len(widgets) == wanted:
            break
        with contextlib.redirect_stdout(io.StringIO()):
            result = shell.run_cell(cell.source)
        if "raises-exception" not in guards.tags(cell):
            assert result.success, f"{stem}, {name}: {result.error_in_exec}"
        if isinstance(result.result, Widget):
            widgets.append(result.result)
    torch.set_default_dtype(torch.float32)
    assert len(widgets) == wanted, f"{stem} shows {wanted} widgets, made {len(widgets)}"
    return widgets, shell.user_ns


def act(element, way: str, key: str = "Enter") -> None:
    """Press a button or choose a radio button by mouse, by keys or by touch."""
    if way == "keys":
        element.focus()
        element.press(key)
    else:
        (element.tap if way == "touch" else element.click)()
