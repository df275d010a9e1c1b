"""Write at the top of each chapter how long it takes, or check that it says so.

    python -m tools minutes                      write the lines, print what was counted
    python -m tools minutes chapters/scaling.*   of these chapters only
    python -m tools minutes --check              exit 1 if a line is old or a path is too long

The core path is what a newcomer reads from the first line to the summary. What stands under
"Going deeper", the exercises and the closing is not on it. The rates are those at which two
readers, who kept a record, went through the first five chapters.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import nbformat
from nbformat import NotebookNode

from tools import ROOT, arguments
from tools.canonical import dumps, normalise, write_if_changed

MOST_WORDS, MOST_MINUTES = 2500, 30  # of one chapter's core path
MOST_WALK = 240  # minutes, of all core paths up to and with LAST_OF_WALK
LAST_OF_WALK = "multi-head-latent-attention"
MOST_MEAN = 4_150  # words of a chapter, on average, everything but code included

WORDS_PER_MINUTE, LINES_PER_MINUTE = 150, 10
MINUTES_PER_QUESTION, MINUTES_PER_EXERCISE = 1, 15
STEP = 5  # minutes are rounded up to a multiple of it

HIDDEN = {"hide-input", "hide-cell", "remove-cell", "remove-input"}
PARTS = {"Going deeper": "deeper", "Exercises": "exercises"}
CLOSING = ("Explain it back", "Further reading")

LINE = re.compile(r"^\*\*Time:\*\* .*$", re.MULTILINE)
QUESTION = re.compile(r"^\*\*The question: .*$", re.MULTILINE)
HEADING = re.compile(r"^(?=## )", re.MULTILINE)
EXERCISE = re.compile(r"^### Exercise \d+", re.MULTILINE)
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
MARKS = re.compile(r"<!--.*?-->|<[^>]+>|(?<=\])\([^)]*\)", re.DOTALL)


class Counts(NamedTuple):
    """What a chapter asks of its readers.

    Attributes:
        core_words: of prose on the core path, without questions.
        core: minutes for the core path.
        deeper: minutes for what stands under "Going deeper".
        exercises: minutes for the exercises.
        words: of the whole chapter without code: questions, solutions and closing included.
    """

    core_words: int
    core: int
    deeper: int
    exercises: int
    words: int


def words(text: str) -> int:
    """Return how many words of prose a Markdown text has, without code, comments and marks."""
    return len(MARKS.sub(" ", CODE.sub(" ", LINE.sub("", text))).split())


def rounded(minutes: float) -> int:
    """Return a time as it is printed: 0, or the next multiple of five minutes."""
    return -int(-minutes // STEP) * STEP


def counts(notebook: NotebookNode) -> Counts:
    """Count a chapter.

    Args:
        notebook: in format 4.
    """
    part, total, core_words, exercises = "core", 0, 0, 0
    minutes = {"core": 0.0, "deeper": 0.0, "exercises": 0.0, "closing": 0.0}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if not HIDDEN & set(cell.metadata.get("tags", [])):
                lines = [line for line in cell.source.splitlines() if line.strip()]
                minutes[part] += len(lines) / LINES_PER_MINUTE
            continue
        total += words(cell.source)
        for piece in HEADING.split(cell.source):
            if piece.startswith("## "):
                title = piece[3:].split("\n", 1)[0].strip()
                part = "closing" if title in CLOSING else PARTS.get(title, "core")
            exercises += len(EXERCISE.findall(piece))
            if piece.startswith("**Predict.**"):
                minutes[part] += MINUTES_PER_QUESTION
                continue
            minutes[part] += words(piece) / WORDS_PER_MINUTE
            core_words += words(piece) if part == "core" else 0
    return Counts(
        core_words,
        rounded(minutes["core"]),
        rounded(minutes["deeper"]),
        exercises * MINUTES_PER_EXERCISE,
        total,
    )


def line(found: Counts) -> str:
    """Return the line that says how long a chapter takes."""
    deeper = f", {found.deeper} for *Going deeper*" if found.deeper else ""
    rest = f"{deeper} and {found.exercises} for the exercises" if found.exercises else deeper
    return f"**Time:** {found.core} minutes for the core path{rest}."


def with_line(notebook: NotebookNode) -> NotebookNode:
    """Return a chapter with its time below the question; the notebook itself is not changed.

    Args:
        notebook: in format 4. Its first cell has the question.

    Raises:
        ValueError: if the first cell has no question.
    """
    result: NotebookNode = nbformat.from_dict(notebook)
    first = result.cells[0].source = LINE.sub("", result.cells[0].source)
    first = re.sub(r"\n{3,}", "\n\n", first)
    question = QUESTION.search(first)
    if question is None:
        raise ValueError(f"the first cell must have a question, got {first[:80]!r}")
    before, after = first[: question.end()], first[question.end() :]
    result.cells[0].source = f"{before}\n\n{line(counts(notebook))}{after}"
    return result


def complaints(found: dict[str, Counts]) -> list[str]:
    """Return what is too long.

    Args:
        found: the counts of all chapters in their order, by name.
    """
    result = [
        f"{name}: core path of {one.core_words} words and {one.core} minutes,"
        f" at most {MOST_WORDS} and {MOST_MINUTES}"
        for name, one in found.items()
        if one.core_words > MOST_WORDS or one.core > MOST_MINUTES
    ]
    names = list(found)
    if LAST_OF_WALK in names:
        walk = sum(found[name].core for name in names[: names.index(LAST_OF_WALK) + 1])
        if walk > MOST_WALK:
            result.append(f"core paths to MLA: {walk} minutes, at most {MOST_WALK}")
        total = sum(one.words for one in found.values())
        most = MOST_MEAN * len(found)
        if total > most:
            result.append(f"all {len(found)} chapters: {total} words, at most {most}")
    return result


def table(found: dict[str, Counts]) -> str:
    """Return the counts as text.

    Args:
        found: the counts by name.
    """
    rows = [
        f"{'chapter':30}{'words':>8}{'core':>8}{'minutes':>9}{'deeper':>8}{'exercises':>11}"
    ]
    rows += [
        f"{name:30}{n.words:8,}{n.core_words:8,}{n.core:9}{n.deeper:8}{n.exercises:11}"
        for name, n in found.items()
    ]
    total = [sum(column) for column in zip(*found.values(), strict=True)]
    core_words, core, deeper, exercises, all_words = total
    rows.append(f"{'all':30}{all_words:8,}{core_words:8,}{core:9}{deeper:8}{exercises:11}")
    return "\n".join(rows)


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    arguments.add_chapters(parser)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(argv)
    status, found = 0, {}
    for path in options.chapters:
        notebook = nbformat.read(path, as_version=4)
        found[path.stem] = counts(notebook)
        wanted = dumps(normalise(with_line(notebook), path.stem))
        if not options.check:
            write_if_changed(path, wanted)
        elif path.read_text(encoding="utf-8") != wanted:
            print(f"{path.resolve().relative_to(ROOT)}: run `python -m tools minutes`")
            status = 1
    if not options.check:
        print(table(found))
    for complaint in complaints(found):
        print(complaint)
        status = 1
    return status
