"""Draw the theme's few icons into the page, instead of a script of 1.5 MB that knows all.

The theme writes an empty element for an icon and loads Font Awesome's script, which draws it
after the page is there. Here the shapes are taken from that same script when the book is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pydata_sphinx_theme

CREDIT = "<!-- Icons: Font Awesome Free, https://fontawesome.com, CC BY 4.0 -->"
ELEMENT = re.compile(
    r'<(?P<tag>i|span) class="(?P<classes>[^"]*\bfa-[^"]*)"(?P<rest>[^>]*)>\s*</(?P=tag)>'
)
SCRIPT = re.compile(r'\s*<script[^>]* src="[^"]*fontawesome[^"]*"[^>]*></script>')
PRELOAD = re.compile(r'\s*<link rel="preload"[^>]* href="[^"]*fontawesome[^"]*"[^>]*>')
STYLES = {"fa-lg", "fa-sm", "fa-xs", "fa-solid", "fa-regular", "fa-brands"}


class IconError(Exception):
    """An icon that the theme's own script does not know."""


def shapes(script: str) -> Callable[[str], tuple[str, str, str]]:
    """Return a look-up of icons in Font Awesome's script: width, height and path by name."""

    @cache
    def shape(name: str) -> tuple[str, str, str]:
        entry = (
            rf'(?<![\w-]){re.escape(name)}["\']?:\[(\d+),(\d+),\[[^\]]*\],"[0-9a-f]+","([^"]+)"'
        )
        found = re.findall(entry, script)
        if not found:
            raise IconError(f"the theme's script has no icon {name!r}")
        return found[-1]  # outlined shapes come first, solid ones last

    return shape


def drawn(page: str, shape: Callable[[str], tuple[str, str, str]]) -> str:
    """Return a page with its icons drawn and without the script."""

    def draw(element: re.Match[str]) -> str:
        classes = element["classes"].split()
        name = next(c for c in classes if c.startswith("fa-") and c not in STYLES)
        width, height, path = shape(name.removeprefix("fa-"))
        return (
            f'<svg class="svg-inline--fa {element["classes"]}"{element["rest"]}'
            f' aria-hidden="true" focusable="false" viewBox="0 0 {width} {height}">'
            f'<path fill="currentColor" d="{path}"></path></svg>'
        )

    page = PRELOAD.sub("", SCRIPT.sub("", page))
    revised = ELEMENT.sub(draw, page)
    return revised if revised == page else revised.replace("</body>", f"{CREDIT}\n</body>")


def find_script() -> Path:
    """Return Font Awesome's script among the theme's files.

    Raises:
        IconError: if there is none.
    """
    theme = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme"
    for pattern in ("scripts/fontawesome.js", "vendor/fontawesome/*/js/all.min.js"):
        for path in (theme / "static").glob(pattern):
            return path
    raise IconError("the theme has no script of Font Awesome")
