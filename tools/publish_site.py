"""Build the book as it is published: with its address, its PDF and zip, and when it last ran.

    python -m tools publish   into _build/html

The notebooks run first and are compared, so that what the pages say of it is true. The address
is that of this repository on GitHub (`tools/address.py`); without one the pages have no buttons
that need one, and all else is the same.
"""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version

from tools import address, downloads, steps

SHOWN = ("torch", "numpy", "matplotlib", "anywidget", "ipywidgets")


def checked() -> str:
    """Say when and with what the notebooks ran, in one line."""
    today = datetime.now(timezone.utc)
    versions = [f"{name} {version(name)}" for name in SHOWN]
    commit = address.git("rev-parse", "--short=12", "HEAD")
    where = f"{platform.system()} {platform.machine()}, no GPU"
    of = f", commit {commit}" if commit else ""
    python = f"Python {platform.python_version()}"
    return f"{today.day} {today:%B %Y}{of}: {python}, {', '.join(versions)}; {where}."


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    if status := steps.main(["nbval"]):
        return status
    os.environ["BOOK_CHECKED"] = checked()
    os.environ["BOOK_REPOSITORY"] = address.repository()
    print(f"address: {os.environ['BOOK_REPOSITORY'] or 'none'}")
    return downloads.main([])
