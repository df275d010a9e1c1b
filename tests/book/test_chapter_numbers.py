"""Chapters are named by topic; `_toc.yml` alone knows their numbers.

A number in prose, in a comment or in a file's name is wrong as soon as a chapter is inserted.
A chapter of another book keeps its number: "chapter 5 of the book by Knuth", "chapter 5 of
[a book](https://...)" or "[a book](https://...), chapter 5".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools import sources, toc

ROOT = toc.ROOT

WORDS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen"
SPACE = r"(?:[ \t]+|\n[ \t#*]*)"  # also into the next line of a comment
REFERENCES = (
    # "chapter 7", "Chapters 3, 6 and 7", "[chapter 4](kv-cache.ipynb)", "chapters [6](...)"
    re.compile(rf"\b(?:chapters?|ch\.|chs\.){SPACE}\[?(?:\d+|(?:{WORDS})\b(?! by))", re.I),
    # "the 5th chapter", "the next chapter": another one may come between
    re.compile(r"\b(?:\d+(?:st|nd|rd|th)|next|previous|preceding|following)\s+chapter\b", re.I),
    # "chapters/04-kv-cache.ipynb", "chapters/04-*"
    re.compile(r"chapters/\d\d?-"),
)
ELSEWHERE_BEFORE = re.compile(r"\]\(https://[^)\s]+\),\s+$")
ELSEWHERE_AFTER = re.compile(r"\d+ of (?:the book by [A-Z]|\[[^\]]+\]\(https://)")

FILES = (
    "*.md",
    "*.py",
    "*.js",
    "*.css",
    "*.toml",
    "*.yml",
    "*.cfg",
    "*.html",
    "*.sh",
    "*.json",
)
FILES += ("*.ipynb", "Makefile")
DATA = re.compile(r"results/.*\.json$|tests/book/test_chapter_numbers\.py$")


def references(text: str) -> list[str]:
    """Return the places of a text that name a chapter of this book by its number."""
    found = []
    for pattern in REFERENCES:
        for match in pattern.finditer(text):
            before, after = (
                text[max(0, match.start() - 200) : match.start()],
                text[match.start() :],
            )
            if ELSEWHERE_BEFORE.search(before) or ELSEWHERE_AFTER.search(after[:80]):
                continue
            found.append(" ".join(text[max(0, match.start() - 30) : match.end() + 20].split()))
    return found


def texts(path: Path) -> Iterator[str]:
    """Yield what a file says: of a notebook, sources, alternative texts and printed outputs."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        yield text
        return
    for cell in json.loads(text)["cells"]:
        yield "".join(cell["source"])
        yield json.dumps(cell["metadata"], ensure_ascii=False)
        for output in cell.get("outputs", []):
            yield "".join(output.get("text", []))
            for kind, data in output.get("data", {}).items():
                if kind.startswith("text/"):
                    yield "".join(data)


def files() -> list[Path]:
    """Return the files of the repository that have words."""
    return [path for path in sources(*FILES) if not DATA.search(path.as_posix())]


def test_no_chapter_by_number():
    """Catches "as chapter 7 shows", which is wrong once a chapter is inserted before it."""
    found = [
        f"{path.relative_to(ROOT)}: {reference}"
        for path in files()
        for text in texts(path)
        for reference in references(text)
    ]
    assert not found, "\n".join(found)


def test_files_of_all_kinds_are_read():
    """Catches a search that finds nothing, because it reads nothing."""
    names = {path.relative_to(ROOT).as_posix() for path in files()}
    wanted = {"intro.md", "README.md", "Makefile", "_config.yml", "chapters/kv-cache.ipynb"}
    wanted |= {
        "appendix/glossary.md",
        "attnlib/core.py",
        "tools/toc.py",
        "tests/site/conftest.py",
    }
    assert wanted <= names


@pytest.mark.parametrize(
    "text",
    [
        "As chapter 7 shows,",
        "[Chapter 4](kv-cache.ipynb) counts",
        "the ideas of chapters [6](multi-query-attention.ipynb)",
        "Chapters 3, 6 and 7",
        "chapters 3 to 5",
        "see ch. 4",
        "start with chapter one",
        "the next chapter's groups",
        "the 3rd chapter",
        "x = 1  # chapter\n# 5 explains it",
        "make notebooks CHAPTERS=chapters/04-*",
        "as in [a paper](https://example.org/x). Chapter 4 counts",
    ],
)
def test_a_chapter_by_number_is_caught(text):
    assert references(text)


@pytest.mark.parametrize(
    "text",
    [
        "the chapter on the KV cache",
        "chapters one by one",
        "the chapters before this one",
        "chapter 5 of the book by Knuth",
        "chapter 5 of [a book](https://example.org/)",
        "[a book](https://example.org/), chapter 5: rooflines",
        "section 3.2.1",
        "## Chapters\n\n1. Dot-product attention",
    ],
)
def test_other_words_are_left_in_peace(text):
    assert references(text) == []
