"""Commands that write, check, build and publish the book: ``python -m tools`` lists them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
BUILD = ROOT / "_build"
SITE = BUILD / "html"  # the built book


def installed(package: str, *path: str) -> Path:
    """Return a file or folder of an installed package, without importing that.

    Args:
        package: its name.
        *path: where the file is in it.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no package {package}: `make setup` installs it")
    return Path(spec.origin).parent.joinpath(*path)
