"""The library's own source as the book shows it: whole in a listing, or only what changed."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
import textwrap

_OPENING = re.compile(r"""[rRuUbB]*(?P<quotes>\"{3}|'{3}|"|')""")


def listing_source(target: object) -> str:
    """The source of a function or class, with each docstring cut to its summary line.

    Remarks to the formatter go too: they say nothing to a reader.

    Args:
        target: a function or class that was defined in a file.

    Returns:
        Its source, without the indentation it may have there.
    """
    source = cut_docstrings(textwrap.dedent(inspect.getsource(target)))
    return re.sub(r"  # fmt: skip$", "", source, flags=re.MULTILINE)


def changed_lines(old: object, new: object, *, context: int = 1) -> str:
    """What turns one listing into another: lines that go (-), that come (+), and neighbours.

    Args:
        old: a function or class that was defined in a file.
        new: another one.
        context: unchanged lines to show around each change.

    Returns:
        The lines of a unified diff, with ``...`` where unchanged lines are left out.
    """
    before, after = listing_source(old).splitlines(), listing_source(new).splitlines()
    diff = list(difflib.unified_diff(before, after, n=context, lineterm=""))[2:]  # no names
    lines = ["..." if line.startswith("@@") else line.rstrip() for line in diff]
    return "\n".join(lines[1:] if before[:1] != after[:1] else lines)  # nothing above line 1


def cut_docstrings(source: str) -> str:
    """The source with each docstring cut to its summary line; all else stays.

    Args:
        source: Python code, not indented.

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
