"""What this book changes in the pages that Sphinx writes."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

sys.path.append(str(Path(__file__).resolve().parent.parent / "tools"))

import address

# myst-nb gives each folded cell this name, which hides the words a reader sees on it.
FOLD_LABEL = '<summary aria-label="Toggle hidden content">'

# A browser refuses to preload a font for a page opened from disk, and logs an error. Only the
# theme for Python 3.10 asks for that.
FONT_PRELOAD = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')

# What a page needs while it is read: its own name, and the theme, which sets the colours. All
# other scripts serve buttons, search, icons and maths; `_static/later.js` runs them after the
# first picture of the page, so that widgets are there and answer before them.
NAMED_WITHIN = {"documentation_options.js"}  # lines within the page set values of its
AFTER_PARSING = {"book.js", "later.js", "bootstrap.js", "pydata-sphinx-theme.js"}
SCRIPT = re.compile(r'<script(?P<rest>[^>]* src="(?P<path>[^"?]+)[^"]*"[^>]*)></script>')
DEFER = re.compile(r' defer(="defer")?')


def lead_home(app: Sphinx, config: Config):
    """Give pages the address of this repository, if there is one: buttons, canonical links."""
    home = address.find()
    if home is None:
        return
    config.html_baseurl = home.site
    config.html_theme_options |= {
        "repository_url": home.repository,
        "repository_branch": address.BRANCH,
        "path_to_docs": home.commit,  # the published notebooks of this very commit
        "launch_buttons": {"colab_url": address.COLAB, "notebook_interface": "classic"},
        "use_repository_button": True,
    }


def name_folds_by_their_words(app: Sphinx, page: str, template: str, context: dict, doctree):
    """Let the visible words of a folded cell be its accessible name."""
    if "body" in context:
        context["body"] = context["body"].replace(FOLD_LABEL, "<summary>")


def waiting(script: re.Match) -> str:
    """Return a script's element, inert if it can wait until later.js runs it."""
    name, rest = script["path"].rpartition("/")[2], DEFER.sub("", script["rest"])
    if name in NAMED_WITHIN:
        return script[0]
    if name in AFTER_PARSING:
        return f"<script defer{rest}></script>"
    return f'<script type="text/plain" data-waits{rest}></script>'


def revise(app: Sphinx, error: Exception | None):
    """Change what no template lets one change: let scripts wait, and leave fonts to CSS."""
    if error is not None or app.builder.format != "html":
        return
    for docname in (*app.env.found_docs, "search"):
        path = Path(app.builder.get_outfilename(docname))
        page = path.read_text(encoding="utf-8")
        revised = FONT_PRELOAD.sub("", page)
        if docname != "search" and "data-waits" not in page:  # searching is all that page does
            revised = SCRIPT.sub(waiting, revised)
        if revised != page:
            path.write_text(revised, encoding="utf-8")


def setup(app: Sphinx) -> dict:
    """Connect to Sphinx."""
    app.connect("config-inited", lead_home)
    app.connect("html-page-context", name_folds_by_their_words)
    app.connect("build-finished", revise)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
