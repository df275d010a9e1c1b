"""The command line that the laboratories share: one option has one name, whichever runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from attnlib.checks import check_size


def parser(name: str, description: str, settings: object) -> argparse.ArgumentParser:
    """Make the parser of a laboratory's command line.

    Args:
        name: of the module in :mod:`attnlib.labs`.
        description: of what it does.
        settings: a dataclass, each field of which becomes an option with its value.

    Returns:
        The parser, to which options of one laboratory alone can be added.
    """
    program = f"python -m attnlib.labs.{name}"
    made = argparse.ArgumentParser(prog=program, description=description)
    add = made.add_argument
    add("--json", type=Path, metavar="FILE", required=True, help="where to write, and go on")
    add("--seeds", type=int, nargs="+", metavar="N", default=list(range(5)),
        help="one run for each; default: 0 1 2 3 4")  # fmt: skip
    add("--device", default="cpu", help="such as cpu or cuda; default: cpu")
    add("--threads", type=int, metavar="N", default=1, help="of the CPU; default: 1")
    add("--folder", type=Path, help="of Python files to read; default: Python's own library")
    add = made.add_argument_group("settings of every run").add_argument
    for field, value in asdict(settings).items():
        some = value if isinstance(value, tuple) else (value,)
        many = {"nargs": "+"} if isinstance(value, tuple) else {}
        shown = f"default: {' '.join(map(str, some))}"
        add(option(field), type=type(some[0]), metavar="N", default=value, help=shown, **many)
    return made


def option(field: str) -> str:
    """Return the name on the command line of a field of the settings.

    Args:
        field: such as ``"d_model"``.

    Returns:
        Such as ``"--d-model"``.
    """
    return f"--{field.replace('_', '-')}"


def parsed(
    made: argparse.ArgumentParser, kind: type, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, object]:
    """Read a command line, and give the CPU its threads.

    Args:
        made: of :func:`parser`.
        kind: the dataclass of the settings.
        arguments: of the command line; ``None`` takes the program's own.

    Returns:
        All that was given, and the settings among it.
    """
    given = made.parse_args(arguments)
    torch.set_num_threads(check_size("threads", given.threads))
    chosen = {name: getattr(given, name) for name in asdict(kind())}
    many = {name: tuple(value) for name, value in chosen.items() if isinstance(value, list)}
    return given, kind(**{**chosen, **many})
