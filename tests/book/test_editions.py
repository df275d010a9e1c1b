"""Editions: students find no solution in theirs, and it runs; tests/site opens the slides."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import CHAPTERS, editions
from tools.details import DETAILS, details

PATHS = sorted(CHAPTERS.glob("*.ipynb"))
GRADED = "not solved yet"
SHORTEST = 20  # characters; a shorter line could be in the public text by chance


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    """All editions of all chapters."""
    folder = tmp_path_factory.mktemp("editions") / "all"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BOOK_REPOSITORY", raising=False)
        editions.build(PATHS, folder)
    return folder


def flat(text: str) -> str:
    """Return a text with single spaces for all white space."""
    return " ".join(text.split())


def secrets(chapter: NotebookNode) -> set[str]:
    """Return the lines and sentences that a chapter has only in what it folds away.

    Summaries are public: those of recall are questions, and options are there to choose from.
    """
    sources = [cell.source for cell in chapter.cells]
    public = flat(" ".join(DETAILS.sub(lambda d: f" {d['summary']} ", s) for s in sources))
    pieces: set[str] = set()
    for source in sources:
        for one in details(source):
            lines = re.split(r"\n|(?<=[.?!:]) ", one.text)
            pieces |= {flat(line) for line in lines}
    return {piece for piece in pieces if len(piece) >= SHORTEST and piece not in public}


def leaked(notebook: NotebookNode, hidden: set[str]) -> list[str]:
    """Return what a notebook shows of the hidden text, in a cell or in an output."""
    texts = [cell.source for cell in notebook.cells]
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            texts += [output.get("text", ""), output.get("data", {}).get("text/plain", "")]
    everything = flat(" ".join(texts))
    return sorted(piece for piece in hidden if piece in everything)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_no_text_of_a_solution_or_a_verdict_survives(path, built):
    chapter = nbformat.read(path, as_version=4)
    hidden = secrets(chapter)
    edition = nbformat.read(built / "student" / path.name, as_version=4)
    assert leaked(edition, hidden) == []
    source = "\n".join(cell.source for cell in edition.cells if cell.cell_type == "markdown")
    assert "<details" not in source
    assert "<!--" not in source, "the comment with a checked number is next to the right option"
    # The same search finds a great deal in the chapter itself.
    folded = sum(len(details(cell.source)) for cell in chapter.cells)
    assert len(leaked(chapter, hidden)) == len(hidden) >= folded


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_code_is_the_chapters(path, built):
    """So nbval, which runs the chapter, also runs this, except for the reader's own code."""
    chapter = nbformat.read(path, as_version=4)
    edition = nbformat.read(built / "student" / path.name, as_version=4)

    def code(notebook: NotebookNode) -> list[str]:
        return [cell.source for cell in notebook.cells if cell.cell_type == "code"]

    assert code(edition) == code(chapter)
    assert not any(cell.get("outputs") for cell in edition.cells)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_every_graded_cell_runs_alone_and_is_not_solved(path, built):
    """Catches a cell that needs an earlier one, and a solution that was left in."""
    edition = nbformat.read(built / "student" / path.name, as_version=4)
    for cell in edition.cells:
        if "exercise" in cell.metadata.get("attnlib", {}):
            *body, last = ast.parse(cell.source).body
            names: dict = {}
            exec(compile(ast.Module(body, []), path.name, "exec"), names)
            grade = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
            assert GRADED in repr(grade)


def test_a_whole_student_edition_runs(built):
    path = built / "student" / "dot-product-attention.ipynb"
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        kernel_name="python3",
        timeout=120,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": path.parent}},
    ).execute()
    shown = [
        output.data["text/plain"]
        for cell in notebook.cells
        if "exercise" in cell.metadata.get("attnlib", {})
        for output in cell.outputs
        if output.output_type == "execute_result"
    ]
    assert shown
    assert all(GRADED in text for text in shown)


# What the tool does to a small chapter.

QUESTION = """**Predict.** What?

<details class="option"><summary>32<!-- assumed --></summary>

**No.** It is not.

</details>
<details class="option"><summary>4<!-- = 64 / 16 --></summary>

**Right.** It is.

</details>"""
SOLUTION = '<details class="solution"><summary>Solution</summary>\n\nSeven.\n\n</details>'
RECALL = '<details class="recall"><summary>And why?</summary>\n\nSo.\n\n</details>'


