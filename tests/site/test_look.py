"""What a reader with a keyboard, with motion turned off or with paper meets in each widget.

`make site` builds the book; nothing is built here. The last tests prove that the checks can
fail.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page
from test_axe import THEME_IS
from test_site import PAGES, SETTLED, SITE, WIDE

MARK = '<div class="attnlib-widget"'
ALIVE = [name for name in PAGES if MARK in (SITE / name).read_text(encoding="utf-8")]

# Whether the focus shows: on the element, on its label or on what stands for it beside it. The
# outlines and shadows that can be seen there are taken with the focus and without.
FOCUS_SHOWS = """() => {
  const element = document.activeElement;
  const beside = [...(element.parentElement?.children ?? [])];
  const places = new Set([element, element.closest("label"), ...beside]);
  const opacity = (place) => {
    let product = 1;
    for (let at = place; at; at = at.parentElement) product *= getComputedStyle(at).opacity;
    return product;
  };
  const ring = (place) => {
    const { outlineStyle, outlineWidth, outlineColor, boxShadow } = getComputedStyle(place);
    const box = place.getBoundingClientRect();
    if (opacity(place) < 0.5 || box.width * box.height === 0) return "";
    const thin = outlineStyle !== "auto" && parseFloat(outlineWidth) < 2;
    const none = outlineStyle === "none" || /^rgba.*, 0\\)$/.test(outlineColor) || thin;
    const outline = none ? "" : `${outlineStyle} ${outlineColor}`;
    return outline + (boxShadow === "none" ? "" : boxShadow);
  };
  const seen = [...places].filter(Boolean).map((place) => [place, ring(place)]);
  element.blur();
  return seen.some(([place, before]) => before !== "" && ring(place) !== before);
}"""

DESCRIBED = """() => {
  const { localName, type, className, textContent } = document.activeElement;
  return `<${localName} type=${type} class="${className}"> ${textContent.trim().slice(0, 40)}`;
}"""
MOVING = """() => document.getAnimations()
  .filter((animation) => animation.playState === "running")
  .map((animation) => animation.effect.target)
  .filter((target) => target?.closest(".attnlib-widget"))
  .map((target) => `<${target.localName} class="${target.getAttribute("class")}">`)"""

MOST_STOPS = 200  # of the Tab key in one widget; one that has more lost its way


def walk(page: Page, index: int) -> tuple[int, list[str]]:
    """Go through a widget by the Tab key.

    Args:
        page: with the widget.
        index: which of its widgets.

    Returns:
        How many elements took the focus, and those on which it does not show or that move.
    """
    widget = page.locator(".attnlib-widget").nth(index)
    widget.evaluate("(e) => { e.tabIndex = -1; e.focus(); e.removeAttribute('tabindex'); }")
    stops, found = 0, []
    while stops < MOST_STOPS:
        page.keyboard.press("Tab")
        if not widget.evaluate("(widget) => widget.contains(document.activeElement)"):
            break
        stops += 1
        where = page.evaluate(DESCRIBED)
        page.keyboard.press("ArrowRight")
        found += [f"moves at {where}: {what}" for what in page.evaluate(MOVING)]
        if not page.evaluate(FOCUS_SHOWS):
            found.append(f"focus does not show: {where}")
    return stops, found


@pytest.fixture
def calm(chromium) -> Iterator[Page]:
    """A page for a reader who wants no motion."""
    context = chromium.new_context(viewport=WIDE, reduced_motion="reduce")
    yield context.new_page()
    context.close()


@pytest.mark.parametrize("name", ALIVE)
def test_focus_shows_and_nothing_moves(calm, address, name):
    calm.goto(address + name, wait_until="load")
    for index in range(calm.locator(".attnlib-widget").count()):
        stops, found = walk(calm, index)
        assert found == []
        assert 0 < stops < MOST_STOPS, f"widget {index} has {stops} stops of the Tab key"


# What widgets are drawn in (base.css); figures are pictures and have no say here.
DATA_COLOURS = {"#0072b2", "#d55e00", "#009e73", "#cc79a7"}


def printed(page: Page, scheme: str) -> set[str]:
    """Print a page; return the colours it is painted in, those within pictures apart."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(THEME_IS, arg=scheme, timeout=10_000)
    page.evaluate(SETTLED)
    colours = set()
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", page.pdf(), re.DOTALL):
        try:
            commands = zlib.decompress(stream)
        except zlib.error:
            continue  # a font or a picture
        for rgb in re.findall(rb"([\d.]+) ([\d.]+) ([\d.]+) rg\b", commands):
            colours.add("#" + "".join(f"{round(255 * float(part)):02x}" for part in rgb))
    return colours


def on_paper(page: Page) -> tuple[set[str], set[str]]:
    """Return the colours that a page is printed in when it is light, and when it is dark."""
    return printed(page, "light"), printed(page, "dark")


@pytest.mark.parametrize("name", ALIVE)
def test_paper_is_white_and_widgets_keep_their_colours(chromium, address, name):
    page = chromium.new_page()
    page.goto(address + name, wait_until="load")
    light, dark = on_paper(page)
    assert dark == light
    assert dark & DATA_COLOURS, "no widget's colour is on the paper"
    assert page.evaluate("document.documentElement.dataset.theme") == "dark", "not as it was"
    page.close()


# Proof that the checks above can fail.

SAMPLE = """<!doctype html><html lang="en"><head><title>Sample</title><style>
@keyframes turn {{ to {{ opacity: 0.5; }} }}
{style}
</style></head><body><div class="attnlib-widget">
<label><input type="radio" name="a" checked><span>a</span></label>
<button>b</button><input type="range"><details><summary>c</summary></details>
</div></body></html>"""

FAULTS = {
    "focus does not show: <button": "button:focus { outline: none; }",
    "focus does not show: <input type=radio": "input { opacity: 0; }",
    "focus does not show: <summary": "summary { outline: 3px solid red !important; }",
    "moves at <input type=range": "input:focus { animation: turn 9s; }",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(calm, fault):
    calm.set_content(SAMPLE.format(style=FAULTS[fault]))
    stops, found = walk(calm, 0)
    assert stops == 4
    assert any(problem.startswith(fault) for problem in found), found


def test_a_sound_widget_is_left_in_peace(calm):
    style = "input:focus-visible + span { outline: 3px solid red; } input { opacity: 0; }"
    calm.set_content(SAMPLE.format(style=style.replace("input {", "[type=radio] {")))
    assert walk(calm, 0) == (4, [])


def test_a_page_printed_dark_is_noticed(chromium, address):
    page = chromium.new_page()
    page.route("**/book.js*", lambda route: route.abort())
    page.goto(address + ALIVE[0], wait_until="load")
    light, dark = on_paper(page)
    assert light != dark
    page.close()
