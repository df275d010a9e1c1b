"""Wording that the style guide replaces: none of it is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import wording


def test_no_habit_is_left():
    """Catches "bytes a token" in code, and "stands behind the others" on a page."""
    found = {
        path.relative_to(wording.ROOT).as_posix(): [f"{f.line}: {f.phrase}" for f in hits]
        for path in wording.files()
        if (hits := wording.findings_of(path))
    }
    assert found == {}


def test_files_of_all_kinds_are_read():
    names = {path.relative_to(wording.ROOT).as_posix() for path in wording.files()}
    assert {"attnlib/core.py", "CONTRIBUTING.md", "Makefile", "tools/toc.py"} <= names
    assert {"chapters/kv-cache.ipynb", "appendix/glossary.md", "intro.md"} <= names


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
    ("text", "phrase"),
    [
        ("Each token brings a key of its own.", "of its own"),
        ("The key stands at position 4.", "stands at"),
        ("The token behind the prompt", "behind the"),
        ("It stops, for it is full.", "for it is"),
        ("The longer the text, the larger the gap", "The longer the text, the larger"),
        ("8 key/value heads", "key/value heads"),
        ("left of the ridge", "the ridge"),
        ("Mind the axis", "Mind the"),
    ],
)
def test_a_page_for_readers_is_held_to_more(text, phrase):
    assert phrase in [found.phrase for found in wording.findings(text, is_read=True)]
    assert wording.findings(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "its own key",
        "a key/value head (KV head)",
        "left of the ridge point",
        "is at position 4",
    ],
)
def test_plain_prose_is_accepted(text):
    assert wording.findings(text, is_read=True) == []


def test_a_notebook_is_read_by_its_source(tmp_path):
    """Catches a count of a cell's outputs, and of a notebook's own escapes."""
    folder = tmp_path / "chapters"
    folder.mkdir()
    cell = {"cell_type": "markdown", "source": ["One\n", "of its own\n"], "outputs": ["lest"]}
    (folder / "x.ipynb").write_text(json.dumps({"cells": [cell]}), encoding="utf-8")
    found = wording.findings_of(folder / "x.ipynb")
    assert [(one.line, one.phrase) for one in found] == [(2, "of its own")]


def test_the_command_says_where_and_what_instead(tmp_path, capsys):
    path = Path(tmp_path / "page.md")
    path.write_text("Fine.\n\nUse it in place of the other.\n", encoding="utf-8")
    assert wording.main([str(path)]) == 1
    assert capsys.readouterr().out == f"{path}:3: 'in place of'; write instead of\n"
    path.write_text("Use it instead of the other.\n", encoding="utf-8")
    assert wording.main([str(path)]) == 0
