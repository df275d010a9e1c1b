"""The page for instructors: plans that name what exists, and an inventory that is sound."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import nbformat
import pytest

from tools import ROOT, editions, toc
from tools.details import DETAILS, details

PAGE = (ROOT / "appendix" / "instructors.md").read_text(encoding="utf-8")
PATHS = toc.paths()
LENGTHS = (50, 90)
VOTES = 3  # at least, in a lesson
VOTE_MINUTES = 5  # at least, as the page says

PLAN = re.compile(
    r"^### [^\n]+\n\n\[[^\]]+\]\(\.\./chapters/(?P<chapter>[\w-]+)\.ipynb\).+?(?=^##)",
    re.DOTALL | re.MULTILINE,
)
ROW = re.compile(r"^\| (?P<short>\d+|–) \| (?P<long>\d+|–) \| (?P<what>.+) \|$", re.MULTILINE)
QUOTE = re.compile(r"[Vv]ote: ((?:\"[^\"]+\"(?: and )?)+)")
PLANS = {found["chapter"]: found[0] for found in PLAN.finditer(PAGE)}


def plain(text: str) -> str:
    """Return a text without marks of emphasis and code."""
    return " ".join(re.sub(r"[*`]|<!--.*?-->|</?\w+>", "", text).split())


def cells(path: Path) -> list[str]:
    """Return the sources of a chapter's Markdown cells."""
    notebook = nbformat.read(path, as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def asked(sources: list[str]) -> list[str]:
    """Return a chapter's questions, without their options."""
    return [plain(DETAILS.sub("", s)) for s in sources if s.startswith(editions.QUESTION)]


def headings(sources: list[str]) -> set[str]:
    """Return the headings of a chapter."""
    lines = (line for source in sources for line in source.splitlines())
    return {plain(line.lstrip("#")) for line in lines if line.startswith("##")}


def wrong(plan: str, sources: list[str]) -> list[str]:
    """Return what is wrong with a lesson plan: minutes, sections, questions, exercises."""
    complaints = []
    rows = list(ROW.finditer(plan))
    for kind, length in zip(("short", "long"), LENGTHS, strict=True):
        begins = [int(row[kind]) for row in rows if row[kind] != "–"]
        if begins[0] != 0 or begins[-1] != length or begins != sorted(set(begins)):
            complaints.append(f"{kind}: {begins} do not go from 0 to {length}")
        kept = [row["what"] for row in rows if row[kind] != "–"]
        for what, (begin, end) in zip(kept, pairwise(begins), strict=False):
            votes = len(re.findall(r'"[^"]+"', " ".join(QUOTE.findall(what))))
            if end - begin < VOTE_MINUTES * votes:
                complaints.append(f"{kind}: {votes} votes from minute {begin} to {end}")
    there, questions, text = headings(sources), asked(sources), "\n".join(sources)
    for row in rows:
        what = row["what"]
        named = re.findall(r"\*\*(.+?)\*\*", what)
        complaints += [f"no section {name!r}" for name in named if plain(name) not in there]
        for quotes in QUOTE.findall(what):
            for quote in re.findall(r'"([^"]+)"', quotes):
                if sum(plain(quote) in question for question in questions) != 1:
                    complaints.append(f"{quote!r} is in no question, or in several")
        for number in re.findall(r"Exercises? (\d)(?: and (\d))?", what):
            complaints += [
                f"no exercise {n}" for n in number if n and f"### Exercise {n}:" not in text
            ]
    return complaints


def test_every_chapter_has_its_plan():
    """Catches a chapter without a plan, and plans in another order than the book's."""
    assert list(PLANS) == toc.chapters()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_plan_names_what_exists_and_fills_the_time(path):
    """Catches a renamed section, a question that was rewritten, and a gap in the minutes."""
    plan, sources = PLANS[path.stem], cells(path)
    assert wrong(plan, sources) == []
    assert len(re.findall(r'"[^"]+"', " ".join(QUOTE.findall(plan)))) >= min(
        VOTES, len(asked(sources))
    )
    assert ("Exercise" in plan) == any("### Exercise 1:" in source for source in sources)
    assert "\nExpect: " in plan


SOURCES = [
    "## One\n\n## Two",
    "**Predict.** What is *this*?",
    "### Exercise 1: x",
]
GOOD = (
    '| 0 | 0 | **One**. Vote: "What is this?" |\n| – | 40 | **Two** |\n'
    "| 20 | 60 | Exercise 1 |\n| 50 | 90 | The end |\n"
)


def test_a_good_plan_passes():
    assert wrong(GOOD, SOURCES) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("| 50 |", "| 45 |", "do not go from 0 to 50"),
        ("| 60 |", "| 30 |", "do not go from 0 to 90"),
        ("| – | 40 |", "| 4 | 40 |", "short: 1 votes from minute 0 to 4"),
        ("**Two**", "**Three**", "no section 'Three'"),
        ("What is this?", "What is that?", "in no question"),
        ("Exercise 1", "Exercise 2", "no exercise 2"),
        ("Exercise 1", "Exercises 1 and 3", "no exercise 3"),
    ],
)
def test_a_bad_plan_is_caught(old, new, message):
    complaints = wrong(GOOD.replace(old, new), SOURCES)
    assert any(message in complaint for complaint in complaints), complaints


# The concept inventory.

INVENTORY = PAGE.split("### The twelve questions")[1]
QUESTIONS = re.split(r"^\*\*\d+\.\*\* ", INVENTORY, flags=re.M)[1:]
QUESTIONS[-1] = QUESTIONS[-1].split("\n### ")[0]


def test_the_inventory_has_twelve_questions_with_one_key_each():
    assert len(QUESTIONS) == 12
    keys = []
    for number, question in enumerate(QUESTIONS, start=1):
        assert re.findall(r"^- ([A-D])\. ", question, re.M) == list("ABCD"), number
        (key,) = details(question)
        assert key.summary == f"Key to question {number}"
        keys.append(re.match(r"\*\*([A-D])\.\*\* ", key.text)[1])
        rest = set("ABCD") - {keys[-1]}
        assert set(re.findall(r"\*\*([A-D])\*\*", key.text)) == rest, (
            f"{number}: each distractor"
        )
    assert max(Counter(keys).values()) <= 4
    assert not any(a == b for a, b in pairwise(keys)), "no letter twice in a row"


def test_the_longest_option_is_not_always_the_key():
    longest = 0
    for question in QUESTIONS:
        options = re.findall(r"^- ([A-D])\. (.+)$", question, re.M)
        key = re.match(r"\*\*([A-D])", details(question)[0].text)[1]
        longest += max(options, key=lambda option: len(plain(option[1])))[0] == key
    assert longest <= 6


def test_the_sheet_for_students_has_no_key():
    sheet = editions.inventory(PAGE)
    assert sheet.count("\n- D. ") == 12
    assert "Key" not in sheet
    assert "<" not in sheet
    for question in QUESTIONS:
        for sentence in re.split(r"(?<=\.) ", details(question)[0].text):
            assert len(sentence) < 25 or sentence not in sheet
