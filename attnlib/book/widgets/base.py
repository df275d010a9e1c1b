"""The base class of all widgets: one ES module, two ways to deliver it.

With a live kernel, ``anywidget`` shows the widget and syncs its traits both ways. A page
without a kernel shows stored HTML: the same JavaScript inline, its data as JSON, and a table
with the same content for readers without scripts.
"""

from __future__ import annotations

import base64
import html
import json
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib.resources import files

import anywidget
import traitlets

SHARED = "base"  # base.js and base.css precede every widget's own files
MORE = {"heatmap": ("pagemodel",)}  # files that follow a widget's own in the same module
JSON_OF = 'type="application/json"'


@cache
def source(name: str, suffix: str) -> str:
    """Return the code of a widget, preceded by the code that all widgets share.

    Args:
        name: of the widget's file, without suffix.
        suffix: ``js`` or ``css``; a widget without its own style sheet has the shared one only.

    Returns:
        The text of its files.
    """
    folder = files("attnlib.book.widgets")
    parts = [folder / f"{part}.{suffix}" for part in (SHARED, name, *MORE.get(name, ()))]
    return "\n".join(part.read_text(encoding="utf-8") for part in parts if part.is_file())


def module(name: str) -> str:
    """Return a widget's ES module in the form that anywidget expects."""
    return f"{source(name, 'js')}\nexport default {{ render }};\n"


def script(name: str) -> str:
    """Return the same code as a script that draws the widget around it immediately."""
    return f"(() => {{\n{source(name, 'js')}\nmount(render, document.currentScript);\n}})();"


def style_element(name: str) -> str:
    """Return the style sheet of a widget as an element of a page."""
    return f'<style data-attnlib="{name}">\n{source(name, "css")}</style>'


def script_element(name: str) -> str:
    """Return the script of a widget as an element of a page."""
    return f'<script data-attnlib="{name}">\n{script(name)}\n</script>'


def pack(values: Iterable[float]) -> str:
    """Pack numbers from 0 to 1 into two bytes each, for ``unpack`` here and in base.js.

    Args:
        values: numbers in 0 to 1.

    Returns:
        ``u16:`` and, in base64, the numbers in steps of 1/65535, little-endian.
    """
    numbers = array("H", (round(65535 * value) for value in values))
    if sys.byteorder == "big":
        numbers.byteswap()
    return "u16:" + base64.b64encode(numbers.tobytes()).decode("ascii")


def pack_bytes(steps: Iterable[int]) -> str:
    """Pack numbers from 0 to 1 that were rounded to steps of 1/255 into one byte each.

    Args:
        steps: the numbers times 255, integers in 0 to 255.

    Returns:
        ``u8:`` and, in base64, the bytes; for ``unpack`` here and in base.js.
    """
    return "u8:" + base64.b64encode(bytes(steps)).decode("ascii")


def unpack(text: str) -> list[float]:
    """Return the numbers that :func:`pack` or :func:`pack_bytes` packed.

    Args:
        text: from one of them.

    Returns:
        Numbers in 0 to 1.
    """
    kind, _, code = text.partition(":")
    if kind == "u8":
        return [number / 255 for number in base64.b64decode(code)]
    numbers = array("H", base64.b64decode(code))
    if sys.byteorder == "big":
        numbers.byteswap()
    return [number / 65535 for number in numbers]


def table(head: Iterable[object], rows: Iterable[Iterable[object]], caption: str = "") -> str:
    """Return an HTML table whose first column names its rows.

    Args:
        head: the column heads.
        rows: the cells, row by row.
        caption: of the table.

    Returns:
        HTML; all text is escaped.
    """
    top = "".join(
        f'<th scope="col">{html.escape(str(cell))}</th>' if cell else "<td></td>"
        for cell in head
    )
    body = ""
    for name, *cells in rows:
        body += f'<tr><th scope="row">{html.escape(str(name))}</th>'
        body += "".join(f"<td>{html.escape(str(cell))}</td>" for cell in cells) + "</tr>\n"
    above = f"<caption>{html.escape(caption)}</caption>\n" if caption else ""
    return f"<table>\n{above}<thead><tr>{top}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


