"""The API's pages: nothing public is left out, and a mistake in a docstring fails the build."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
import yaml

import attnlib
import docstrings
from attnlib.book import widgets
from tools import CHAPTERS

ROOT = Path(__file__).resolve().parents[2]

PAGES = sorted((ROOT / "appendix").glob("api*.md"))

OPTIONS = re.compile(r"autodoc_|napoleon_|nitpick_|add_module_names")

CONF = """\
import sys
sys.path[:0] = [{here!r}, {extensions!r}]
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings"]
root_doc = "index"
"""


def shown() -> list[str]:
    """Return the modules that the pages show."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    return re.findall(r"automodule:: (\S+)", text)


def test_every_module_is_shown():
    """Catches a module that is added and stands on no page."""
    files = [path.relative_to(ROOT) for path in (ROOT / "attnlib").rglob("*.py")]
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
    # These packages show what their __all__ names, which their modules define.
    within = {
        n for n in names if n.startswith(("attnlib.book.plots.", "attnlib.book.widgets."))
    }
    assert set(shown()) >= names - within - {"attnlib"}
    assert len(shown()) == len(set(shown()))


def test_every_public_name_stands_in_the_table():
    """Catches a name that `attnlib` offers and the overview lacks, and one that went."""
    text = (ROOT / "appendix" / "api.md").read_text(encoding="utf-8")
    pairs = re.findall(r"\{py:obj\}`~(attnlib\.\w+)\.(\w+)`", text)
    assert sorted(name for _, name in pairs) == sorted(attnlib.__all__)
    for module, name in pairs:
        thing = getattr(attnlib, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert thing.__module__ == module


def listed(path: Path) -> set[str]:
    """Return the names of the library that a chapter lists, each with its module."""
    names = set()
    for cell in nbformat.read(path, as_version=4).cells:
        wanted = cell.metadata.get("attnlib", {}).get("listing", [])
        for name in [wanted] if isinstance(wanted, str) else wanted:
            module, _, last = name.rpartition(".")
            thing = getattr(attnlib, last, None)
            names.add(f"{module or thing.__module__.removeprefix('attnlib.')}.{last}")
    return names


def shown_beside(chapter: str) -> set[str]:
    """Return the names in the tables' rows of a chapter, each with its module."""
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    rows = [line for line in text.splitlines() if f"(chapters/{chapter})" in line]
    return set(re.findall(r"`(?:~|[\w.]+ <)attnlib\.([\w.]+)>?`", "\n".join(rows)))


def test_what_chapters_list_stands_in_a_table():
    """Catches a listing that a reader finds on no page of the API from its chapter's name."""
    paths = sorted(CHAPTERS.glob("*.ipynb"))
    missing = {path.stem: listed(path) - shown_beside(path.name) for path in paths}
    assert sum(len(listed(path)) for path in paths) > 40
    assert {stem: names for stem, names in missing.items() if names} == {}


def test_every_widget_stands_beside_its_chapters():
    """Catches a widget without a row, and a chapter that shows it and is not named."""
    text = (ROOT / "appendix" / "api-pictures.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(r"^\| \{py:obj\}`(\w+) <attnlib\.widgets\.\1>` \| (.+) \|$", text, re.M)
    )
    used = {name: [] for name in widgets.__all__ if name != "Widget"}
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        code = [
            c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"
        ]
        for name in used:
            if any(re.search(rf"^{name}\(", source, re.M) for source in code):
                used[name].append(path.name)
    assert all(used.values())
    assert {n: re.findall(r"\(chapters/([^)]+)\)", row) for n, row in rows.items()} == used


def test_every_module_says_where_it_is():
    """A signature does not say what to import, so the line above it does."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        said = re.findall(
            r"`(attnlib[\w.]*)`", "\n".join(re.findall(r"^Modules? .+", text, re.M))
        )
        assert sorted(said) == sorted(re.findall(r"automodule:: (\S+)", text)), page.name


def built(folder: Path, text: str) -> tuple[int, str]:
    """Build pages of a module as the book does; return the exit status and the warnings.

    Args:
        folder: an empty one.
        text: the module's source.
    """
    (folder / "sample.py").write_text(text, encoding="utf-8")
    (folder / "index.rst").write_text("Sample\n======\n\n.. automodule:: sample\n", "utf-8")
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    book = config["sphinx"]["config"]
    assert set(docstring_extensions()) <= set(book["extensions"])
    options = {name: value for name, value in book.items() if OPTIONS.match(name)}
    lines = [f"{name} = {value!r}" for name, value in options.items()]
    conf = CONF.format(here=str(folder), extensions=str(ROOT / "_ext"))
    (folder / "conf.py").write_text(conf + "\n".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "--keep-going"]
    command += ["-b", "dummy", str(folder), str(folder / "out")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.returncode, run.stderr


def docstring_extensions() -> list[str]:
    """Return the extensions that the proof below uses, which the book has to use too."""
    return ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings"]


SOURCE = (ROOT / "attnlib" / "masks.py").read_text(encoding="utf-8")


def test_a_right_docstring_builds(tmp_path):
    assert built(tmp_path, SOURCE) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("in tokens.\n", "in tokens, see :func:`no_such`.\n", "target not found: no_such"),
        ("        window: keys each", "        windows: keys each", "the signature has"),
        ("        k_positions: key", "        (k) key", "no 'name: meaning'"),
        ("    Args:", "    Arg:", "no heading of a section"),
        ("    Raises:", "    Raise:", "no heading of a section"),
        ("True means the query", "``True means the query", "start-string"),
        ("``(T, S)``", ":shape:`(T, S)`", "Unknown interpreted text role"),
    ],
)
def test_a_mistake_in_a_docstring_fails_the_build(tmp_path, right, wrong, complaint):
    assert right in SOURCE
    status, warnings = built(tmp_path, SOURCE.replace(right, wrong))
    assert status != 0
    assert complaint in warnings


def test_arguments_are_compared_both_ways():
    def function(a, *rest, b=1, **more):
        pass

    lines = ["Do.", "", "Args:", "    a: one.", "    rest, b: two,", "        or more: three."]
    assert docstrings.entries(lines, "Args:") == ["a", "rest", "b"]
    (complaint,) = docstrings.complaints("function", function, lines)
    assert complaint == "Args are a, rest, b; the signature has a, rest, b, more"
    lines.append("    **more (int): others.")
    assert docstrings.complaints("function", function, lines) == []


def test_fields_of_named_tuples_stand_once():
    """Catches `Alias for field number 0`, which says less than the class does."""

    class Pair(NamedTuple):
        """Two numbers."""

        first: int

        @property
        def double(self) -> int:
            """Twice the first."""
            return 2 * self.first

    def left_out(thing: object) -> bool:
        return bool(docstrings.skip(None, "class", "name", thing, False, None))

    assert left_out(Pair.first)
    assert not left_out(Pair.double)
