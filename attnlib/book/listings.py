"""The library's source as the book shows it: whole listings, or the lines that changed."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import textwrap

_OPENING = re.compile(r"""[rRuUbB]*(?P<quotes>\"{3}|'{3}|"|')""")


def listing_source(target: object) -> str:
    """Return the source of a function or class, each docstring cut to its summary line.

    Comments for the formatter are cut, too.

    Args:
        target: a function or class defined in a file.

    Returns:
        Its source, without the indentation that it has in the file.
    """
    source = cut_docstrings(textwrap.dedent(inspect.getsource(target)))
    return re.sub(r"  # fmt: skip$", "", source, flags=re.MULTILINE)


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
