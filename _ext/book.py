"""What this book changes in the pages that Sphinx writes."""

from __future__ import annotations

import html
import itertools
import os
import re
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from docutils.nodes import document
from sphinx.application import Sphinx
from sphinx.config import Config

import icons
import policy
from tools import address

# myst-nb gives each folded cell this name, which hides the words a reader sees on it.
FOLD_LABEL = '<summary aria-label="Toggle hidden content">'

# A browser refuses to preload a font for a page opened from disk, and logs an error. Only the
# theme for Python 3.10 asks for that.
FONT_PRELOAD = re.compile(r'<link rel="preload" as="font"[^>]*>\s*')

# What a page needs while it is read: its own name, and the theme, which sets the colours. All
# other scripts serve buttons, search and icons; `_static/defer.js` runs them after the
# page is first painted, so that widgets are there and respond before them.
INLINE_USES = {"documentation_options.js"}  # inline scripts set values that it defines
AFTER_PARSING = {"book.js", "defer.js", "bootstrap.js", "pydata-sphinx-theme.js"}
SCRIPT = re.compile(r'<script(?P<rest>[^>]* src="(?P<path>[^"?]+)[^"]*"[^>]*)></script>')
DEFER = re.compile(r' defer(="defer")?')


# Only for a book that has an address: a sitemap, a page for addresses that do not exist, and
# titles, descriptions and pictures for previews of links.
ONLINE = ("sphinx_sitemap", "notfound.extension", "sphinxext.opengraph")


# The page is shown at any address, so its links begin at the top of the site.
LOST = """\
<h1>Page not found</h1>
<p>There is no page at this address. It may have been renamed.</p>
<ul>
<li><a href="{path}intro.html">The front page</a> lists all chapters.</li>
<li><a href="{path}search.html">The search</a> looks through all pages.</li>
<li><a href="{path}appendix/glossary.html">The glossary</a> explains each term.</li>
</ul>
"""

LIVE_FIGURE = '<div data-figure="cache-growth"></div>'  # in intro.md
FRONT_MODEL = "DeepSeek-V3 / R1"

FOLDERS = (".", "chapters", "appendix")  # where pages are

LONGEST_DESCRIPTION = 160  # characters that a list of search results shows
FORMULA = "\N{OBJECT REPLACEMENT CHARACTER}"


def configure_address(app: Sphinx, config: Config) -> None:
    """Configure what needs the repository's address: buttons, canonical links, the sitemap."""
    home = address.find()
    if home is None:
        return
    config.html_baseurl = config.ogp_site_url = home.site
    config.ogp_site_name = config.html_title
    config.ogp_enable_meta_description = False  # describe() has better ones
    config.ogp_social_cards = {"enable": False}
    config.ogp_use_first_image = True
    config.ogp_image = f"{home.site}_images/variants.png"  # where a page has no picture
    config.sitemap_url_scheme = "{link}"  # one language, one version
    config.sitemap_show_lastmod = False
    path = urlsplit(home.site).path
    config.notfound_urls_prefix = path
    config.notfound_context = {"title": "Page not found", "body": LOST.format(path=path)}
    config.html_theme_options |= {
        "repository_url": home.repository,
        "repository_branch": address.BRANCH,
        "path_to_docs": home.commit,  # the published notebooks of this very commit
        "launch_buttons": {"colab_url": address.COLAB, "notebook_interface": "classic"},
        "use_repository_button": True,
    }


def add_published_facts(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: document | None
) -> None:
    """Pass to templates what `make publish` knows: downloads, and when notebooks last ran."""
    context["downloads"] = os.environ.get("BOOK_DOWNLOADS", "")
    context["checked"] = os.environ.get("BOOK_CHECKED", "")


def name_folded_cells(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: document | None
) -> None:
    """Make the visible words of a folded cell its accessible name."""
    if "body" in context:
        context["body"] = context["body"].replace(FOLD_LABEL, "<summary>")


