"""The built book as a whole: its pages, links and search, and what its formulas are set in.

`make site` builds the book; nothing is built here. test_pages.py looks at every page.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from fontTools.ttLib import TTFont
from visits import FRONT, PAGES, SETTLED, SITE, is_current

from tools import ROOT, formulas, installed


def test_the_site_is_built_from_what_is_here():
    assert is_current(), "_build/html is missing or out of date: `make site`"


def test_the_site_has_every_page():
    sources = [ROOT / "intro.md", *ROOT.glob("chapters/*.ipynb"), *ROOT.glob("appendix/*.md")]
    wanted = {p.relative_to(ROOT).with_suffix(".html").as_posix() for p in sources}
    assert wanted <= set(PAGES)


@pytest.mark.parametrize("over_http", [True, False], ids=["http", "disk"])
def test_the_address_alone_leads_to_the_front_page(chromium, address, over_http):
    page = chromium.new_page()
    page.goto(address if over_http else FRONT.as_uri())
    page.wait_for_url("**/intro.html", timeout=10_000)
    page.close()


def test_scripts_that_wait_run_in_the_end(chromium, address):
    name = next(name for name in PAGES if name.startswith("chapters/"))
    assert "data-defer" in (SITE / name).read_text(encoding="utf-8")
    page = chromium.new_page()
    page.goto(address + name, wait_until="load")
    page.evaluate(SETTLED)
    page.wait_for_selector("button.copybtn", state="attached", timeout=10_000)
    assert page.evaluate("typeof Search.setIndex") == "function"
    assert page.locator("svg.svg-inline--fa").count() > 0
    page.close()


SHIFTS = """window.shifted = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shifted += entry.value;
}).observe({ type: "layout-shift", buffered: true });"""


def test_no_line_moves_while_a_page_opens_on_a_phone(chromium, address):
    page = chromium.new_page(viewport={"width": 412, "height": 823})
    page.add_init_script(SHIFTS)
    page.goto(f"{address}chapters/scaling.html", wait_until="load")
    page.evaluate(SETTLED)
    assert page.evaluate("() => window.shifted") < 0.1  # a good page, by Web Vitals
    page.close()


# Whether the font of the formulas is there, and how wide it draws a root, in the sizes of type.
ROOT_WIDTH = """() => {
  const root = [...document.querySelectorAll(".math math")].find((formula) =>
    formula.childElementCount === 1 && formula.querySelector("msqrt > mi"));
  const size = parseFloat(getComputedStyle(root).fontSize);
  return [document.fonts.check("16px Formulas"), root.getBoundingClientRect().width / size];
}"""


def test_formulas_are_set_in_the_font_of_the_book(online):
    """Catches a font that is not there, and one that leaves a gap beside each root."""
    page = online.open("chapters/scaling.html")
    page.evaluate(SETTLED)
    has_font, width = page.evaluate(ROOT_WIDTH)
    assert has_font
    font = TTFont(installed("ziamath", *formulas.FONT))
    widths = [font["hmtx"][font.getBestCmap()[ord(drawn)]][0] for drawn in "√𝐷"]
    assert width == pytest.approx(sum(widths) / font["head"].unitsPerEm, abs=0.02)


@pytest.mark.parametrize(
    ("words", "page"),
    [
        ("absorb", "chapters/multi-head-latent-attention.html"),
        ("n_kv_heads", "chapters/grouped-query-attention.html"),
    ],
)
def test_search_finds_words_of_prose_and_code(chromium, address, words, page):
    """Catches an index without code, and a policy or a waiting script that stops the search."""
    tab = chromium.new_page()
    tab.goto(f"{address}search.html?q={words}", wait_until="load")
    found = tab.locator(f'#search-results a[href*="{page}"]').first
    found.wait_for(state="visible", timeout=20_000)
    tab.close()


class Anchors(HTMLParser):
    """Collects a page's ids and its links."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "id" and value:
                self.ids.add(value)
            if key in {"href", "src"} and value:
                self.links.append(value)


def dead_links(site: Path, pages: list[str]) -> list[str]:
    """Return the links within a site that lead to no file or to no id."""
    anchors = {name: Anchors((site / name).read_text(encoding="utf-8")) for name in pages}
    dead = []
    for name, page in anchors.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            path = (site / name).parent / unquote(parts.path) if parts.path else site / name
            target = path.resolve()
            inside = target.is_relative_to(site.resolve())
            if not (inside and target.is_file()):
                dead.append(f"{name}: {link}")
                continue
            known = anchors.get(target.relative_to(site.resolve()).as_posix())
            if parts.fragment and known and unquote(parts.fragment) not in known.ids:
                dead.append(f"{name}: {link}")
    return dead


def test_links_lead_somewhere():
    assert dead_links(SITE, PAGES) == []


# Proof that dead links are noticed.

BROKEN = """<!doctype html><html><head><title>Broken</title></head><body>
<img src="gone.png"><a href="gone.html">to nowhere</a> <a href="#gone">nor here</a>
<a href="sound.html#here">there</a> <a href="sound.html#gone">not there</a>
</body></html>"""

SOUND = """<!doctype html><html><head><title>Sound</title></head><body>
<p id="here"><a href="#here">here</a> <a href="https://example.org/">elsewhere</a></p>
</body></html>"""


def test_dead_links_are_noticed(tmp_path):
    (tmp_path / "broken.html").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "sound.html").write_text(SOUND, encoding="utf-8")
    assert dead_links(tmp_path, ["broken.html", "sound.html"]) == [
        "broken.html: gone.png",
        "broken.html: gone.html",
        "broken.html: #gone",
        "broken.html: sound.html#gone",
    ]
