"""Command-line arguments, checked before anything is measured or trained."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and end the program with status 2.

        Args:
            message: what is wrong.
        """
        self.exit(2, f"{self.prog}: error: {message}\n")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """End the program in the same way if something in a block does not fit.

        Yields:
            Nothing.
        """
        try:
            yield
        except ValueError as error:
            self.error(str(error))


def sizes(text: str) -> list[int]:
    """Read sizes with commas between them.

    Args:
        text: such as "2048,8192".

    Returns:
        The sizes.

    Raises:
        argparse.ArgumentTypeError: if one is not a whole number of at least 1.
    """
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(
            f"must be whole numbers of at least 1 with commas between them, got {text!r}"
        )
    return [int(part) for part in parts]


def size(text: str) -> int:
    """Read one size.

    Args:
        text: such as "15".

    Returns:
        The size.

    Raises:
        argparse.ArgumentTypeError: if it is not one whole number of at least 1.
    """
    if len(sizes(text)) > 1:
        raise argparse.ArgumentTypeError(f"must be one number, got {text!r}")
    return sizes(text)[0]


def prepare_file(path: Path) -> Path:
    """Check that a file can be written, and make the folders that it needs.

    Args:
        path: of the file, which may exist; it is not changed.

    Returns:
        ``path``, unchanged.

    Raises:
        ValueError: if nothing can be written there.
    """
    unfinished = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.touch()
        unfinished.unlink()
    except OSError as error:
        raise ValueError(f"json must be a file that can be written, got {error}") from None
    if path.is_dir():
        raise ValueError(f"json must be a file, got the folder {path}")
    return path
