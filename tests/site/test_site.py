"""Every page of the built book in a real Chromium: over http and from disk, light and dark.

`make site` builds the book; nothing is built here. `problems` is the one checker, and the last
tests prove that it catches a page that is broken on purpose and leaves a sound one in peace.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

import pytest
from playwright.sync_api import Browser, Page

from tools import SITE, build_site, serve

FRONT = SITE / "index.html"  # sends the reader on to the front page
PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for folder in (SITE, SITE / "chapters")
    for path in folder.glob("*.html")
    if path != FRONT
)

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PICTURE_NAME = re.compile(r"://|[/\\]|\.(?:png|svg|jpe?g|gif|webp)$", re.IGNORECASE)

# Resolves when the scripts that wait have run, MathJax is done and images are there.
SETTLED = """async () => {
  const end = performance.now() + 20_000;
  const until = async (what, holds) => {
    while (!holds()) {
      if (performance.now() > end) throw new Error(`still waiting for ${what}`);
      await new Promise((done) => setTimeout(done, 10));
    }
  };
  await until("scripts", () => !document.querySelector("script[data-waits]"));
  const maths = document.querySelector('script[src*="mathjax"]');
  await until("MathJax", () => !maths || window.MathJax?.startup?.promise);
  if (window.MathJax?.startup?.promise) await window.MathJax.startup.promise;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
}"""

# What a page shows: maths done and failed, text that should have been maths, images.
SHOWN = r"""() => {
  const quiet = "script, style, noscript, pre, code, kbd, textarea, mjx-container";
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const raw = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const found = /\$\$|\$[^\s$][^$]*\$|\\\(|\\\[|\\begin\{/.exec(node.data);
    if (found && !node.parentElement.closest(quiet)) raw.push(node.data.trim().slice(0, 60));
  }
  return {
    formulas: document.querySelectorAll(".math").length,
    rendered: document.querySelectorAll("mjx-container").length,
    failed: [...document.querySelectorAll("mjx-merror, [data-mjx-error]")]
      .map((error) => error.dataset.mjxError ?? error.textContent),
    raw,
    images: [...document.images].map((image) => ({
      source: image.currentSrc || image.src,
      loaded: image.complete && image.naturalWidth > 0,
      alt: image.getAttribute("alt"),
      inArticle: image.closest("article") !== null,
    })),
  };
}"""

# Elements that reach beyond the window and lie in no box that scrolls or clips.
OVERFLOW = """() => {
  const width = document.documentElement.clientWidth;
  const boxed = (element) => {
    for (let box = element.parentElement; box; box = box.parentElement) {
      if (box.matches("body")) return false;
      if (getComputedStyle(box).overflowX !== "visible") return true;
    }
    return false;
  };
  const wide = [...document.querySelectorAll("article *")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.right > width + 1 && !boxed(element);
  });
  const scrolls = document.documentElement.scrollWidth - width;
  return [
    ...(scrolls > 1 ? [`the page scrolls sideways by ${scrolls} px`] : []),
    ...wide.slice(0, 3).map((element) => `<${element.localName} class="${element.className}">`),
  ];
}"""


def problems(chromium: Browser, address: str, home: str, scheme: str = "light") -> list[str]:
    """Open a page wide and on a phone and return all that is wrong with it.

    Args:
        chromium: the browser.
        address: the page.
        home: what the address of everything that the page may ask for begins with.
        scheme: the reader's preferred colours, ``light`` or ``dark``.
    """
    found: list[str] = []
    context = chromium.new_context(viewport=WIDE, color_scheme=scheme)
    try:
        page = context.new_page()
        listen(page, home, found)
        page.goto(address, wait_until="load")
        page.evaluate(SETTLED)
        found += shortcomings(page.evaluate(SHOWN))
        page.set_viewport_size(PHONE)
        page.evaluate("() => new Promise((done) => requestAnimationFrame(() => done()))")
        found += [f"too wide for a phone: {what}" for what in page.evaluate(OVERFLOW)]
    finally:
        context.close()
    return found


def listen(page: Page, home: str, found: list[str]) -> None:
    """Block and note requests to elsewhere; note failures and errors while a page lives."""

    def outside(url: str) -> bool:
        return not url.startswith((home, "data:", "blob:"))

    page.route(outside, lambda route: route.abort())
    page.on("request", lambda r: outside(r.url) and found.append(f"asks for {r.url}"))
    page.on("websocket", lambda socket: found.append(f"opens {socket.url}"))
    page.on("response", lambda r: r.status >= 400 and found.append(f"{r.status}: {r.url}"))
    page.on("requestfailed", lambda r: outside(r.url) or found.append(f"failed: {r.url}"))
    page.on("pageerror", lambda error: found.append(f"script error: {error}"))
    page.on("console", lambda m: m.type == "error" and found.append(f"console: {m.text}"))


def shortcomings(shown: dict) -> list[str]:
    """Return what is wrong with the maths and the images that a page shows."""
    found = [f"formula with an error: {error}" for error in shown["failed"]]
    found += [f"raw maths: {text}" for text in shown["raw"]]
    if shown["rendered"] < shown["formulas"]:
        found.append(f"{shown['rendered']} of {shown['formulas']} formulas rendered")
    for image in shown["images"]:
        name = unquote(image["source"].rpartition("/")[2])[:60]
        alt = image["alt"]
        if not image["loaded"]:
            found.append(f"image not loaded: {name}")
        if alt is None or (image["inArticle"] and not alt.strip()):
            found.append(f"image without alternative text: {name}")
        elif PICTURE_NAME.search(alt.strip()):
            found.append(f"image with a file's name as alternative text: {alt[:60]}")
    return found


def test_the_site_is_built_from_what_is_here():
    assert build_site.is_current(), "_build/html is missing or out of date: `make site`"


def test_the_site_has_every_page():
    sources = [*(build_site.ROOT / "chapters").glob("*.ipynb"), build_site.ROOT / "intro.md"]
    wanted = {p.relative_to(build_site.ROOT).with_suffix(".html").as_posix() for p in sources}
    assert wanted <= set(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_page_over_http(chromium, address, name):
    assert problems(chromium, address + name, address, "light") == []


@pytest.mark.parametrize("name", PAGES)
def test_page_from_disk(chromium, name):
    home = SITE.as_uri() + "/"
    assert problems(chromium, home + name, home, "dark") == []


@pytest.mark.parametrize("over_http", [True, False], ids=["http", "disk"])
def test_the_address_alone_leads_to_the_front_page(chromium, address, over_http):
    page = chromium.new_page()
    page.goto(address if over_http else FRONT.as_uri())
    page.wait_for_url("**/intro.html", timeout=10_000)
    page.close()


def test_scripts_that_wait_run_in_the_end(chromium, address):
    name = next(name for name in PAGES if name.startswith("chapters/"))
    assert "data-waits" in (SITE / name).read_text(encoding="utf-8")
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


LEARNING = [name for name in PAGES if 'class="option"' in (SITE / name).read_text("utf-8")]


def test_every_chapter_asks_something():
    assert set(LEARNING) == {name for name in PAGES if name.startswith("chapters/")}


@pytest.mark.parametrize("name", LEARNING)
def test_answers_open_by_keyboard_and_without_scripts(chromium, name):
    """Catches an answer that shows before it is asked for, and one that only a mouse opens."""
    context = chromium.new_context(viewport=PHONE, java_script_enabled=False)
    page = context.new_page()
    page.goto((SITE / name).as_uri(), wait_until="load")
    answers = page.locator("details:is(.option, .solution, .recall)")
    assert answers.count() == page.locator("article details:not(.hide)").count()
    for answer in answers.all():
        hidden = answer.locator(":scope > :not(summary)").first
        assert not hidden.is_visible(), hidden.text_content()
        answer.locator("> summary").focus()
        page.keyboard.press("Enter")
        assert hidden.is_visible(), answer.text_content()
        page.keyboard.press("Enter")
        assert not hidden.is_visible(), answer.text_content()
    context.close()


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


# Proof that the checks above can fail.

BROKEN = """<!doctype html><html><head><title>Broken</title>
<script src="https://cdn.example.org/library.js"></script>
<script>console.error("something went wrong"); throw new Error("thrown");</script>
</head><body><main><article>
<p>Raw $x_1$ and \\(y\\). <span class="math">z</span></p>
<mjx-container><mjx-merror data-mjx-error="Undefined control sequence">!</mjx-merror>
</mjx-container>
<span class="math">u</span>
<img src="gone.png" alt="_images/0123abcd.png"><img src="dot.svg">
<div style="width: 600px">too wide</div>
<a href="gone.html">to nowhere</a> <a href="#gone">nor here</a>
</article></main></body></html>"""

SOUND = """<!doctype html><html><head><title>Sound</title></head><body><main><article>
<p id="here">It costs $5, and <code>$HOME$</code> is code.</p>
<img src="dot.svg" alt="A dot in the middle of nothing.">
<div style="overflow-x: auto"><div style="width: 600px">wide, in a box that scrolls</div></div>
<a href="#here">here</a> <a href="https://example.org/">elsewhere</a>
</article></main></body></html>"""

DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="9"/></svg>'


@pytest.fixture
def sample(tmp_path) -> Path:
    """A folder with a broken page and a sound one."""
    (tmp_path / "broken.html").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "sound.html").write_text(SOUND, encoding="utf-8")
    (tmp_path / "dot.svg").write_text(DOT, encoding="utf-8")
    return tmp_path


CAUGHT = (
    "asks for https://cdn.example.org/library.js",
    "script error: thrown",
    "console: something went wrong",
    "raw maths: Raw $x_1$",
    "formula with an error: Undefined control sequence",
    "1 of 2 formulas rendered",
    "image not loaded: gone.png",
    "file's name as alternative text: _images/0123abcd.png",
    "image without alternative text: dot.svg",
    "too wide for a phone: the page scrolls sideways",
    "too wide for a phone: <div",
)


@pytest.mark.parametrize("over_http", [True, False], ids=["http", "disk"])
def test_a_broken_page_is_caught(chromium, sample, over_http):
    if over_http:
        with serve.server(sample) as book:
            Thread(target=book.serve_forever, daemon=True).start()
            home = f"http://127.0.0.1:{book.server_port}/"
            found = problems(chromium, home + "broken.html", home)
            book.shutdown()
        assert f"404: {home}gone.png" in found
    else:
        home = sample.as_uri() + "/"
        found = problems(chromium, home + "broken.html", home)
        assert f"failed: {home}gone.png" in found
    missed = [what for what in CAUGHT if not any(what in problem for problem in found)]
    assert not missed, found


def test_a_sound_page_is_left_in_peace(chromium, sample):
    home = sample.as_uri() + "/"
    assert problems(chromium, home + "sound.html", home) == []


def test_dead_links_are_noticed(sample):
    dead = dead_links(sample, ["broken.html", "sound.html"])
    assert dead == [
        "broken.html: gone.png",
        "broken.html: gone.html",
        "broken.html: #gone",
    ]
