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

NEEDED_AT_ONCE = {"documentation_options.js", "doctools.js", "sphinx_highlight.js"}


def name_folds_by_their_words(app: Sphinx, page: str, template: str, context: dict, doctree):
    """Let the visible words of a folded cell be its accessible name."""
    if "body" in context:
        context["body"] = context["body"].replace(FOLD_LABEL, "<summary>")


def let_scripts_wait(app: Sphinx, page: str, template: str, context: dict, doctree):
    """Draw the page, widgets and all, before the scripts that only serve buttons and search.

    Sphinx's own do not wait: lines within the page and the search script call them.
    """
    for script in context.get("script_files", []):
        name = str(getattr(script, "filename", None) or "").rpartition("/")[2]
        if name.endswith(".js") and name not in NEEDED_AT_ONCE:
            script.attributes.setdefault("defer", "defer")


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
    app.connect("html-page-context", let_scripts_wait, priority=900)  # all are listed by then
    app.connect("build-finished", drop_font_preloads)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
