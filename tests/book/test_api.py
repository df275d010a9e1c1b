"""The API's pages: nothing public is left out, and a mistake in a docstring fails the build."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import apipages
import attnlib
import docstrings
from attnlib.book import widgets
from tools import toc

ROOT = Path(__file__).resolve().parents[2]

PAGES = sorted((ROOT / "appendix").glob("api*.md"))

OPTIONS = re.compile(r"autodoc_|napoleon_|nitpick_|add_module_names")

CONF = """\
import sys
sys.path[:0] = [{here!r}, {extensions!r}]
extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "docstrings"]
root_doc = "index"
"""


def wanted(what: str) -> list[str]:
    """Return what the pages' comments ask for.

    Args:
        what: ``"modules"`` or ``"names"``.
    """
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    return [
        found["wanted"] for found in apipages.COMMENT.finditer(text) if found["what"] == what
    ]


def test_every_module_is_shown():
    """Catches a module that no page shows, and one that two pages show."""
    shown = [entry.name for one in wanted("modules") for entry in apipages.shown(one)]
    assert len(shown) == len(set(shown))
    files = [path.relative_to(ROOT) for path in (ROOT / "attnlib").rglob("*.py")]
    names = {".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files}
    details = tuple(
        f"{name.removesuffix(':all')}."
        for one in wanted("modules")
        for name in one.split()
        if name.endswith(":all")
    )
    missing = {
        name
        for name in names - set(shown) - {"attnlib"}
        if not name.startswith(details)
        and not name.endswith(apipages.SCRIPTS)
        and apipages.as_shown(name, name)  # packages above do not show all of it
        and apipages.offered(importlib.import_module(name))
    }
    assert missing == set()


def test_every_public_name_stands_beside_one_chapter():
    """Catches a name that `attnlib` offers and that no chapter shows or uses."""
    table = apipages.beside_chapters("attnlib")
    names = [name.rpartition(".")[2] for chapter in table.values() for name in chapter]
    assert sorted(names) == sorted(name for name in attnlib.__all__ if name != "__version__")


def test_what_chapters_list_stands_in_a_table():
    """Catches a listing that a reader finds on no page of the API from its chapter's name."""
    tables = [apipages.beside_chapters(one) for one in wanted("names")]
    listed = {path.stem: apipages.used(path)[0] for path in toc.paths()}
    assert sum(map(len, listed.values())) > 40
    for chapter, names in listed.items():
        assert set(names) <= {name for table in tables for name in table[chapter]}, chapter


def test_names_in_tables_are_documented():
    """Catches a link from a table to a name that its page does not show."""
    shown = {entry.name: entry for one in wanted("modules") for entry in apipages.shown(one)}
    for one in wanted("names"):
        for names in apipages.beside_chapters(one).values():
            for name in names:
                module, _, last = name.rpartition(".")
                assert module in shown, name
                assert last not in shown[module].left_out, name
                assert apipages.has_words(module, last), name


def test_every_widget_stands_beside_a_chapter():
    """Catches a widget that no chapter shows."""
    [one] = [one for one in wanted("names") if "attnlib.book.widgets" in one]
    names = {name for row in apipages.beside_chapters(one).values() for name in row}
    module = "attnlib.book.widgets"
    elsewhere = {"Widget", "CacheGrowth"}  # the base class, and the front page's figure
    assert {f"{module}.{n}" for n in widgets.__all__ if n not in elsewhere} <= names


