"""The repository itself: what no tracked file may hold, and what `import attnlib` costs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import book
from tools import sources

ROOT = Path(__file__).resolve().parents[2]

# Assembled from parts, so that this file holds none of what it looks for.
FOLDERS = "|".join(("Users", "home", "root", "tmp", "work"))
HOSTS = "|".join(
    name.replace("_", r"\.")
    for name in (
        "pypi_org",
        "pythonhosted_org",
        "npmjs_org",
        "deb_debian_org",
        "pytorch_org/whl",
    )
)
FORBIDDEN = {
    "a path on one machine": re.compile(rf"(?<![\w.:])/(?:{FOLDERS})/\w"),
    "the host of a package registry": re.compile(HOSTS),
}


def violations(text: str) -> list[str]:
    """Return what a file may not hold and holds."""
    found = ((what, pattern.search(text)) for what, pattern in FORBIDDEN.items())
    return [f"{what}: {match[0]!r}" for what, match in found if match]


def test_no_file_names_a_machine_or_a_registry():
    found = [
        f"{path.relative_to(ROOT)}: {violation}"
        for path in sources()
        for violation in violations(path.read_text(encoding="utf-8", errors="replace"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        "/".join(("see ", "root", "x")),
        "/".join(('"', "home", "me", "a.py")),
        "https://files.{}.org/simple".format("pythonhosted"),
    ],
)
def test_a_machine_or_a_registry_is_noticed(text):
    assert violations(text)


def test_an_ordinary_address_is_not_taken_for_a_machine():
    assert violations("https://arxiv.org/abs/1706.03762, /usr/bin/env, docs/work/x") == []


def modules_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter has loaded after a statement."""
    program = (
        f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


HEAVY = {"IPython", "anywidget", "ipywidgets", "matplotlib"}


def test_import_is_light():
    """Someone who wants one attention module does not pay for pictures."""
    assert modules_after("import attnlib") & HEAVY == set()


def test_a_heavy_import_is_noticed():
    assert "matplotlib" in modules_after("import attnlib, matplotlib") & HEAVY


def papers(text: str) -> set[str]:
    """Return the arXiv numbers that a text links to."""
    return set(re.findall(r"arxiv\.org/abs/(\d{4}\.\d{4,5})", text))


def test_every_paper_is_in_the_bibliography():
    """Catches a paper that a chapter cites and the bibliography lacks."""
    assert papers("[x](https://arxiv.org/abs/1706.03762)") == {"1706.03762"}
    listed = papers((ROOT / "appendix" / "bibliography.md").read_text(encoding="utf-8"))
    for path in [*sorted((ROOT / "chapters").glob("*.ipynb")), ROOT / "intro.md"]:
        missing = papers(path.read_text(encoding="utf-8")) - listed
        assert not missing, f"{path.name} cites {sorted(missing)}: add them to bibliography.md"


def test_every_widget_stands_in_a_chapter_and_is_driven():
    """Catches a widget that no reader meets, or that no test drives on its page."""
    from attnlib.book import widgets

    exported = [getattr(widgets, name) for name in widgets.__all__ if name != "Widget"]
    files = {kind.file for kind in exported if isinstance(kind, type)}
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "chapters").glob("*.ipynb")]
    stored = {name for text in texts for name in re.findall(r'data-widget=\\"(\w+)\\"', text)}
    tests = (ROOT / "tests" / "site" / "widgets").glob("test_widget_page_*.py")
    driven = {path.stem.removeprefix("test_widget_page_") for path in tests}
    assert book.LIVE_FIGURE in (ROOT / "intro.md").read_text(encoding="utf-8")
    assert files == stored | {widgets.CacheGrowth.file}  # which the build puts on that page
    assert files <= driven


def test_the_page_for_what_is_not_found_leads_to_pages():
    """Catches a link to a page that was renamed, on the one page that has no neighbours."""
    names = re.findall(r'href="\{path\}([\w/]+)\.html"', book.LOST)
    assert len(names) == book.LOST.count("<a ") == 3
    assert all(name == "search" or (ROOT / f"{name}.md").exists() for name in names)
