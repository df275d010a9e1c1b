"""How long a chapter takes: what counts, what does not, and the limits of the book."""

from __future__ import annotations

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import minutes, toc

FIRST = "# T\n\n**The question: why?**\n\nOne two three."
OPTION = '<details class="option"><summary>a b c</summary>\n\n**No.** d e f.\n\n</details>'


def chapter(*cells: str) -> nbformat.NotebookNode:
    """Return a notebook with a first cell and these: code begins with `#!`."""
    made = [
        new_code_cell(cell[2:]) if cell.startswith("#!") else new_markdown_cell(cell)
        for cell in cells
    ]
    return new_notebook(cells=[new_markdown_cell(FIRST), *made])


def test_words_are_those_that_are_read():
    text = "One [two](three.ipynb#four) <!-- = five --> <b>six</b>\n\n```python\nseven()\n```\n"
    assert minutes.words(text) == len("One two six".split())
    assert minutes.words("**Time:** 25 minutes for the core path.") == 0


def test_the_path_ends_where_the_book_says():
    """Catches a count that takes what is under Going deeper for the path."""
    body = " ".join(["word"] * 148)
    found = minutes.counts(
        chapter(
            f"## Idea\n\n{body}",
            "## Summary\n\nx y",
            f"## Going deeper\n\n### More\n\n{body}",
            "## Exercises\n\n### Exercise 1: a\n\nx\n\n### Exercise 2: b\n\nx",
            f"## Explain it back\n\n{body}",
        )
    )
    core = len(FIRST.split()) + 2 + 148 + 2 + 2
    assert found.core_words == core  # "##" counts as the heading's mark, as in a word count
    assert found.core == 5 and found.deeper == 5
    assert found.exercises == 2 * minutes.MINUTES_PER_EXERCISE


def test_a_question_takes_a_minute_and_no_words_of_the_path():
    plain = minutes.counts(chapter())
    asked = minutes.counts(chapter(f"**Predict.** Why?\n\n{OPTION}"))
    assert asked.core_words == plain.core_words and asked.words > plain.words
    many = minutes.counts(chapter(*[f"**Predict.** Why?\n\n{OPTION}"] * 10))
    assert many.core == minutes.rounded(10 + plain.core_words / minutes.WORDS_PER_MINUTE)


def test_hidden_code_is_not_read():
    code = "\n".join(["x = 1"] * 100)
    shown = chapter(f"#!{code}")
    hidden = chapter(f"#!{code}")
    hidden.cells[1].metadata["tags"] = ["hide-input"]
    assert minutes.counts(shown).core == 15  # 10 minutes and a few words
    assert minutes.counts(hidden).core == 5


def test_the_line_is_written_once():
    once = minutes.with_line(chapter())
    twice = minutes.with_line(once)
    assert once == twice
    assert once.cells[0].source.count("**Time:**") == 1
    assert "**The question: why?**\n\n**Time:** 5 minutes" in once.cells[0].source
    with pytest.raises(ValueError, match="must have a question"):
        minutes.with_line(new_notebook(cells=[new_markdown_cell("# T")]))


def test_what_is_too_long_is_named():
    short = minutes.Counts(100, 20, 0, 30, 1000)
    long = minutes.Counts(minutes.MOST_WORDS + 1, 30, 0, 30, 1000)
    assert minutes.complaints({"a": short}) == []
    (complaint,) = minutes.complaints({"a": short, "b": long})
    assert complaint.startswith("b: core path of 2501 words")
    walk = {f"{i}": short for i in range(12)} | {minutes.LAST_OF_WALK: short}
    (complaint,) = minutes.complaints(walk)
    assert complaint == "core paths to MLA: 260 minutes, at most 240"
    huge = {minutes.LAST_OF_WALK: short._replace(words=minutes.MOST_MEAN + 1)}
    assert "words, at most" in minutes.complaints(huge)[0]


def test_every_chapter_says_its_time_and_keeps_the_limits():
    found = {}
    for path in toc.paths():
        notebook = nbformat.read(path, as_version=4)
        found[path.stem] = minutes.counts(notebook)
        assert minutes.line(found[path.stem]) in notebook.cells[0].source, path.stem
    assert minutes.complaints(found) == []