def show_live_figure(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: document | None
) -> None:
    """Put the front page's figure where the page marks its place.

    It is drawn by attnlib's current code, so the page itself stays plain Markdown, which GitHub
    shows without the figure.
    """
    if LIVE_FIGURE in context.get("body", ""):
        from attnlib import MODELS
        from attnlib.book.widgets import CacheGrowth
        from attnlib.costs import geometry_of

        figure = CacheGrowth(geometry_of(MODELS[FRONT_MODEL]), name=FRONT_MODEL)
        context["body"] = context["body"].replace(LIVE_FIGURE, figure.html())


def describe(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: document | None
) -> None:
    """Describe a page in its head by its first sentences, up to the first formula."""
    sentences = first_sentences(doctree) if doctree is not None else []
    text = ""
    for sentence in sentences:
        if len(text) + len(sentence) > LONGEST_DESCRIPTION:
            break
        text = f"{text} {sentence}".strip()
    if text:
        tag = r'(<meta [^>]*content=")[^"]*("[^>]*name="description")'
        graph = r'(<meta property="og:description" content=")[^"]*(")'
        tags = context.get("metatags", "")
        for pattern in (tag, graph):
            tags = re.sub(pattern, lambda m: m[1] + html.escape(text) + m[2], tags)
        context["metatags"] = tags


def first_sentences(doctree: document) -> list[str]:
    """Return the sentences of a page's first paragraphs, up to the first formula."""
    sentences = []
    for paragraph in list(doctree.findall(nodes.paragraph))[:3]:
        if not isinstance(paragraph.parent, nodes.section):
            continue
        marked = paragraph.deepcopy()
        for formula in list(marked.findall(nodes.math)):
            formula.replace_self(nodes.Text(FORMULA))
        words = " ".join(marked.astext().removeprefix("The question:").split())
        words = words[:1].upper() + words[1:]
        sentences += re.split(r"(?<=[.?!])\s+", words)
    return list(itertools.takewhile(lambda sentence: FORMULA not in sentence, sentences))


def deferred(script: re.Match[str]) -> str:
    """Return a script element, inert if defer.js runs it later."""
    name, rest = script["path"].rpartition("/")[2], DEFER.sub("", script["rest"])
    if name in INLINE_USES:
        return script[0]
    if name in AFTER_PARSING:
        return f"<script defer{rest}></script>"
    return f'<script type="text/plain" data-defer{rest}></script>'


def revise(app: Sphinx, error: Exception | None) -> None:
    """Change what no template can: icons, deferred scripts, fonts, the security policy."""
    if error is not None or app.builder.format != "html":
        return
    shape = icons.shapes(icons.find_script().read_text(encoding="utf-8"))
    for path in [p for folder in FOLDERS for p in app.outdir.glob(f"{folder}/*.html")]:
        page = path.read_text(encoding="utf-8")
        revised = icons.drawn(FONT_PRELOAD.sub("", page), shape)
        searches = path.name == "search.html"  # its scripts are its content
        if not searches and "data-defer" not in page:
            revised = SCRIPT.sub(deferred, revised)
        revised = policy.guarded(revised)
        if revised != page:
            path.write_text(revised, encoding="utf-8")
    if home := address.find():
        robots = f"User-agent: *\nAllow: /\n\nSitemap: {home.site}sitemap.xml\n"
        (app.outdir / "robots.txt").write_text(robots, encoding="utf-8")
    static = app.outdir / "_static"
    for unused in {*static.rglob("*.map"), *static.rglob("fontawesome.js*")}:
        unused.unlink()


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect to Sphinx."""
    if address.find() is not None:
        for extension in ONLINE:
            app.setup_extension(extension)
    app.connect("config-inited", configure_address, priority=100)  # before theirs
    app.connect("html-page-context", add_published_facts)
    app.connect("html-page-context", name_folded_cells)
    app.connect("html-page-context", show_live_figure)
    app.connect("html-page-context", describe, priority=900)  # after opengraph has its tags
    app.connect("build-finished", revise)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