def sample() -> NotebookNode:
    """Return a chapter with one of everything."""
    printed = [new_output("stream", text="7\n")]
    graded = {"attnlib": {"exercise": "f"}}
    listing = "import torch\n\nfrom attnlib import Rope"
    cells = [
        new_markdown_cell("# Title\n\nIt asks. A second sentence.\n\n- a point"),
        new_code_cell("import attnlib", metadata={"tags": ["remove-cell"]}),
        new_code_cell(listing),
        new_markdown_cell("## One\n\n```text\n# no heading\n```\n\n### Two\n\n$$x^2$$"),
        new_markdown_cell(QUESTION),
        new_code_cell("print(7)", outputs=printed, execution_count=2),
        new_markdown_cell(f"## Exercises\n\n### Exercise 1: x\n\nTry. Harder.\n\n{SOLUTION}"),
        new_code_cell("f()", outputs=printed, execution_count=3, metadata=graded),
        new_markdown_cell(f"## Explain it back\n\n{RECALL}\n{RECALL}"),
        new_markdown_cell("## Further reading\n\n- [x](02-b.ipynb)"),
    ]
    return new_notebook(cells=cells)


def test_a_students_cells():
    edition = editions.student(sample(), "00-sample", keep_outputs=False)
    texts = [cell.source for cell in edition.cells]
    assert texts[1] == editions.STUDENT_NOTE
    assert "**Predict.** What?\n\n- **A.** 32\n- **B.** 4" in texts
    asked = "**And why?**\n\n*What belongs here is left out of this edition.*"
    assert texts[-2] == f"## Explain it back\n\n{asked}\n\n{asked}"
    assert "Seven" not in " ".join(texts)


def test_a_published_books_students_get_its_package(monkeypatch):
    """Catches a student edition that needs a clone where Colab would do."""
    monkeypatch.setenv("BOOK_REPOSITORY", "reader/book")
    edition = editions.student(sample(), "00-sample", keep_outputs=False)
    first = next(cell for cell in edition.cells if cell.cell_type == "code")
    assert "%pip install" in first.source
    assert "attnlib[book] @ git+https://github.com/reader/book@" in first.source


def test_outputs_may_be_kept_but_for_grades():
    edition = editions.student(sample(), "00-sample", keep_outputs=True)
    shown = [cell.source for cell in edition.cells if cell.get("outputs")]
    assert shown == ["print(7)"]


def test_an_instructors_cells_lie_open_and_have_the_same_letters():
    edition = editions.unfolded(sample(), "00-sample")
    text = "\n".join(cell.source for cell in edition.cells)
    assert text.count("<details open") == text.count("<details") == 5
    assert "<summary>B. 4" in text


def test_a_left_out_text_that_survives_is_caught():
    chapter = sample()
    long = "Seven, as the days of the week."
    chapter.cells[6].source = chapter.cells[6].source.replace("Seven.", long)
    hidden = secrets(chapter)
    assert hidden == {long}
    assert leaked(chapter, hidden) == [long]
    assert leaked(editions.student(chapter, "00-s", keep_outputs=True), hidden) == []


def test_slides_are_cut_at_headings_and_questions():
    cells = editions.for_slides(sample()).cells
    kinds = [(c.metadata.slideshow.slide_type, c.source.split("\n")[0]) for c in cells]
    assert kinds == [
        ("slide", "# Title"),
        ("notes", "It asks. A second sentence."),
        ("skip", "import attnlib"),
        ("skip", "import torch"),
        ("slide", "## One"),
        ("subslide", "### Two"),
        ("subslide", "**Predict.** What?"),
        ("notes", "A. 32<!-- assumed -->: **No.** It is not."),
        ("subslide", "print(7)"),  # never on the slide that asks
        ("slide", "## Exercises"),
        ("subslide", "### Exercise 1: x"),
        ("-", "f()"),
        ("slide", "## Explain it back"),
        ("notes", "And why?: So."),
    ]
    assert cells[0].source == "# Title\n\nIt asks.\n\n- a point"
    assert "Seven" not in str(cells)


def test_long_prose_is_cut_between_blocks():
    """Catches a slide of three tables, and a block of code that is cut within."""
    table = "\n".join(["| a | b |", "|---|---|", *["| 1 | 2 |"] * 12])
    code = "```text\n" + "x\n\n" * 9 + "```"
    pieces = list(editions.fitting(f"## Head\n\n{table}\n\n{table}\n\n{code}\n\nEnd."))
    assert pieces == [f"## Head\n\n{table}", table, f"{code}\n\nEnd."]
    assert list(editions.fitting("")) == []  # a cell with nothing but a solution


@pytest.mark.parametrize(
    ("paragraph", "first"),
    [
        ("One. Two.", "One."),
        ("It divides by $\\sqrt{D}. x$ here. Two.", "It divides by $\\sqrt{D}. x$ here."),
        ("See `a. b` and [c. d](e. f). Two.", "See `a. b` and [c. d](e. f)."),
        ("Some, e.g. these. Two.", "Some, e.g. these."),
        ("Look for two things: a, and b. Two.", "Look for two things: a, and b."),
        ("No end", "No end"),
        ("4 times<!-- = 64 / 16. -->. Two.", "4 times."),
    ],
)
def test_the_first_sentence(paragraph, first):
    assert editions.first_sentence(paragraph) == first
