"""The glossary: in order, short, and each word is used where its link leads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]

ENTRY = re.compile(
    r"- \*\*(?P<term>[^*]+)\*\*(?: \([^)]+\))?: (?P<meaning>.+) See \[(?P<heading>[^\]]+)\]"
    r"\((?P<chapter>\.\./chapters/[\w-]+\.ipynb)#(?P<anchor>[\w-]+)\)\.?"
)


class Entry(NamedTuple):
    """A word of the glossary."""

    term: str
    meaning: str
    heading: str
    chapter: str
    anchor: str


def entries(text: str) -> list[Entry]:
    """Return the entries of a glossary; an item that is none fails."""
    found = []
    for line in text.splitlines():
        if line.startswith("-"):
            entry = ENTRY.fullmatch(line)
            assert entry, f"no entry: {line[:60]}"
            found.append(Entry(**entry.groupdict()))
    return found


def section(text: str, heading: str) -> str | None:
    """Return what stands below a heading, with its own parts; None if there is none."""
    found = re.search(rf"^(#+) {re.escape(heading)}$", text, re.MULTILINE)
    if found is None:
        return None
    rest = text[found.end() :]
    end = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: end.start()] if end else rest


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def is_used(term: str, text: str) -> bool:
    """Whether a text has a term or its plural, whatever its capitals and its emphasis."""
    plain = re.sub(r"[*`]", "", text)
    return re.search(rf"\b{re.escape(term)}(?:s|es|d|r)?\b", plain, re.IGNORECASE) is not None


PAGE = ROOT / "appendix" / "glossary.md"
ENTRIES = entries(PAGE.read_text(encoding="utf-8"))


def prose(chapter: str) -> str:
    """Return the Markdown of a chapter, given by its link on the page."""
    cells = nbformat.read(PAGE.parent / chapter, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.term)
def test_a_word_is_used_where_its_link_leads(entry):
    """Catches a link to a section that was renamed, or that does not have the word."""
    below = section(prose(entry.chapter), entry.heading)
    assert below is not None, f"{entry.chapter} has no heading {entry.heading!r}"
    assert entry.anchor == slug(entry.heading)
    assert is_used(entry.term, f"{entry.heading}\n{below}")


def test_words_are_in_order_and_stand_once():
    terms = [entry.term.casefold() for entry in ENTRIES]
    assert terms == sorted(set(terms))
    assert len(terms) >= 30


def test_meanings_are_short():
    for entry in ENTRIES:
        assert len(re.findall(r"[.?](?= |$)", entry.meaning)) <= 2, entry.term
        assert len(entry.meaning) <= 220, entry.term


def test_a_wrong_entry_is_noticed():
    text = "# A\n\nHeads.\n\n## By hand\n\nOne key.\n\n### Part\n\nA mask.\n\n## End\n\nscore"
    assert section(text, "By hand").split() == ["One", "key.", "###", "Part", "A", "mask."]
    assert section(text, "By foot") is None
    assert is_used("Head", text)
    assert is_used("Fused kernel", "a *fused* kernel")
    assert not is_used("Query", text)
    with pytest.raises(AssertionError, match="no entry"):
        entries("- **Key**: what it can be found by.")
