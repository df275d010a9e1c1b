"""The pages of the API: which modules they show, and which names stand beside which chapter.

A page says in a comment what it wants, and the comment is replaced when the book is built, so
that no list of modules or names is kept by hand::

    <!-- table of modules: attnlib.* attnlib.bench -->   each module with its docstrings
    <!-- table of names: attnlib.bench attnlib.labs -->  each chapter with the names it uses

``attnlib.*`` are the modules of that folder without its packages, ``attnlib.bench`` is a
package with all that is in it, and ``attnlib.book.plots:all`` is what a package offers and no
more. A package with ``__all__`` shows the names in it, since readers import them from there,
and its modules show the rest.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from docutils import nodes
from IPython.core.inputtransformer2 import TransformerManager
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer

import docstrings
from tools import contents, toc

PACKAGE = "attnlib"
COMMENT = re.compile(
    r"^<!-- table of (?P<what>modules|names): (?P<wanted>[\w.:* ]+) -->$", re.M
)
SCRIPTS = "__main__"  # run, not imported


class Shown(NamedTuple):
    """A module as a page shows it.

    Attributes:
        name: its dotted name.
        within: whether it is part of a package that the same page shows.
        left_out: its names that a package above it shows.
    """

    name: str
    within: bool
    left_out: tuple[str, ...]


def offered(module: ModuleType) -> list[str]:
    """Return the names that a module documents as its own.

    Args:
        module: with ``__all__``, those in it; otherwise the public names defined in it, helpers
            with a single line of docstring left aside.
    """
    if hasattr(module, "__all__"):
        return list(module.__all__)
    code = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and is_code(value)
        and value.__module__ == module.__name__
        and not docstrings.is_helper(value)
    ]
    return code + explained_values(module.__name__)


def is_code(thing: object) -> bool:
    """Whether something is a function or a class, and knows the module that defines it."""
    return inspect.isfunction(thing) or inspect.isclass(thing)


def explained_values(module: str) -> list[str]:
    """Return the public values, such as tables, that a module's source explains.

    Args:
        module: its dotted name. Only the module that defines a value can show it.
    """
    try:
        words = ModuleAnalyzer.for_module(module).find_attr_docs()
    except PycodeError:
        return []
    return [name for scope, name in words if not scope and not name.startswith("_")]


def above(module: str) -> list[ModuleType]:
    """Return the packages that a module is in and that say what they offer, from the top.

    Args:
        module: its dotted name. ``attnlib`` itself does not count: its names are shown by the
            modules that define them.
    """
    parts = module.split(".")
    packages = [importlib.import_module(".".join(parts[:n])) for n in range(2, len(parts))]
    return [package for package in packages if hasattr(package, "__all__")]


def shown(wanted: str) -> Iterator[Shown]:
    """Yield the modules that a page shows, in order.

    Args:
        wanted: modules, packages, ``package.*`` and ``package:all``, separated by spaces.
    """
    for name in wanted.split():
        package = importlib.import_module(name.removesuffix(".*").removesuffix(":all"))
        folder, prefix = getattr(package, "__path__", []), f"{package.__name__}."
        if name.endswith(".*"):
            found = pkgutil.iter_modules(folder, prefix)
            names = [info.name for info in found if not info.ispkg]
        elif name.endswith(":all"):
            names = [package.__name__]
        else:
            found = pkgutil.walk_packages(folder, prefix)
            names = [package.__name__, *sorted(info.name for info in found)]
        for one in names:
            if not one.endswith(SCRIPTS) and (entry := as_shown(one, package.__name__)):
                yield entry


def as_shown(name: str, package: str) -> Shown | None:
    """Return how a module is shown; None if packages above it show all it has.

    Args:
        name: of the module, dotted.
        package: the package that the page asks for.
    """
    module = importlib.import_module(name)
    left_out = [
        public
        for parent in above(name)
        for public in parent.__all__
        if is_code(thing := getattr(module, public, None)) and getattr(parent, public) is thing
    ]
    if left_out and not set(offered(module)) - set(left_out):
        return None
    for public in getattr(module, "__all__", []):
        thing = getattr(module, public)
        if is_code(thing) and not f"{thing.__module__}.".startswith(f"{name}."):
            left_out.append(public)  # it comes from elsewhere, and is shown there
    return Shown(name, name != package and package != PACKAGE, tuple(dict.fromkeys(left_out)))


def documented(target: str) -> str | None:
    """Return the name under which the pages show an object of attnlib.

    Args:
        target: a dotted name of it, by any module that has it.

    Returns:
        The dotted name by the topmost package that offers it, or for a value by the module that
        explains it; None if there is no such object.
    """
    parts = target.split(".")
    for end in range(len(parts), 0, -1):
        try:
            module = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        break
    else:
        return None
    if end == len(parts):
        return target
    public, rest = parts[end], parts[end + 1 :]
    if not hasattr(module, public):
        return None
    thing = getattr(module, public)
    if not is_code(thing):
        return ".".join([home_of_value(module.__name__, public), public, *rest])
    home = thing.__module__
    for package in [*above(home), importlib.import_module(home)]:
        if getattr(package, public, None) is thing and (
            package.__name__ == home or public in package.__all__
        ):
            return ".".join([package.__name__, public, *rest])
    return None


def home_of_value(module: str, name: str) -> str:
    """Return the module that explains a value, such as a table of constants.

    Args:
        module: one that has it; its own modules are asked too.
        name: of the value.
    """
    value = getattr(importlib.import_module(module), name)
    below = sorted(other for other in sys.modules if other.startswith(f"{module}."))
    for other in [module, *below]:
        if name in explained_values(other) and getattr(sys.modules[other], name) is value:
            return other
    return module


def has_words(module: str, name: str) -> bool:
    """Whether the pages show a name: a function, a class, or a value with words of its own."""
    home = importlib.import_module(module)
    thing = getattr(home, name, None)
    if name not in getattr(home, "__all__", [name]):
        return False
    if is_code(thing):
        return bool(thing.__doc__) and not docstrings.is_helper(thing)
    return name in explained_values(module)


def listed(cell: dict) -> list[str]:
    """Return what a listing cell shows, by the names that the pages have; methods by class."""
    wanted = cell["metadata"].get("attnlib", {}).get("listing", [])
    names = []
    for name in [wanted] if isinstance(wanted, str) else wanted:
        found = documented(f"{PACKAGE}.{name}")
        while found and inspect.isclass(resolved(found.rpartition(".")[0])):
            found = found.rpartition(".")[0]
        names += [found] if found else []
    return names


def resolved(name: str) -> object:
    """Return the object with a dotted name; None if there is none."""
    module, _, last = name.rpartition(".")
    try:
        home = importlib.import_module(module)
        return getattr(home, last) if hasattr(home, last) else importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def imported(code: list[dict]) -> list[str]:
    """Return what code cells use of attnlib and the pages show, by the pages' names for it.

    Args:
        code: cells of one chapter. ``from attnlib.bench import timed`` uses a name, and so does
            ``bench.timed`` after ``from attnlib import bench``.
    """
    targets, modules = [], {}
    for cell in code:
        source = TransformerManager().transform_cell("".join(cell["source"]))
        tree = list(ast.walk(ast.parse(source)))
        for node in tree:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
                for alias in node.names:
                    target = f"{node.module}.{alias.name}"
                    targets.append(target)
                    if inspect.ismodule(resolved(target)):
                        modules[alias.asname or alias.name] = target
        for node in tree:
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id in modules:
                    targets.append(f"{modules[node.value.id]}.{node.attr}")
    names = []
    for target in dict.fromkeys(targets):
        found = documented(target)
        if found and "." in found and has_words(*found.rpartition(".")[::2]):
            names.append(found)
    return names


@functools.cache
def used(path: Path) -> tuple[list[str], list[str]]:
    """Return what a chapter lists, and what it uses without listing it, in order.

    Args:
        path: of its notebook.
    """
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    lists = list(dict.fromkeys(name for cell in code for name in listed(cell)))
    return lists, [name for name in dict.fromkeys(imported(code)) if name not in lists]


def is_public(name: str) -> bool:
    """Whether ``from attnlib import`` gives a name."""
    package = importlib.import_module(PACKAGE)
    last = name.rpartition(".")[2]
    return last in package.__all__ and getattr(package, last) is resolved(name)


def beside_chapters(wanted: str, root: Path = toc.ROOT) -> dict[str, list[str]]:
    """Return the names of a table, by chapter, in the order of the book.

    Args:
        wanted: ``attnlib`` for the names that it gives itself, each where it is taught;
            packages and ``package.*`` for what else chapters list, and for what they use.
        root: the book's folder.
    """
    modules = {entry.name for entry in shown(wanted)} if wanted != PACKAGE else set()
    floor = wanted.endswith("*") or f"{PACKAGE}.*" in wanted.split()
    table: dict[str, list[str]] = {}
    taught: set[str] = set()
    for path in toc.paths(root):
        lists, imports = used(path)
        if wanted == PACKAGE:
            # A name that is no code has no listing: it stands where it is imported first.
            values = [name for name in imports if not callable(resolved(name))]
            names = [name for name in [*lists, *values] if is_public(name)]
            names = [name for name in names if name not in taught]
            taught |= set(names)
        else:
            names = [
                name
                for name in (lists if floor else [*lists, *imports])
                if name.rpartition(".")[0] in modules and not is_public(name)
            ]
        table[path.stem] = names
    return table


def names_table(wanted: str, root: Path = toc.ROOT) -> str:
    """Return the table of the names beside the chapters that teach or use them.

    Args:
        wanted: as in :func:`beside_chapters`.
        root: the book's folder.
    """
    lines = ["| chapter | names |", "|---|---|"]
    for chapter, names in beside_chapters(wanted, root).items():
        if names:
            title, _ = contents.title_and_question(root / toc.CHAPTERS / f"{chapter}.ipynb")
            roles = [f"{{py:obj}}`{short(name)} <{name}>`" for name in names]
            link = f"[{title}](../{toc.CHAPTERS}{chapter}.ipynb)"
            lines.append(f"| {link} | {', '.join(roles)} |")
    return "\n".join(lines)


def short(name: str) -> str:
    """Return a name as a table shows it: without module where attnlib itself gives it."""
    module, _, last = name.rpartition(".")
    return last if is_public(name) else f"{module.rpartition('.')[2]}.{last}"


def modules_text(wanted: str) -> str:
    """Return the part of a page that shows modules.

    Args:
        wanted: as in :func:`shown`.
    """
    blocks = []
    for entry in shown(wanted):
        level = "###" if entry.within else "##"
        options = (
            f"\n   :exclude-members: {', '.join(entry.left_out)}" if entry.left_out else ""
        )
        blocks += [
            f"{level} `{entry.name}`",
            f"```{{eval-rst}}\n.. automodule:: {entry.name}{options}\n```",
        ]
    return "\n\n".join(blocks)


def expanded(text: str) -> str:
    """Return a page's text with what its comments ask for."""
    write = {"modules": modules_text, "names": names_table}
    return COMMENT.sub(lambda found: write[found["what"]](found["wanted"]), text)


def expand(app: Sphinx, page: str, source: list[str]):
    """Write what a page's comments ask for, before Sphinx reads the page."""
    if COMMENT.search(source[0]):
        for path in [toc.ROOT / "_toc.yml", *toc.paths()]:
            app.env.note_dependency(str(path))
        source[0] = expanded(source[0])


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.Element
) -> nodes.Element | None:
    """Let a reference by the module that defines a name find it where the pages show it."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py" or not target.startswith(f"{PACKAGE}."):
        return None
    name = documented(target)
    if name in (None, target):
        return None
    domain = env.get_domain("py")
    page, kind = node["refdoc"], node["reftype"]
    return domain.resolve_xref(env, page, app.builder, kind, name, node, text)


def setup(app: Sphinx) -> dict:
    """Connect to Sphinx."""
    app.connect("source-read", expand)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
