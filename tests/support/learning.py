"""What a chapter must hold to be learned from, as functions over a chapter.

Questions to answer before reading on, exercises that grade themselves, solutions that run, and
a closing that asks for the past. As in `guards.py`, each function returns complaints;
`test_learning.py` applies them to the book and proves what each catches.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

from guards import Chapter, cells, prose
from nbformat import NotebookNode

from tools import solutions
from tools.details import details

LEAST_QUESTIONS, LEAST_OPTIONS, LEAST_EXERCISES = 3, 3, 2
LEAST_REASON_WORDS = 8

ANY_DETAILS = re.compile(r"</?details\b")
QUESTION = re.compile(r"^\*\*Predict\.\*\* ")
EXERCISE = re.compile(r"^### Exercise (\d+): \S", re.MULTILINE)
VERDICT = re.compile(r"^\*\*(Right|No)\.\*\* ")
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
CHAPTER_LINK = re.compile(r"\]\(([\w-]+)\.ipynb")
MARKDOWN_IN_HTML = re.compile(r"\$|\*\*|(?<!`)`(?!`)|\]\(")


def section(chapter: Chapter, title: str) -> list[NotebookNode]:
    """Return the cells of a section, from the one that holds its heading on."""
    found: list[NotebookNode] = []
    inside = False
    for cell in chapter.notebook.cells:
        if cell.cell_type == "markdown" and (titles := SECTION.findall(prose(cell.source))):
            inside = titles[-1] == title
        if inside:
            found.append(cell)
    return found


def text_of(chapter: Chapter, title: str) -> str:
    """Return the Markdown of a section."""
    found = section(chapter, title)
    return "\n\n".join(cell.source for cell in found if cell.cell_type == "markdown")


def details_are_well_formed(chapter: Chapter) -> list[str]:
    """What is folded away opens everywhere: blank lines inside, plain HTML in the summary."""
    complaints = []
    for name, cell in cells(chapter, "markdown"):
        found = details(cell.source)
        if len(ANY_DETAILS.findall(cell.source)) != 2 * len(found):
            complaints.append(f"{name}: <details> not written as CONTRIBUTING says")
        for one in found:
            if one.kind not in ("option", "solution", "recall"):
                complaints.append(f"{name}: class {one.kind!r} has no look")
            if MARKDOWN_IN_HTML.search(one.summary):
                complaints.append(f"{name}: Markdown in a summary: {one.summary[:40]!r}")
    return complaints


def questions_come_before_answers(chapter: Chapter) -> list[str]:
    """Enough questions, each with one right option and a reason for every option."""
    complaints, asked = [], 0
    for name, cell in cells(chapter, "markdown"):
        options = [one for one in details(cell.source) if one.kind == "option"]
        if not QUESTION.match(cell.source):
            if options:
                complaints.append(f"{name}: options without **Predict.** before them")
            continue
        asked += 1
        verdicts = [VERDICT.match(one.text) for one in options]
        right = [found for found in verdicts if found and found[1] == "Right"]
        if len(options) < LEAST_OPTIONS:
            complaints.append(f"{name}: {len(options)} options, at least {LEAST_OPTIONS}")
        if not all(verdicts) or len(right) != 1:
            complaints.append(
                f"{name}: each option begins with **Right.** or **No.**, one right"
            )
        for one in options:
            if len(one.text.split()) < LEAST_REASON_WORDS + 1:
                complaints.append(f"{name}: {one.summary[:40]!r} has no reason")
    if asked < LEAST_QUESTIONS:
        complaints.append(f"{asked} questions, at least {LEAST_QUESTIONS}")
    return complaints


def right_answers_vary_in_place(chapter: Chapter) -> list[str]:
    """The right option does not stand at the same place in all questions."""
    places = set()
    for _, cell in cells(chapter, "markdown"):
        options = [one for one in details(cell.source) if one.kind == "option"]
        places |= {i for i, one in enumerate(options) if one.text.startswith("**Right.")}
    return ["the right option stands at the same place everywhere"] if len(places) == 1 else []


def exercises_rise(chapter: Chapter) -> list[str]:
    """Enough exercises, counted from 1, each with its solution, one of them graded."""
    text, complaints = text_of(chapter, "Exercises"), []
    numbers = [int(number) for number in EXERCISE.findall(text)]
    solved = sum(one.kind == "solution" for one in details(text))
    if numbers != list(range(1, len(numbers) + 1)) or len(numbers) < LEAST_EXERCISES:
        complaints.append(f"exercises are {numbers}, at least 1 to {LEAST_EXERCISES}")
    if solved != len(numbers):
        complaints.append(f"{len(numbers)} exercises and {solved} solutions")
    graded = list(exercise_cells(chapter))
    if not graded:
        complaints.append("no cell with metadata attnlib.exercise to be graded")
    return complaints


def exercise_cells(chapter: Chapter) -> Iterator[tuple[str, NotebookNode]]:
    """Yield the cells that wait for a reader's code, with their names."""
    for name, cell in cells(chapter, "code"):
        if "exercise" in cell.metadata.get("attnlib", {}):
            yield name, cell


