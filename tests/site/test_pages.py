"""Every page of the built book in a real Chromium, each opened as few times as can be.

`make site` builds the book; nothing is built here. A page is opened three times, and each visit
looks at what can differ there: over http in light colours (then on a phone, at 400 %, in high
contrast, printed, walked through by the Tab key, and judged by axe), from disk in dark colours,
and from disk without scripts.
The checks are in opened.py, fallbacks.py, look.py and axe.py; this file, test_axe.py and
test_look.py prove that each of them can fail.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from axe import IN_BRIEF, STATES, violations
from fallbacks import bare_tables, hidden_tables, looked_at, undrawn
from look import (
    faults_in_high_contrast,
    faults_on_paper,
    faults_on_the_way,
    faults_when_magnified,
)
from opened import SHOWN, problems, shortcomings
from pages import ALIVE, WIDGETS
from visits import PAGES, SETTLED, SITE, WIDE, Reader, resize, served

FRONT = {"intro.html": ("growth",)}


def widgets_of(name: str) -> tuple[str, ...]:
    """Return the names of a page's widgets: its chapter's, or those the build puts in."""
    return FRONT.get(name) or tuple(WIDGETS.get(Path(name).stem, ()))


# The API's pages are made by one template from docstrings: axe judges the longest of them.
API = sorted(
    (name for name in PAGES if name.startswith("appendix/api-")),
    key=lambda name: (SITE / name).stat().st_size,
)

# Every page with a widget; of the others, which differ in words alone, one of each folder.
LIKE_NO_OTHER = sorted({*ALIVE, *{Path(name).parent: name for name in PAGES}.values()})


@pytest.mark.parametrize("name", PAGES)
def test_page_over_http(online, name):
    page = online.page
    page.emulate_media(color_scheme="light")
    found = problems(online, name, widgets_of(name))
    resize(page, WIDE)
    found += faults_when_magnified(page)
    if name in ALIVE or name in FRONT:
        found += faults_in_high_contrast(page)
        found += faults_on_paper(page, is_whole=name == ALIVE[0])
        page.emulate_media(color_scheme="light")
        found += faults_on_the_way(page)
    found += online.problems
    # Last, since axe itself asks for style sheets that are not there.
    if name not in API[:-1]:
        states = IN_BRIEF if name in LIKE_NO_OTHER else IN_BRIEF[1:]
        found += violations(page, STATES if name == ALIVE[0] else states)
    assert found == []


@pytest.mark.parametrize("name", LIKE_NO_OTHER)
def test_page_from_disk(offline, name):
    page = offline.open(name)
    page.evaluate(SETTLED)
    found = shortcomings(page.evaluate(SHOWN)) + undrawn(looked_at(page), widgets_of(name))
    assert found + offline.problems == []


# The pages that ask something: with options, solutions and questions of recall.
LEARNING = [name for name in PAGES if 'class="option"' in (SITE / name).read_text("utf-8")]


def test_every_chapter_asks_something():
    assert set(LEARNING) == {name for name in PAGES if name.startswith("chapters/")}


ANSWERS = "details:is(.option, .solution, .recall)"
# Of each answer: the summary's words, and whether the first thing below the summary is seen.
SEEN = """(answers) => [...document.querySelectorAll(answers)].map((answer) => {
  const hidden = answer.querySelector(":scope > :not(summary)");
  const box = hidden.getBoundingClientRect();
  const isSeen = hidden.checkVisibility({ visibilityProperty: true });
  return [answer.textContent.slice(0, 80), isSeen && box.width * box.height > 0];
})"""
FOCUS = "(answer) => answer.querySelector(':scope > summary').focus()"


def answers_that_open_wrongly(reader: Reader, name: str) -> list[str]:
    """Open all answers of a page by their keys, then close them; return those that stay."""
    page, found = reader.open(name), []
    answers = page.query_selector_all(ANSWERS)
    if len(answers) != len(page.query_selector_all("article details:not(.hide)")):
        found.append("some details are neither an option nor a solution nor recall")
    seen = [page.evaluate(SEEN, ANSWERS)]
    for _ in range(2):
        for answer in answers:
            answer.evaluate(FOCUS)
            page.keyboard.press("Enter")
        seen.append(page.evaluate(SEEN, ANSWERS))
    for (words, before), (_, opened), (_, closed) in zip(*seen, strict=True):
        if [before, opened, closed] != [False, True, False]:
            found.append(f"seen before, opened, closed: {[before, opened, closed]}: {words}")
    return found


@pytest.mark.parametrize("name", LEARNING)
def test_answers_and_tables_without_scripts(scriptless, name):
    """Catches an answer that shows before it is asked for, and one that only a mouse opens."""
    assert answers_that_open_wrongly(scriptless, name) == []
    assert bare_tables(scriptless.page, widgets_of(name)) == []
    assert scriptless.page.evaluate(SHOWN)["undrawn"] == []


# Proof that the checks above can fail.

BROKEN = """<!doctype html><html><head><title>Broken</title>
<script src="https://cdn.example.org/library.js"></script>
<script>console.error("something went wrong"); throw new Error("thrown");</script>
</head><body><main><article>
<p>Raw $x_1$ and \\(y\\). <span class="math">z</span></p>
<span class="math"><math></math></span>
<img src="gone.png" alt="_images/0123abcd.png"><img src="dot.svg">
<div style="width: 600px">too wide</div>
<a href="gone.html">to nowhere</a> <a href="#gone">nor here</a>
<details class="option" open><summary>1</summary><p>Shown too early.</p></details>
<details><summary>3</summary><p>Of no kind.</p></details>
</article></main></body></html>"""

SOUND = """<!doctype html><html><head><title>Sound</title></head><body><main><article>
<p id="here">It costs <span class="math"><math><mi>x</mi></math></span> times $5,
and <code>$HOME$</code> is code.</p>
<img src="dot.svg" alt="A dot in the middle of nothing.">
<div style="overflow-x: auto"><div style="width: 600px">wide, in a box that scrolls</div></div>
<a href="#here">here</a> <a href="https://example.org/">elsewhere</a>
<details class="option"><summary>1</summary><p>No.</p></details>
</article></main></body></html>"""

DOT = '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><circle r="9"/></svg>'

CAUGHT = (
    "asks for https://cdn.example.org/library.js",
    "script error: thrown",
    "console: something went wrong",
    "raw maths: Raw $x_1$",
    "formula not drawn: z",
    "image not loaded: gone.png",
    "file name as alternative text: _images/0123abcd.png",
    "image without alternative text: dot.svg",
    "too wide for a phone: the page scrolls sideways",
    "too wide for a phone: <div",
)


@pytest.fixture
def sample(tmp_path) -> Path:
    """A folder with a broken page and a sound one."""
    (tmp_path / "broken.html").write_text(BROKEN, encoding="utf-8")
    (tmp_path / "sound.html").write_text(SOUND, encoding="utf-8")
    (tmp_path / "dot.svg").write_text(DOT, encoding="utf-8")
    return tmp_path


def test_a_broken_page_is_caught(chromium, sample):
    files = Reader(chromium, sample.as_uri() + "/")
    found = {"disk": problems(files, "broken.html") + files.problems}
    assert f"failed: {files.home}gone.png" in found["disk"]
    files.close()
    with served(sample) as home:
        web = Reader(chromium, home)
        found["http"] = problems(web, "broken.html") + web.problems
        web.close()
    assert f"404: {home}gone.png" in found["http"]
    for carrier, faults in found.items():
        missed = [what for what in CAUGHT if not any(what in fault for fault in faults)]
        assert not missed, (carrier, faults)


def test_a_sound_page_passes_after_a_broken_one(chromium, sample):
    """Catches faults that are put down to the next page."""
    reader = Reader(chromium, sample.as_uri() + "/")
    assert problems(reader, "broken.html") + reader.problems != []
    assert problems(reader, "sound.html") + reader.problems == []
    reader.close()


def test_answers_that_open_wrongly_are_caught(chromium, sample):
    reader = Reader(chromium, sample.as_uri() + "/", java_script_enabled=False)
    kinds, early = answers_that_open_wrongly(reader, "broken.html")[:2]
    assert kinds.startswith("some details are neither")
    assert early.startswith("seen before, opened, closed: [True, False, True]")
    assert answers_that_open_wrongly(reader, "sound.html") == []
    reader.close()


# A page with one widget whose parts can be spoiled.
WIDGET = """<!doctype html><html lang="en"><head><title>Widget</title></head><body>
<div class="attnlib-widget" data-widget="dial"><div>{figure}</div>
{begin}<div class="attnlib-fallback"><p>{title}</p>
<table><tr><td>1</td><td>2</td><td>{number}</td></tr></table></div>{end}
</div></body></html>"""
DRAWN = {
    "figure": "<figure>drawn</figure>",
    "begin": '<details class="as-table"><summary>As a table</summary>',
    "end": "</details>",
    "title": "Title",
    "number": "3",
}
SPOILED = {
    "not one figure": {"figure": ""},
    "the table lies open": {"begin": '<details class="as-table" open><summary>.</summary>'},
    "has no title": {"title": ""},
    "has neither numbers nor a picture": {"number": "none"},
    "is not visible": {"begin": '<details class="other"><summary>As a table</summary>'},
}


def test_a_spoiled_widget_is_caught(chromium, tmp_path):
    reader = Reader(chromium, tmp_path.as_uri() + "/")
    for fault, change in {"": {}, **SPOILED}.items():
        reader.page.set_content(WIDGET.format(**DRAWN | change))
        found = hidden_tables(reader.page, ["dial"])
        assert any(fault in line for line in found) if fault else found == [], (fault, found)
    reader.page.set_content(WIDGET.format(**DRAWN))
    assert hidden_tables(reader.page, ["plane"]) == ["widgets ['dial'], not ['plane']"]
    reader.page.set_content(WIDGET.format(**DRAWN | {"begin": "", "end": "", "figure": ""}))
    assert bare_tables(reader.page, ["dial"]) == []
    reader.page.set_content(WIDGET.format(**DRAWN))
    faults = bare_tables(reader.page, ["dial"])
    assert {"dial: a dead control", "dial: half a figure"} < set(faults)
    reader.close()
