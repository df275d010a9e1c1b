"""Write the listing cells of the chapters from the library, or check them against it.

    python -m tools listings           rewrite every listing cell
    python -m tools listings --check   show what differs, exit 1 if anything does

A listing cell is a code cell whose metadata names what it shows::

    {"attnlib": {"listing": "attention"}}
    {"attnlib": {"listing": ["rope_angles", "core.fused_attention"]}}

A name is an attribute of ``attnlib`` or of one of its modules, or a method, such as
``KVCache.update``. The cell's source is the object's own source with each docstring cut to its
summary line; a class whose methods were listed before takes them over by name.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Sequence

import nbformat
from nbformat import NotebookNode

import attnlib
from attnlib.book.listings import listing_source
from tools import CHAPTERS, arguments
from tools.canonical import dumps, normalise

MAX_LINES = 40
MAX_COLUMNS = 96

# Public names that no chapter lists, each with its reason.
NOT_LISTED = {
    "__version__": "a string, not code",
    "MODELS": "a table; the chapter on choosing a variant prints rows of it",
}


class ListingError(Exception):
    """A listing that cannot be made as asked."""


def listed_names(cell: NotebookNode) -> list[str]:
    """Return the names that a listing cell shows; none for any other cell."""
    if cell.cell_type != "code":
        return []
    names = cell.metadata.get("attnlib", {}).get("listing", [])
    return [names] if isinstance(names, str) else list(names)


def resolve(name: str) -> object:
    """Return the object that a listing names.

    Args:
        name: ``attention``, ``KVCache.update`` or, with its module, ``core.fused_attention``.

    Raises:
        ListingError: if there is no such function or class.
    """
    head, _, rest = name.rpartition(".")
    try:
        # The module first: `attnlib.attention` may be the function that hides the module.
        target = importlib.import_module(f"attnlib.{head}") if head else attnlib
    except ModuleNotFoundError:
        target, rest = attnlib, name
    for part in rest.split("."):
        target = getattr(target, part, None)
    if not (inspect.isfunction(target) or inspect.isclass(target)):
        raise ListingError(f"attnlib has no function or class {name!r}")
    return target


def identity(name: str) -> str:
    """Return one spelling for the object, however a listing spells it."""
    target = resolve(name)
    return f"{target.__module__}.{target.__qualname__}"


def listing(name: str, before: Sequence[str] = ()) -> str:
    """Return what a listing cell shows for one name.

    Args:
        name: of a function, class or method.
        before: names that the chapter listed before.

    Raises:
        ListingError: if there is no such object, or its listing exceeds the budget.
    """
    target = resolve(name)
    methods = [resolve(other).__qualname__.split(".") for other in before]
    listed = [parts[1] for parts in methods if parts[:-1] == [target.__name__]]
    text = listing_source(target, listed=listed if inspect.isclass(target) else ())
    lines = text.splitlines()
    if len(lines) > MAX_LINES:
        raise ListingError(f"{name} takes {len(lines)} lines, at most {MAX_LINES}: split it")
    widest = max(map(len, lines))
    if widest > MAX_COLUMNS:
        raise ListingError(f"{name} is {widest} columns wide, at most {MAX_COLUMNS}")
    return text


def cell_source(names: list[str], before: Sequence[str] = ()) -> str:
    """Return the source of a listing cell, after those that the chapter listed before."""
    return "\n\n\n".join(listing(name, before) for name in names)


def coverage_errors(chapters: dict[str, list[str]]) -> list[str]:
    """Return what is listed twice, and which public name is listed nowhere.

    Args:
        chapters: the listed names of each chapter.
    """
    errors = []
    where: dict[str, str] = {}
    for chapter, names in chapters.items():
        for name in names:
            key = identity(name)
            if key in where:
                errors.append(f"{name} is listed in {chapter} and before in {where[key]}")
            where.setdefault(key, chapter)
    for name in attnlib.__all__:
        if name not in NOT_LISTED and identity(name) not in where:
            errors.append(f"{name} is public, but no chapter lists it")
    return errors


def difference(stored: str, wanted: str, where: str) -> str:
    """Return a unified diff from the stored cell to the library."""
    return "\n".join(
        difflib.unified_diff(
            stored.splitlines(), wanted.splitlines(), where, "attnlib", lineterm=""
        )
    )


def run(*, write: bool) -> list[str]:
    """Compare or rewrite the listing cells of all chapters; return what is wrong."""
    errors: list[str] = []
    chapters: dict[str, list[str]] = {}
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        chapters[path.name] = []
        changed = False
        for number, cell in enumerate(notebook.cells, start=1):
            names = listed_names(cell)
            if not names:
                continue
            try:
                wanted = cell_source(names, chapters[path.name])
                chapters[path.name] += names
            except ListingError as error:
                errors.append(f"{path.name}, cell {number}: {error}")
                continue
            if cell.source != wanted and write:
                cell.source, changed = wanted, True
                print(f"{path.name}: wrote {', '.join(names)}")
            elif cell.source != wanted:
                errors.append(difference(cell.source, wanted, f"{path.name}, cell {number}"))
        if changed:
            path.write_text(dumps(normalise(notebook, path.stem)), encoding="utf-8")
    if not errors:
        errors = coverage_errors(chapters)
    return errors


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(argv)
    errors = run(write=not options.check)
    for error in errors:
        print(error, file=sys.stderr)
    if errors:
        print(
            "`make listings` rewrites the cells; then `make notebooks` executes them.",
            file=sys.stderr,
        )
        return 1
    print("listings agree with attnlib")
    return 0
