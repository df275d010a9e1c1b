"""What the pages of the API ask of a docstring, beyond what Sphinx asks itself.

Sphinx warns of a reference that leads nowhere, and of text that it cannot parse. This warns of
arguments that are not those of the signature, and of headings of sections that are none.
Warnings are errors where the book is built, so a docstring that is wrong fails the build.
"""

from __future__ import annotations

import inspect
import re

from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.inspect import stringify_signature

logger = logging.getLogger(__name__)

SECTIONS = {"Args:", "Attributes:", "Returns:", "Yields:", "Raises:", "Examples:", "Note:"}
HEADING = re.compile(r"[A-Z][A-Za-z ]*:")
ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]+\))?:(?: |$)")


def entries(lines: list[str], section: str) -> list[str]:
    """Return the names that a section of a docstring explains.

    Args:
        lines: of the docstring, as they stand, without common indentation.
        section: its heading, such as ``"Args:"``.

    Returns:
        Names in the order of the text; empty if there is no such section.

    Raises:
        ValueError: if a line of the section begins no entry and continues none.
    """
    names: list[str] = []
    if section not in lines:
        return names
    for line in lines[lines.index(section) + 1 :]:
        if line and not line.startswith(" "):
            break
        if not line.strip() or line.startswith(" " * 5):  # deeper: it continues an entry
            continue
        found = ENTRY.match(line.strip())
        if not (line.startswith(" " * 4) and found):
            raise ValueError(
                f"{section} has a line that is no 'name: meaning': {line.strip()!r}"
            )
        names += [name.strip("*") for name in found["names"].split(", ")]
    return names


def parameters(thing: object) -> list[str] | None:
    """Return the names of what one passes; ``None`` if the signature cannot be read."""
    try:
        signature = inspect.signature(callable_of(thing))
    except (TypeError, ValueError):
        return None
    return [name for name in signature.parameters if name not in ("self", "cls")]


def callable_of(thing: object) -> object:
    """Return what has a thing's signature: a class takes what its ``__init__`` takes."""
    if inspect.isclass(thing) and inspect.isfunction(thing.__init__):
        return thing.__init__
    return thing


def complaints(what: str, thing: object, lines: list[str]) -> list[str]:
    """Return what is wrong with a docstring, each a sentence.

    Args:
        what: kind of the thing, as autodoc says it: ``"function"``, ``"class"`` and so on.
        thing: what the docstring is of.
        lines: of the docstring.
    """
    found = [
        f"{line!r} is no heading of a section: {', '.join(sorted(SECTIONS))} are"
        for before, line, after in zip(["", *lines], lines, [*lines[1:], ""], strict=False)
        if HEADING.fullmatch(line) and not before and after.startswith(" " * 4)
        if line not in SECTIONS
    ]
    try:
        arguments = entries(lines, "Args:")
        for section in ("Attributes:", "Raises:"):
            entries(lines, section)
    except ValueError as error:
        return [*found, str(error)]
    if not arguments:
        return found
    if what not in {"function", "method", "class", "exception"}:
        return [*found, f"a {what} takes no Args"]
    wanted = parameters(thing)
    if wanted is not None and arguments != wanted:
        found.append(f"Args are {', '.join(arguments)}; the signature has {', '.join(wanted)}")
    return found


def check(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]):
    """Warn of what is wrong with the docstring that autodoc is about to write."""
    for complaint in complaints(what, thing, lines):
        logger.warning("docstring of %s: %s", name, complaint, type="docstring")


def is_helper(thing: object) -> bool:
    """Whether a function says in one line what it does, and nothing of its arguments."""
    text = inspect.getdoc(thing) or ""
    if not inspect.isfunction(thing) or hasattr(thing, "__wrapped__"):
        return False
    return "\n" not in text and bool(parameters(thing))


def is_field(thing: object) -> bool:
    """Whether a member is a field of a named tuple, which the class explains."""
    return (inspect.getdoc(thing) or "").startswith("Alias for field number ")


def skip(app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object):
    """Leave helpers out, which are for who reads the source, and what stands there already."""
    if what == "module" and is_helper(thing):
        return True
    if what == "class" and is_field(thing):
        return True
    return None


def sign(app: Sphinx, what: str, name: str, thing: object, options: object, *shown: str):
    """Show what a widget takes; autodoc would show what any traitlets object takes."""
    if what == "class" and inspect.isfunction(thing.__init__):
        signature = inspect.signature(thing.__init__)
        kept = [p for n, p in signature.parameters.items() if n != "self"]
        return stringify_signature(signature.replace(parameters=kept)), ""
    return None


def setup(app: Sphinx) -> dict:
    """Connect to Sphinx."""
    app.connect("autodoc-process-docstring", check, priority=100)  # before napoleon rewrites it
    app.connect("autodoc-process-signature", sign)
    app.connect("autodoc-skip-member", skip)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
