"""The library's source as the book shows it: whole listings, or the lines that changed."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import textwrap
from collections.abc import Sequence

_OPENING = re.compile(r"""[rRuUbB]*(?P<quotes>\"{3}|'{3}|"|')""")


def listing_source(target: object, *, listed: Sequence[str] = ()) -> str:
    """Return the source of a function or class, each docstring cut to its summary line.

    Comments for the formatter are cut, too. Methods that were listed before are not shown
    again: the class takes them over by name, so a reader's change to them counts.

    Args:
        target: a function or class defined in a file.
        listed: names of methods of the class that were listed before.

    Returns:
        Its source, without the indentation that it has in the file.
    """
    source = cut_docstrings(textwrap.dedent(inspect.getsource(target)))
    source = re.sub(r"  # fmt: skip$", "", source, flags=re.MULTILINE)
    if not listed:
        return source
    names = ", ".join(listed)
    taken = f"    # The methods listed above.\n    {names} = (\n        {names}\n    )"
    if len(f"    {names} = {names}") <= 96:
        taken = f"    # The methods listed above.\n    {names} = {names}"
    return f"{without_methods(source, listed)}\n\n{taken}"


def without_methods(source: str, names: Sequence[str]) -> str:
    """Return the source of a class without some of its methods.

    Args:
        source: of one class, not indented.
        names: of the methods to leave out.

    Returns:
        The shorter source.
    """
    lines = source.splitlines()
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    for node in reversed(definition.body):
        if isinstance(node, ast.FunctionDef) and node.name in names:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            del lines[first - 1 : node.end_lineno]
    text = re.sub(r"\n\n\n+", "\n\n", "\n".join(lines))
    return text.rstrip()


def changed_lines(old: object, new: object, *, context: int = 1) -> str:
    """Return the lines that turn one listing into another: removed (-), added (+), context.

    Args:
        old: a function or class defined in a file.
        new: another one.
        context: unchanged lines to show around each change.

    Returns:
        The lines of a unified diff, with ``...`` where unchanged lines are left out.
    """
    before, after = listing_source(old).splitlines(), listing_source(new).splitlines()
    diff = list(difflib.unified_diff(before, after, n=context, lineterm=""))
    diff = diff[2:]  # without the names of the files
    lines = ["..." if line.startswith("@@") else line.rstrip() for line in diff]
    return "\n".join(
        lines[1:] if before[:1] != after[:1] else lines
    )  # nothing is left out above line 1


def cut_docstrings(source: str) -> str:
    """Return source with each docstring cut to its summary line, and all else unchanged.

    Args:
        source: Python code without indentation.

    Returns:
        The shorter code.
    """
    lines = source.splitlines()
    docstrings = [
        node.body[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        and ast.get_docstring(node, clean=False) is not None
    ]
    for node in sorted(docstrings, key=lambda node: node.lineno, reverse=True):
        if node.end_lineno == node.lineno:
            continue
        first = lines[node.lineno - 1]
        # ast counts columns in bytes of UTF-8.
        column = len(first.encode()[: node.col_offset].decode())
        opening = _OPENING.match(first, column)
        text = [first[opening.end() :], *lines[node.lineno : node.end_lineno]]
        summary = next(line.strip() for line in text if line.strip())
        cut = first[: opening.end()] + summary + opening["quotes"]
        lines[node.lineno - 1 : node.end_lineno] = [cut]
    return "\n".join(lines)
