"""The order of chapters has one source, and a chapter is inserted by one line of it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import guards
import learning
import nbformat
import pytest
from nbformat.v4 import new_markdown_cell, new_notebook

from tools import contents, toc

TOY = "a-new-topic"
AFTER = "rotary-positions"


def test_lists_are_current():
    """Catches a list that was edited by hand, and a chapter whose title or question changed."""
    for path, wanted in contents.pages().items():
        assert path.read_text(encoding="utf-8") == wanted, path.name


def test_lists_have_all_chapters_in_order():
    readme, intro = contents.pages().values()
    linked = re.findall(r"\]\(([\w-]+)\.ipynb\)", readme)
    assert linked == toc.chapters()
    walk = re.findall(r"^\| \[[^|]+\]\(chapters/([\w-]+)\.ipynb\)", intro, re.MULTILINE)
    numbered = [Path(page).name for part in toc.parts() if part.numbered for page in part.pages]
    assert walk == numbered


def test_numbers_go_on_from_part_to_part():
    """As in the book's menu."""
    numbers = [int(n) for n in re.findall(r"^(\d+)\. ", contents.readme(), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert "- [The bug museum](bug-museum.ipynb)" in contents.readme()


def test_a_chapter_knows_what_comes_before_it(tmp_path):
    chapters = toc.chapters()
    assert toc.earlier(toc.paths()[0]) == []
    assert toc.earlier(toc.paths()[4]) == chapters[:4]
    assert toc.earlier(toc.ROOT / "chapters" / "unlisted.ipynb") == chapters
    assert toc.earlier(tmp_path / "chapters" / "sample.ipynb") == []


@pytest.fixture
def book(tmp_path) -> Path:
    """A copy of the book's chapters and of what lists them."""
    shutil.copytree(toc.ROOT / "chapters", tmp_path / "chapters")
    for name in ("_toc.yml", "intro.md"):
        shutil.copy(toc.ROOT / name, tmp_path)
    return tmp_path


def insert(book: Path) -> None:
    """Put a small chapter in the middle: a notebook, and one line in `_toc.yml`."""
    source = "# A new topic\n\n**The question: does the order come from one file?**\n\nYes."
    notebook = new_notebook(cells=[new_markdown_cell(source)])
    nbformat.write(notebook, book / "chapters" / f"{TOY}.ipynb")
    path = book / "_toc.yml"
    line = f"      - file: chapters/{AFTER}\n"
    text = path.read_text(encoding="utf-8")
    assert text.count(line) == 1
    path.write_text(text.replace(line, line + line.replace(AFTER, TOY)), encoding="utf-8")


def complaints(book: Path) -> dict[str, list[str]]:
    """Return what is wrong with the chapters of a book, the toy left aside."""
    lints = [*learning.RULES, guards.links_lead_somewhere, guards.begins_with_title]
    lints += [guards.begins_with_check, guards.reads_well_everywhere]
    return {
        path.stem: [complaint for lint in lints for complaint in lint(guards.load(path))]
        for path in toc.paths(book)
        if path.stem != TOY
    }


def plain(line: str) -> str:
    """Return a line of a list without the chapter's number and without minutes or hours."""
    return re.sub(r"^\d+\. | [\d¼½¾]+ \|$", "", line)


def test_a_chapter_is_inserted_by_one_line(book):
    """Catches whatever else knows a chapter's place: no other chapter has to be touched."""
    for page in ("appendix", "images"):
        (book / page).symlink_to(toc.ROOT / page)  # what chapters link to
    before = contents.pages(book)
    insert(book)
    assert toc.chapters(book).index(TOY) == toc.chapters().index(AFTER) + 1
    assert [name for name in toc.chapters(book) if name != TOY] == toc.chapters()
    found = complaints(book)
    assert list(found) == toc.chapters()
    assert {name: wrong for name, wrong in found.items() if wrong} == {}
    for path, text in contents.pages(book).items():
        lines = [plain(line) for line in text.splitlines()]
        [new] = [line for line in lines if TOY in line]
        assert "Does the order come from one file?" in new
        lines.remove(new)
        assert lines == [plain(line) for line in before[path].splitlines()]


def test_an_earlier_chapter_that_becomes_a_later_one_is_noticed(book):
    """Catches a recall question about a chapter that the reader has not met yet."""
    text = (book / "_toc.yml").read_text(encoding="utf-8")
    first, last = "      - file: chapters/kv-cache\n", "      - file: chapters/quality-lab\n"
    moved = text.replace(first, "").replace(last, last + first)
    (book / "_toc.yml").write_text(moved, encoding="utf-8")
    wrong = learning.closes_with_recall(
        guards.load(book / "chapters" / "rotary-positions.ipynb")
    )
    assert wrong == ["1 answers link to an earlier chapter, at least 2"]


def test_a_chapter_without_a_question_is_refused(book):
    insert(book)
    path = book / "chapters" / f"{TOY}.ipynb"
    path.write_text(path.read_text(encoding="utf-8").replace("The question", "It"), "utf-8")
    with pytest.raises(contents.ContentsError, match=rf"{TOY}\.ipynb: no `# Title`"):
        contents.readme(book)


def test_a_part_that_does_not_exist_is_refused():
    text = "<!-- table of the part Nowhere: x -->\n\n<!-- end of table -->"
    with pytest.raises(contents.ContentsError, match="no part 'Nowhere'"):
        contents.front_page(text)


def test_a_list_that_is_not_current_is_reported(monkeypatch, capsys):
    stored = contents.pages()
    changed = {path: f"{text}x" for path, text in stored.items()}
    monkeypatch.setattr(contents, "pages", lambda: changed)
    assert contents.main(["--check"]) == 1
    assert "chapters/README.md is not current" in capsys.readouterr().out
    assert all(path.read_text(encoding="utf-8") == text for path, text in stored.items())
