"""What the API pages require of docstrings, and what they show of a module.

Sphinx warns about references that lead nowhere and about text that it cannot parse, and
pydoclint compares arguments with signatures (`make lint`). Neither notices a misspelt heading
such as ``Raise:``, so this does. Warnings are errors where the book is built.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable

from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.inspect import stringify_signature

logger = logging.getLogger(__name__)

SECTIONS = {"Args:", "Attributes:", "Returns:", "Yields:", "Raises:", "Examples:", "Note:"}
HEADING = re.compile(r"[A-Z][A-Za-z ]*:")


def wrong_headings(lines: list[str]) -> list[str]:
    """Return the lines of a docstring that look like a section's heading and are none."""
    around = zip(["", *lines], lines, [*lines[1:], ""], strict=False)
    return [
        line
        for before, line, after in around
        if HEADING.fullmatch(line) and line not in SECTIONS
        if not before and after.startswith(" " * 4)
    ]


def check(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]):
    """Warn about wrong headings in the docstring that autodoc is about to write."""
    for line in wrong_headings(lines):
        known = ", ".join(sorted(SECTIONS))
        text = "docstring of %s: %r is not the heading of a section; known are %s"
        logger.warning(text, name, line, known, type="docstring")


def takes_arguments(function: Callable) -> bool:
    """Whether a function takes arguments; false if its signature cannot be read."""
    try:
        return bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False


def is_helper(thing: object) -> bool:
    """Whether a function has arguments and a docstring of one line, which explains none."""
    text = inspect.getdoc(thing) or ""
    if not inspect.isfunction(thing) or hasattr(thing, "__wrapped__"):
        return False
    return "\n" not in text and takes_arguments(thing)


def is_field(thing: object) -> bool:
    """Whether a member is a field of a named tuple, which the class documents."""
    return (inspect.getdoc(thing) or "").startswith("Alias for field number ")


def skip(app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object):
    """Leave out helpers, which are for readers of the source, and fields of named tuples."""
    if what == "module" and is_helper(thing):
        return True
    if what == "class" and is_field(thing):
        return True
    return None


def sign(app: Sphinx, what: str, name: str, thing: object, options: object, *shown: str):
    """Show a widget's own arguments; autodoc would show those of any traitlets object."""
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
