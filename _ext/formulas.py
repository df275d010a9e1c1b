"""Formulas of the book: MathML that is made when the book is built (`tools/formulas.py`)."""

from __future__ import annotations

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

from tools import formulas

STYLE = "formulas.css"

logger = logging.getLogger(__name__)


def visit_inline(self: HTML5Translator, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(f'<span class="math notranslate">{converted(node, False)}</span>')
    raise nodes.SkipNode


def visit_display(self: HTML5Translator, node: nodes.math_block) -> None:
    """Write a formula on a line of its own, in a box that scrolls where it is too wide."""
    self.body.append(f'<div class="math notranslate">{converted(node, True)}</div>\n')
    raise nodes.SkipNode


def converted(node: nodes.Element, is_display: bool) -> str:
    """Return a node's formula; warn, and so stop the build, if it cannot be read."""
    try:
        return formulas.mathml(node.astext(), is_display=is_display)
    except formulas.FormulaError as error:
        logger.warning("no formula: %s", error, location=node)
        return ""


def write_style(app: Sphinx, error: Exception | None) -> None:
    """Write the font of all formulas of the book, those of older builds included."""
    if error is None and app.builder.format == "html":
        pages = (
            page.read_text(encoding="utf-8") for page in sorted(app.outdir.rglob("*.html"))
        )
        style = formulas.style("".join(pages))
        (app.outdir / "_static" / STYLE).write_text(style, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    # Sphinx takes the one renderer that is not its own.
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_display, None))
    app.add_css_file(STYLE)
    app.connect("build-finished", write_style)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
