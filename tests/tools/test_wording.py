"""Wording that the style guide replaces: what is left may only become less."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tools import wording

# Phrases that are left, by part of the repository. Lower a number when one goes; raise none.
LEFT = {
    "attnlib": 4,
    "attnlib/book/exercises": 1,
    "attnlib/book/plots": 5,
    "attnlib/book/widgets": 16,
    "tests": 19,
}


def test_habits_become_fewer():
    """Catches "bytes a token" in new code, and a number above that was not lowered."""
    counts = Counter(
        wording.area(path)
        for path in wording.files()
        for _ in wording.findings(path.read_text(encoding="utf-8"))
    )
    new = {area: count for area, count in counts.items() if count > LEFT.get(area, 0)}
    assert not new, f"new phrases, see `python -m tools wording`: {new}, {LEFT=}"
    assert dict(sorted(counts.items())) == LEFT, "fewer are left: lower the numbers"


def test_files_of_all_kinds_are_read():
    names = {path.relative_to(wording.ROOT).as_posix() for path in wording.files()}
    assert {"attnlib/core.py", "CONTRIBUTING.md", "Makefile", "tools/toc.py"} <= names
    assert not any(name.startswith(("chapters/", "appendix/")) for name in names)


@pytest.mark.parametrize(
    ("text", "line", "phrase"),
    [
        ("The cache keeps 512 bytes a token.", 1, "bytes a token"),
        ("x = 1\ny = 2  # FLOPs a\n# byte", 2, "FLOPs a byte"),
        ("one row a query", 1, "row a query"),
        ("a dot a seed", 1, "a dot a seed"),
        ("a mask in place of\n    the scale", 1, "in place of"),
        ("take turns, lest it copies", 1, "lest"),
        ("Nobody sees it", 1, "Nobody"),
        ("full but for its own place", 1, "but for its"),
    ],
)
def test_a_habit_is_found(text, line, phrase):
    assert (line, phrase) in [found[:2] for found in wording.findings(text)]


@pytest.mark.parametrize(
    "text",
    [
        "bytes per token",
        "With that many tokens a step still reads more.",
        "instead of the scale",
        "not for keys but for values",
        "latest",
    ],
)
def test_other_wording_is_accepted(text):
    assert wording.findings(text) == []


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("README.md", "pages"),
        ("attnlib/core.py", "attnlib"),
        ("attnlib/variants/mla.py", "attnlib"),
        ("attnlib/bench/measure.py", "attnlib/bench"),
        ("attnlib/book/widgets/dial.js", "attnlib/book/widgets"),
        ("tests/book/test_api.py", "tests"),
    ],
)
def test_a_file_belongs_to_an_area(name, area):
    assert wording.area(wording.ROOT / name) == area


def test_the_command_says_where_and_what_instead(tmp_path, capsys):
    path = Path(tmp_path / "page.md")
    path.write_text("Fine.\n\nUse it in place of the other.\n", encoding="utf-8")
    assert wording.main([str(path)]) == 1
    assert capsys.readouterr().out == f"{path}:3: 'in place of'; write instead of\n"
    path.write_text("Use it instead of the other.\n", encoding="utf-8")
    assert wording.main([str(path)]) == 0