def starts_are_harmless(chapter: Chapter) -> list[str]:
    """A start imports what it needs, ends in its grade, and no other cell uses its names."""
    complaints, made = [], set()
    for name, cell in exercise_cells(chapter):
        tree = ast.parse(cell.source)
        last = tree.body[-1]
        called = last.value.func if isinstance(getattr(last, "value", None), ast.Call) else None
        if not getattr(called, "id", getattr(called, "attr", "")).startswith("grade"):
            complaints.append(f"{name}: does not end in the call of a grader")
        shown = "".join(out.get("data", {}).get("text/plain", "") for out in cell.outputs)
        if "not solved yet" not in shown:
            complaints.append(f"{name}: shows no grade that is not solved yet")
        defined = {n.name for n in tree.body if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
        made |= defined
        for other, code in cells(chapter, "code"):
            if code is not cell and (used := defined & names_used(code.source)):
                complaints.append(
                    f"{other}: uses {sorted(used)}, which a reader may have wrong"
                )
    return complaints


def names_used(source: str) -> set[str]:
    """Return the names that a cell reads; none of a cell that is not plain Python."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return set()
    loads = (n for n in ast.walk(tree) if isinstance(n, ast.Name))
    return {name.id for name in loads if isinstance(name.ctx, ast.Load)}


def graded_solutions_solve(chapter: Chapter) -> list[str]:
    """Each start has a solution whose stored grade says solved."""
    texts = [
        block.text or ""
        for _, cell in cells(chapter, "markdown")
        for block in solutions.blocks(cell.source)
    ]
    return [
        f"{name}: no solution prints `{wanted}: solved`"
        for name, cell in exercise_cells(chapter)
        for wanted in [cell.metadata["attnlib"]["exercise"]]
        if not any(text.startswith(f"{wanted}: solved") for text in texts)
    ]


def closes_with_recall(chapter: Chapter) -> list[str]:
    """The closing asks to explain, says what a good answer has, and asks two things more."""
    text = text_of(chapter, "Explain it back")
    found = [one for one in details(text) if one.kind == "recall"]
    complaints = []
    if len(found) < 3:
        complaints.append(f"Explain it back: {len(found)} answers to open, at least 3")
    linked = [
        one for one in found[1:] if set(CHAPTER_LINK.findall(one.text)) & set(chapter.earlier)
    ]
    if chapter.earlier and len(linked) < 2:
        complaints.append(f"{len(linked)} answers link to an earlier chapter, at least 2")
    order = [t for _, c in cells(chapter, "markdown") for t in SECTION.findall(prose(c.source))]
    wanted = ["Summary", "Going deeper", "Exercises", "Explain it back", "Further reading"]
    if "Going deeper" not in order:
        wanted.remove("Going deeper")
    if [title for title in order if title in wanted] != wanted:
        complaints.append(f"the sections at the end are not {', '.join(wanted)}")
    return complaints


RULES: tuple[Callable[[Chapter], list[str]], ...] = (
    details_are_well_formed,
    questions_come_before_answers,
    right_answers_vary_in_place,
    exercises_rise,
    starts_are_harmless,
    graded_solutions_solve,
    closes_with_recall,
)