class StateError(ValueError, traitlets.TraitError):
    """A state that a widget cannot show; as a TraitError, it restores the previous one."""


def one_of(name: str, allowed: Callable[[Widget], Iterable[object]]):
    """Return a traitlets validator that accepts the values allowed by the widget's data.

    Args:
        name: of the trait.
        allowed: returns the accepted values of a widget.

    Returns:
        A validator, to be assigned in the widget's class.
    """

    @traitlets.validate(name)
    def validator(self, proposal):
        values = list(allowed(self))
        if proposal["value"] not in values:
            shown = ", ".join(map(repr, values[:12])) + (", ..." if len(values) > 12 else "")
            raise StateError(f"{name} must be one of {shown}, got {proposal['value']!r}")
        return proposal["value"]

    return validator


def within(limits: Mapping[str, int]):
    """Return a traitlets validator that accepts whole numbers from 1 to a limit.

    Args:
        limits: the largest value of each trait, by name, as the page's fields have it.

    Returns:
        A validator, to be assigned in the widget's class.
    """

    @traitlets.validate(*limits)
    def validator(self, proposal):
        name, value = proposal["trait"].name, proposal["value"]
        if not 1 <= value <= limits[name]:
            raise StateError(
                f"{name} must be an integer from 1 to {limits[name]:,}, got {value!r}"
            )
        return value

    return validator


class Widget(anywidget.AnyWidget):
    """An interactive figure, with a kernel and without one.

    A subclass names its JavaScript with ``class Heatmap(Widget, file="heatmap")``, computes
    ``data`` in its constructor, declares each setting of the reader as a trait tagged
    ``sync=True, state=True``, and returns from :meth:`fallback` what a page without scripts
    shows.

    Attributes:
        data: what the page draws; JSON, computed in Python.
        label: the figure's title.
    """

    data = traitlets.Dict().tag(sync=True)
    label = traitlets.Unicode().tag(sync=True)
    file = SHARED
    anchor = ""  # the element's id, for links to the widget

    def __init_subclass__(cls, *, file: str = "", **options):
        """Assemble the widget's module; subclasses made by traitlets keep their parent's."""
        if file:
            cls.file, cls._esm, cls._css = file, module(file), source(file, "css")
        super().__init_subclass__(**options)

    def __repr__(self) -> str:
        """Return a text without the memory address, so that every run prints the same."""
        return f"{type(self).__name__}({self.label!r})"

    def state(self) -> dict[str, object]:
        """Return the reader's settings: the value of each trait tagged ``state``."""
        return {name: getattr(self, name) for name in sorted(self.traits(state=True))}

    def fallback(self) -> str:
        """Return HTML with the same content for pages without scripts."""
        raise NotImplementedError(f"{type(self).__name__} must have its own fallback")

    def html(self) -> str:
        """Return HTML for a page without a kernel; equal widgets give equal text."""
        values = {"data": self.data, "label": self.label, **self.state()}
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text = text.replace("<", "\\u003c")  # so that it contains no "</script>"
        place = f' id="{self.anchor}"' if self.anchor else ""
        return "\n".join(
            (
                f'<div class="attnlib-widget"{place} data-widget="{self.file}">',
                style_element(self.file),
                f'<div class="attnlib-fallback">\n<p>{html.escape(self.label)}</p>',
                self.fallback(),
                "</div>",
                f"<script {JSON_OF}>{text}</script>",
                script_element(self.file),
                "</div>",
            )
        )

    def _repr_mimebundle_(self, **kwargs) -> tuple[dict, dict]:
        """Return both carriers, or the live one only in Colab, which shows all it receives."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        if "google.colab" not in sys.modules:
            data["text/html"] = self.html()
        return data, metadata
