"""The order of the chapters, which `_toc.yml` alone knows.

Chapters are named by topic. Whatever needs an order (recall questions, lesson plans, lists of
links) asks here, so that a chapter is inserted by one line in `_toc.yml`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

from tools import ROOT

CHAPTERS = "chapters/"


class Part(NamedTuple):
    """A part of the table of contents.

    Attributes:
        caption: the heading above it in the menu.
        numbered: whether its pages have numbers, which go on from part to part.
        pages: paths without suffix, in order.
    """

    caption: str
    numbered: bool
    pages: list[str]


def parts(root: Path = ROOT) -> list[Part]:
    """Return the parts of a book in order.

    Args:
        root: the book's folder, the one with `_toc.yml`.
    """
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    return [
        Part(
            part["caption"],
            bool(part.get("numbered")),
            [entry["file"] for entry in part["chapters"]],
        )
        for part in toc["parts"]
    ]


def chapters(root: Path = ROOT) -> list[str]:
    """Return the names of a book's chapters in order, such as ``"kv-cache"``.

    Args:
        root: the book's folder, the one with `_toc.yml`.
    """
    pages = [page for part in parts(root) for page in part.pages]
    return [page.removeprefix(CHAPTERS) for page in pages if page.startswith(CHAPTERS)]


def paths(root: Path = ROOT) -> list[Path]:
    """Return the notebooks of a book's chapters in order.

    Args:
        root: the book's folder, the one with `_toc.yml`.
    """
    return [root / CHAPTERS / f"{name}.ipynb" for name in chapters(root)]


def earlier(chapter: Path) -> list[str]:
    """Return the names of the chapters that come before one.

    Args:
        chapter: a notebook in the folder ``chapters`` of a book.

    Returns:
        Names in order; none for the first chapter, or if the folder belongs to no book.
    """
    root = chapter.parent.parent
    if not (root / "_toc.yml").exists():
        return []
    names = chapters(root)
    return names[: names.index(chapter.stem)] if chapter.stem in names else names
