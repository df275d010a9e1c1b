"""The built book as a whole: its pages, links and search, and formulas that come late.

`make site` builds the book; nothing is built here. test_pages.py looks at every page.
"""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from visits import FRONT, PAGES, SETTLED, SITE, is_current

from tools import ROOT


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


def formulas(chromium, url: str, fail: bool = False) -> tuple[float, list[str]]:
    """Return how far lines moved on a phone till formulas were set, and raw TeX's sizes."""
    page = chromium.new_page(viewport={"width": 412, "height": 823})
    page.add_init_script(SHIFTS)
    if fail:
        page.route("**/tex-chtml.js*", lambda route: route.abort())
    page.goto(url, wait_until="load")
    page.wait_for_selector("html.formulas-set", state="attached", timeout=20_000)
    sizes = """() => [...document.querySelectorAll("article span.math")]
      .filter((math) => !math.querySelector("mjx-container"))
      .map((math) => getComputedStyle(math).fontSize)"""
    found = page.evaluate("() => window.shifted"), page.evaluate(sizes)
    page.close()
    return found


def test_formulas_come_without_breaking_lines_anew(chromium, address):
    moved, raw = formulas(chromium, address + "chapters/scaling.html")
    assert moved < 0.1  # a good page, by Web Vitals
    assert raw == []


def test_tex_is_readable_where_no_formula_can_be_set(chromium, address):
    _, raw = formulas(chromium, address + "chapters/scaling.html", fail=True)
    assert raw
    assert min(float(size.removesuffix("px")) for size in raw) >= 12


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
