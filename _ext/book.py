"""What this book changes in the pages that Sphinx writes."""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

# myst-nb gives each folded cell this name, which hides the words a reader sees on it.
FOLD_LABEL = '<summary aria-label="Toggle hidden content">'

# A browser refuses to preload a font for a page opened from disk, and logs an error. Only the
# theme for Python 3.10 asks for that.
FONT_PRELOAD = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')


def name_folds_by_their_words(app: Sphinx, page: str, template: str, context: dict, doctree):
    """Let the visible words of a folded cell be its accessible name."""
    if "body" in context:
        context["body"] = context["body"].replace(FOLD_LABEL, "<summary>")


def drop_font_preloads(app: Sphinx, error: Exception | None):
    """Leave the loading of fonts to the style sheets that use them."""
    if error is not None or app.builder.format != "html":
        return
    for docname in (*app.env.found_docs, "search"):
        path = Path(app.builder.get_outfilename(docname))
        page = path.read_text(encoding="utf-8")
        if (smaller := FONT_PRELOAD.sub("", page)) != page:
            path.write_text(smaller, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    """Connect to Sphinx."""
    app.connect("html-page-context", name_folds_by_their_words)
    app.connect("build-finished", drop_font_preloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
