"""The rules for learning over the book's chapters, and for each a chapter it must catch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import guards
import learning
import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import solutions

CHAPTERS = sorted((Path(__file__).resolve().parents[2] / "chapters").glob("*.ipynb"))


@pytest.mark.parametrize("rule", learning.RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_chapter(path, rule):
    complaints = rule(guards.load(path))
    assert not complaints, "\n".join((f"{path.name}: {rule.__doc__}", *complaints))


REASON = "because this is what the reader is meant to find out here"


def option(verdict: str, reason: str = REASON, summary: str = "So") -> str:
    """Return one option of a question."""
    return (
        f'<details class="option"><summary>{summary}</summary>\n\n'
        f"**{verdict}.** {reason}\n\n</details>"
    )


def question(*options: str) -> str:
    """Return a question."""
    return "\n".join(["**Predict.** What comes?\n", *options])


def folded(kind: str, text: str) -> str:
    """Return something folded away."""
    return f'<details class="{kind}"><summary>Open</summary>\n\n{text}\n\n</details>'


SOLVED = "```python\nmine = 1\nmine\n```\n\n```text\nmine: solved\n```"
RIGHT_FIRST = question(option("Right"), option("No"), option("No"))
RIGHT_LAST = question(option("No"), option("No"), option("Right"))
EXERCISES = "\n\n".join(
    f"### Exercise {n}: x\n\n{folded('solution', SOLVED)}" for n in (1, 2, 3)
)
CLOSING = "\n\n".join(
    [
        "## Explain it back\n\nExplain.",
        folded("recall", "It has this in it."),
        folded("recall", "See [there](early.ipynb)."),
        folded("recall", "See [there](earlier.ipynb)."),
    ]
)


def good() -> NotebookNode:
    """Return a chapter with which no rule finds fault."""
    start = new_code_cell(
        "def mine():\n    raise NotImplementedError\n\n\ngrade_function(mine)",
        metadata={"attnlib": {"exercise": "mine"}},
        outputs=[
            new_output(
                "execute_result", data={"text/plain": "mine: not solved yet"}, execution_count=1
            )
        ],
        execution_count=1,
    )
    asked = [RIGHT_FIRST, RIGHT_LAST, RIGHT_FIRST]
    texts = [*asked, "## Summary\n\nx", f"## Exercises\n\n{EXERCISES}"]
    end = ["Last words.", CLOSING, "## Further reading\n\nx"]
    cells = [*map(new_markdown_cell, texts), start, *map(new_markdown_cell, end)]
    return new_notebook(cells=cells)


def as_chapter(notebook: NotebookNode) -> guards.Chapter:
    """Return the notebook as a chapter."""
    return guards.Chapter(
        Path("sample.ipynb"), nbformat.writes(notebook), notebook, earlier=("early", "earlier")
    )


@pytest.mark.parametrize("rule", learning.RULES, ids=lambda rule: rule.__name__)
def test_a_good_chapter_passes(rule):
    assert rule(as_chapter(good())) == []


def text(index: int, source: str) -> Callable[[NotebookNode], None]:
    """Return a change that gives a cell another source."""
    return lambda notebook: notebook.cells[index].__setitem__("source", source)


def swap(index: int, old: str, new: str) -> Callable[[NotebookNode], None]:
    """Return a change of some words of a cell."""

    def change(notebook: NotebookNode) -> None:
        assert old in notebook.cells[index].source
        notebook.cells[index].source = notebook.cells[index].source.replace(old, new)

    return change


def use_the_readers_code(notebook: NotebookNode) -> None:
    """Let a later cell depend on an exercise."""
    notebook.cells.append(new_code_cell("print(mine())"))


def all_right_first(notebook: NotebookNode) -> None:
    """Put every right option first."""
    for index in range(3):
        notebook.cells[index].source = RIGHT_FIRST


def show_a_solution(notebook: NotebookNode) -> None:
    """Leave a solved exercise where the start should be."""
    notebook.cells[5].outputs[0].data["text/plain"] = "mine: solved"


BAD = [
    (
        learning.details_are_well_formed,
        swap(0, "</summary>\n\n", "</summary>\n"),
        "not written",
    ),
    (
        learning.details_are_well_formed,
        swap(0, "<details class=", "<details id="),
        "not written",
    ),
    (learning.details_are_well_formed, swap(0, ">So<", ">So $x$<"), "Markdown in a summary"),
    (learning.details_are_well_formed, swap(0, '"option"', '"choice"'), "'choice'"),
    (learning.questions_come_before_answers, text(0, "x"), "2 questions, at least 3"),
    (learning.questions_come_before_answers, text(0, option("No")), "without **Predict.**"),
    (
        learning.questions_come_before_answers,
        text(0, question(option("Right"), option("No"))),
        "2 options",
    ),
    (
        learning.questions_come_before_answers,
        text(0, question(*[option("Right")] * 3)),
        "one right",
    ),
    (learning.questions_come_before_answers, swap(0, "**No.**", "No."), "one right"),
    (learning.questions_come_before_answers, swap(0, REASON, "Never."), "has no reason"),
    (learning.right_answers_vary_in_place, all_right_first, "the same place"),
    (learning.exercises_rise, swap(4, "Exercise 2", "Exercise 4"), "[1, 4, 3]"),
    (learning.exercises_rise, swap(4, '"solution"', '"recall"'), "0 solutions"),
    (learning.exercises_rise, lambda nb: nb.cells.pop(5), "to be graded"),
    (learning.starts_are_harmless, text(5, "def mine():\n    pass"), "call of a grader"),
    (learning.starts_are_harmless, show_a_solution, "not solved yet"),
    (learning.starts_are_harmless, use_the_readers_code, "['mine']"),
    (learning.graded_solutions_solve, swap(4, "mine: solved", "mine: not"), "mine: solved"),
    (learning.closes_with_recall, swap(7, "(early.ipynb)", "(notes.md)"), "1 answers link"),
    (
        learning.closes_with_recall,
        swap(7, "(early.ipynb)", "(not-yet.ipynb)"),
        "1 answers link",
    ),
    (learning.closes_with_recall, text(7, "## Explain it back"), "0 answers to open"),
    (learning.closes_with_recall, text(3, "x"), "sections at the end"),
    (learning.closes_with_recall, text(6, "## Going deeper\n\nx"), "sections at the end"),
]


@pytest.mark.parametrize(("rule", "change", "message"), BAD)
def test_a_bad_chapter_is_caught(rule, change, message):
    notebook = good()
    change(notebook)
    complaints = rule(as_chapter(notebook))
    assert any(message in complaint for complaint in complaints), complaints


def test_every_rule_is_proven():
    assert {rule for rule, _, _ in BAD} == set(learning.RULES)


def test_the_first_chapter_has_nothing_to_recall():
    notebook = good()
    notebook.cells[7].source = notebook.cells[7].source.replace(".ipynb", ".md")
    first = as_chapter(notebook)._replace(earlier=())
    assert learning.closes_with_recall(first) == []


# The tool that runs solutions.


def test_solutions_become_cells_with_what_they_print():
    """Catches a block that nbval would not compare."""
    source = folded(
        "solution", "```python\nprint(1)\n```\n\n```text\n1\n```\n\nSo.\n\n" + SOLVED
    )
    notebook = solutions.as_notebook(new_notebook(cells=[new_markdown_cell(source)]))
    printed, shown = notebook.cells
    assert (printed.source, printed.outputs[0].text) == ("print(1)", "1\n")
    assert shown.outputs[0].data == {"text/plain": "mine: solved"}


def test_code_outside_of_solutions_is_not_run():
    source = "```python\nboom()\n```\n\n" + folded("recall", "```python\nboom()\n```")
    assert not solutions.as_notebook(new_notebook(cells=[new_markdown_cell(source)])).cells


def test_what_a_solution_prints_is_stored_below_it(tmp_path):
    """Catches an old text that stays, and one that is lost."""
    source = folded("solution", "```python\nx = 2\n```\n\n```python\nprint(x)\n```\n\nSo.")
    notebook = new_notebook(cells=[new_markdown_cell(source)])
    path = tmp_path / "sample.ipynb"
    path.write_text(nbformat.writes(notebook), encoding="utf-8")
    assert solutions.write(path)
    assert "```python\nprint(x)\n```\n\n```text\n2\n```\n\nSo." in guards.load(
        path
    ).text.replace("\\n", "\n").replace('",\n    "', "")
    assert not solutions.write(path)  # a second run changes nothing


def test_a_solution_that_fails_says_where(tmp_path):
    source = folded("solution", "```python\n1 / 0\n```")
    path = tmp_path / "sample.ipynb"
    path.write_text(nbformat.writes(new_notebook(cells=[new_markdown_cell(source)])), "utf-8")
    where = r"(?s)sample.ipynb.*ZeroDivisionError"
    with pytest.raises(solutions.SolutionError, match=where):
        solutions.write(path)
