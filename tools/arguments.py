"""What the commands' arguments have in common."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from pathlib import Path

from tools import toc


def parser(description: str) -> ArgumentParser:
    """Return a parser of a command's arguments, whose help is the module's docstring."""
    return ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)


def add_chapters(parser: ArgumentParser) -> None:
    """Add the argument ``chapters``: the notebooks to work on, by default all of them."""
    parser.add_argument(
        "chapters",
        nargs="*",
        type=existing,
        metavar="CHAPTER",
        help="notebooks to work on (default: all)",
        default=toc.paths(),
    )


def existing(name: str) -> Path:
    """Return the path of a file.

    Raises:
        ArgumentTypeError: if there is none; argparse reports it.
    """
    path = Path(name)
    if not path.is_file():
        raise ArgumentTypeError(f"{name} does not exist")
    return path