@pytest.fixture
def package(tmp_path, monkeypatch) -> Iterator[str]:
    """The name of a package that offers one name of its module, which has two."""
    folder = tmp_path / "outer" / "offering"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    part = 'def one():\n    """1."""\n\n\ndef two():\n    """2."""\n\n\n#: 3.\nTHREE = {}\n'
    (folder / "part.py").write_text(part, encoding="utf-8")
    (folder.parent / "beside.py").write_text('def four():\n    """4."""\n', encoding="utf-8")
    offer = "from outer.beside import four\nfrom outer.offering.part import THREE, one\n"
    offer += "\n__all__ = ['THREE', 'four', 'one']\n"
    (folder / "__init__.py").write_text(offer, encoding="utf-8")
    (folder / "shared.py").write_text("from outer.offering.part import one\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield "outer.offering"
    for name in [name for name in sys.modules if name.partition(".")[0] == "outer"]:
        del sys.modules[name]


def test_what_a_page_asks_for_is_shown(package):
    """Catches a name that is shown by its module and by the package above it."""
    whole, part = (package, False, ("four",)), (f"{package}.part", True, ("one",))
    assert list(apipages.shown(package)) == [whole, part]
    assert list(apipages.shown(f"{package}:all")) == [whole]
    assert list(apipages.shown(f"{package}.*")) == [part]
    for name, home in (
        ("one", package),
        ("THREE", f"{package}.part"),
        ("four", "outer.beside"),
    ):
        assert apipages.documented(f"{package}.{name}") == f"{home}.{name}"
        assert apipages.documented(f"{package}.part.two") == f"{package}.part.two"


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("attnlib.attention", "attnlib.core.attention"),
        ("attnlib.core.attention", "attnlib.core.attention"),
        ("attnlib.KVCache.update", "attnlib.cache.KVCache.update"),
        ("attnlib.MODELS", "attnlib.models.MODELS"),
        ("attnlib.book.widgets.dial.RopeDial", "attnlib.book.widgets.RopeDial"),
        ("attnlib.core", "attnlib.core"),
        ("attnlib.core.no_such", None),
        ("no_such.module", None),
    ],
)
def test_a_name_is_found_where_the_pages_show_it(target, name):
    assert apipages.documented(target) == name


def test_what_a_chapter_uses_is_found():
    """Catches what is used by its module's name, and a module that was not imported before."""
    cells = [
        {"source": "import torch\nfrom attnlib.bench import results\n"},
        {
            "source": [
                "from attnlib import bench, core as c\n",
                "from attnlib.costs import Cost",
            ]
        },
        {"source": "r = results.load_run('x')\nbench.timed(r.rows, torch.ones(2), c.attend)"},
    ]
    used = ["bench.results.load_run", "bench.timed", "core.attend", "costs.Cost"]
    assert sorted(apipages.imported(cells)) == [f"attnlib.{name}" for name in used]


def test_pages_say_where_a_name_is_imported_from():
    """A signature does not say what to import, so the heading above it does."""
    text = apipages.expanded("a\n\n<!-- table of modules: attnlib.book.widgets:all -->\n\nb")
    assert text == (
        "a\n\n## `attnlib.book.widgets`\n\n"
        "```{eval-rst}\n.. automodule:: attnlib.book.widgets\n```\n\nb"
    )


def built(folder: Path, *texts: str) -> tuple[int, str]:
    """Build pages of modules as the book does; return the exit status and the warnings.

    Args:
        folder: an empty one.
        *texts: sources of the modules ``sample0``, ``sample1`` and so on.
    """
    page = "Samples\n=======\n"
    for i, text in enumerate(texts):
        (folder / f"sample{i}.py").write_text(text, encoding="utf-8")
        page += f"\n.. automodule:: sample{i}\n"
    (folder / "index.rst").write_text(page, encoding="utf-8")
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


MISTAKES = (
    ("in tokens.\n", "in tokens, see :func:`no_such`.\n", "target not found: no_such"),
    ("    Args:", "    Arg:", "not the heading of a section"),
    ("    Raises:", "    Raise:", "not the heading of a section"),
    ("True means the query", "``True means the query", "start-string"),
    ("``(T, S)``", ":shape:`(T, S)`", "Unknown interpreted text role"),
)


def test_a_mistake_in_a_docstring_fails_the_build(tmp_path):
    assert all(right in SOURCE for right, _, _ in MISTAKES)
    wrong = [SOURCE.replace(right, wrong) for right, wrong, _ in MISTAKES]
    status, warnings = built(tmp_path, *wrong)
    assert status != 0
    for i, (_, _, complaint) in enumerate(MISTAKES):
        lines = [line for line in warnings.splitlines() if f"sample{i}." in line]
        assert any(complaint in line for line in lines), (i, complaint, warnings)


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
