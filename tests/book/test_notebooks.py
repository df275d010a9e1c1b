"""The guards over the book's chapters, and for each guard a chapter that it must catch."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path

import guards
import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

import attnlib
from tools import canonical, listings, toc

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = sorted((ROOT / "chapters").glob("*.ipynb"))

CHECK = """try:
    import attnlib
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError("get attnlib") from missing"""


@pytest.mark.parametrize("guard", guards.GUARDS, ids=lambda guard: guard.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(path, guard):
    complaints = guard(guards.load(path))
    assert not complaints, "\n".join((f"{path.name}: {guard.__doc__}", *complaints))


def test_chapters_are_those_of_the_table_of_contents():
    """A forgotten chapter is not built, and Sphinx does not say so."""
    assert sorted(toc.paths()) == CHAPTERS


def test_chapters_begin_with_the_same_check():
    sources = {}
    for path in CHAPTERS:
        _, cell = next(guards.cells(guards.load(path), "code"))
        sources.setdefault(cell.source, []).append(path.name)
    assert len(sources) <= 1, f"the first code cell differs: {list(sources.values())}"


def test_each_public_name_is_listed_in_one_chapter():
    listed = {
        path.name: [
            name
            for cell in guards.load(path).notebook.cells
            for name in listings.listed_names(cell)
        ]
        for path in CHAPTERS
    }
    errors = listings.coverage_errors(listed)
    assert not errors, "\n".join(errors)


def test_a_name_listed_twice_or_nowhere_is_noticed():
    names = [name for name in attnlib.__all__ if name not in listings.NOT_LISTED]
    assert listings.coverage_errors({"a.ipynb": names}) == []
    [twice] = listings.coverage_errors({"a.ipynb": names, "b.ipynb": names[:1]})
    assert twice == f"{names[0]} is listed in b.ipynb and before in a.ipynb"
    [nowhere] = listings.coverage_errors({"a.ipynb": names[1:]})
    assert nowhere == f"{names[0]} is public, but no chapter lists it"


def test_names_that_are_not_listed_exist():
    """An exception outlives its reason unless it is looked at."""
    assert set(listings.NOT_LISTED) <= set(dir(attnlib))


# Proof that each guard catches what it is for: a chapter in order, and one change to it.


def good_notebook() -> NotebookNode:
    """Return a small chapter with which no guard finds fault."""
    file = io.BytesIO()
    Image.new("P", (2, 2)).save(file, "PNG")
    dots = base64.b64encode(file.getvalue()).decode()
    picture = new_output("display_data", data={"image/png": dots, "text/plain": "<Figure>"})
    error = new_output("error", ename="ValueError", evalue="no", traceback=["ValueError: no"])
    words = {"mystnb": {"image": {"alt": "Four bars of equal height."}}, "tags": ["hide-input"]}
    return new_notebook(
        metadata=canonical.METADATA,
        cells=[
            new_markdown_cell("# Title\n\nA [link](beside.md#part), `{code}`, $x_1$.\n\n$$y$$"),
            new_code_cell(CHECK, execution_count=1, metadata={"tags": ["remove-cell"]}),
            new_code_cell(
                "import numpy as np\n\nprint(np.ones(2))",
                execution_count=2,
                outputs=[new_output("stream", name="stdout", text="[1. 1.]\n")],
            ),
            new_code_cell("draw()", execution_count=3, metadata=words, outputs=[picture]),
            new_code_cell(
                'raise ValueError("no")',
                execution_count=4,
                metadata={"tags": ["raises-exception"]},
                outputs=[error],
            ),
        ],
    )


def as_chapter(folder: Path, notebook: NotebookNode) -> guards.Chapter:
    """Return the notebook as a chapter in a folder, beside the file that it links to."""
    (folder / "beside.md").write_text("# Part\n", encoding="utf-8")
    path = folder / "sample.ipynb"
    path.write_text(canonical.dumps(canonical.normalise(notebook, path.stem)), "utf-8")
    return guards.load(path)


@pytest.mark.parametrize("guard", guards.GUARDS, ids=lambda guard: guard.__name__)
def test_a_good_chapter_passes(tmp_path, guard):
    assert guard(as_chapter(tmp_path, good_notebook())) == []


def source(index: int, text: str) -> Callable[[NotebookNode], None]:
    """Return a change that gives a cell another source."""
    return lambda notebook: notebook.cells[index].__setitem__("source", text)


def prose(text: str) -> Callable[[NotebookNode], None]:
    """Return a change that adds a Markdown cell."""
    return lambda notebook: notebook.cells.append(new_markdown_cell(text))


def tag(index: int, *tags: str) -> Callable[[NotebookNode], None]:
    """Return a change that gives a cell other tags."""
    return lambda notebook: notebook.cells[index].metadata.__setitem__("tags", list(tags))


def printed(text: str, name: str = "stdout") -> Callable[[NotebookNode], None]:
    """Return a change that makes the third cell print something else."""
    return lambda notebook: notebook.cells[2].__setitem__(
        "outputs", [new_output("stream", name=name, text=text)]
    )


def field(index: int, key: str, value: object) -> Callable[[NotebookNode], None]:
    """Return a change of one field of a cell."""
    return lambda notebook: notebook.cells[index].__setitem__(key, value)


def twice_the_outputs(notebook: NotebookNode) -> None:
    """Show two images in one cell."""
    notebook.cells[3].outputs *= 2


def as_listing(text: str, *names: str) -> Callable[[NotebookNode], None]:
    """Return a change that makes the third cell a listing."""

    def change(notebook: NotebookNode) -> None:
        notebook.cells[2].source = text
        notebook.cells[2].metadata["attnlib"] = {"listing": list(names)}

    return change


AT_HOME = "/".join(("", "home", "me", "x.py"))  # spelt so that this file holds no such path

BAD = [
    (guards.executed_in_order, field(2, "execution_count", None), "expected 2"),
    (guards.errors_are_announced, tag(4), "not tagged raises-exception"),
    (guards.errors_are_announced, field(4, "outputs", []), "stores no error"),
    (
        guards.errors_are_announced,
        tag(4, "raises-exception", "nbval-ignore-output"),
        "must be compared",
    ),
    (guards.nothing_on_stderr, printed("UserWarning: x", "stderr"), "UserWarning: x"),
    (guards.outputs_are_stable, printed("<object at 0x7f12ab34cd56>"), "memory address"),
    (guards.outputs_are_stable, printed(f"File {AT_HOME}, line 1"), "path of this machine"),
    (guards.outputs_are_stable, printed("on 2026-01-31"), "date"),
    (guards.outputs_are_stable, printed("at 12:30:59"), "date or time"),
    (guards.outputs_are_stable, printed("took 1.25 ms"), "a timing: '5 ms'"),
    (guards.outputs_are_stable, printed("took 3s"), "a timing: '3s'"),
    (guards.outputs_are_stable, printed("85.3 tokens/s"), "a timing"),
    (guards.is_small, printed("x" * 1_000_000), "bytes, at most 1,000,000"),
    (guards.reads_well_everywhere, prose("```{note}\nx\n```"), "a directive: '```{'"),
    (guards.reads_well_everywhere, prose("::::{grid}\n::::"), "a directive"),
    (guards.reads_well_everywhere, prose(":::note\nx\n:::"), "a colon fence"),
    (guards.reads_well_everywhere, prose("see {ref}`there`"), "a role: '{ref}`'"),
    (guards.reads_well_everywhere, prose("$$x$$ (eq:x)"), "a label on a formula"),
    (guards.reads_well_everywhere, prose("(there)=\n## H"), "a link target"),
    (guards.reads_well_everywhere, prose("a\n% hidden"), "a comment"),
    (guards.reads_well_everywhere, prose("by {{ author }}"), "a substitution"),
    (guards.reads_well_everywhere, prose("\\begin{align}x\\end{align}"), "without dollars"),
    (guards.pictures_have_words, field(3, "metadata", {}), "mystnb.image.alt"),
    (guards.pictures_have_words, twice_the_outputs, "2 images share"),
    (guards.cells_are_short, source(2, "x = 1\n" * 16), "16 lines, at most 15"),
    (guards.imports_are_everywhere, source(2, "import pandas as pd"), "imports pandas"),
    (guards.imports_are_everywhere, source(2, "from scipy.stats import t"), "scipy.stats"),
    (guards.links_lead_somewhere, prose("[x](gone.ipynb#a)"), "link to gone.ipynb#a"),
    (guards.links_lead_somewhere, prose('<a href="gone.md">x</a>'), "link to gone.md"),
    (guards.begins_with_title, source(0, "## Title"), "found []"),
    (guards.begins_with_title, prose("# Another"), "'# Another'"),
    (guards.begins_with_check, source(1, "import torch"), "must look for attnlib"),
    (guards.every_cell_counts, tag(2, "nbval-skip"), "tag 'nbval-skip'"),
    (guards.every_cell_counts, tag(2, "skip-execution"), "tag 'skip-execution'"),
    (guards.every_cell_counts, tag(2, "hide_input"), "tag 'hide_input'"),
    (guards.every_cell_counts, source(2, "# NBVAL_SKIP\nf()"), "by a comment"),
    (guards.listings_are_true, as_listing("x = 1", "attention"), "differs from attnlib"),
    (guards.listings_are_true, as_listing("x = 1", "no_such"), "no function or class"),
]


@pytest.mark.parametrize(("guard", "change", "message"), BAD)
def test_a_bad_chapter_is_caught(tmp_path, guard, change, message):
    notebook = good_notebook()
    change(notebook)
    complaints = guard(as_chapter(tmp_path, notebook))
    assert any(message in complaint for complaint in complaints), complaints


def test_a_file_that_is_not_normal_is_caught(tmp_path):
    chapter = as_chapter(tmp_path, good_notebook())
    chapter.notebook.metadata["authors"] = ["me"]
    changed = chapter._replace(text=nbformat.writes(chapter.notebook) + "\n")
    assert guards.is_normal(changed) == ["not in canonical form: `make normalise`"]


def test_every_guard_is_proven():
    proven = {guard for guard, _, _ in BAD} | {guards.is_normal}
    assert proven == set(guards.GUARDS)


def test_a_timing_may_stand_where_outputs_are_ignored(tmp_path):
    notebook = good_notebook()
    printed("took 1.25 ms")(notebook)
    tag(2, "nbval-ignore-output")(notebook)
    assert guards.outputs_are_stable(as_chapter(tmp_path, notebook)) == []


def test_packed_numbers_may_look_like_a_timing(tmp_path):
    notebook = good_notebook()
    printed('"f16:AB2s+/QmpA"')(notebook)
    assert guards.outputs_are_stable(as_chapter(tmp_path, notebook)) == []


@pytest.mark.parametrize("text", ["B 2 s", "S = 512", "0.125 scale", "16 tokens", "1s^2"])
def test_a_number_is_not_taken_for_a_timing(text):
    assert (guards.TIMING.search(text) is not None) == (text == "B 2 s")
