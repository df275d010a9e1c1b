"""What a reader with a keyboard, with motion turned off or with paper meets in each widget."""

from __future__ import annotations

import re
import zlib

from axe import THEME_IS
from opened import OVERFLOW
from playwright.sync_api import Page

# Where the focus is, if it is within the widget.
FOCUSED = """(widget) => {
  const element = document.activeElement;
  if (!widget.contains(element)) return null;
  const { localName, type, className, textContent } = element;
  return `<${localName} type=${type} class="${className}"> ${textContent.trim().slice(0, 40)}`;
}"""

# What moves, and whether the focus shows: on the element, on its label or on what represents
# it beside it. Outlines and shadows there are compared with the focus and without.
MOVES_AND_SHOWS = """() => {
  const moving = document.getAnimations()
    .filter((animation) => animation.playState === "running")
    .map((animation) => animation.effect.target)
    .filter((target) => target?.closest(".attnlib-widget"))
    .map((target) => `<${target.localName} class="${target.getAttribute("class")}">`);
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
  return [moving, seen.some(([place, before]) => before !== "" && ring(place) !== before)];
}"""

MOST_STOPS = 200  # of the Tab key in one widget; one that has more lost its way

# What widgets are drawn in (base.css). Figures are pictures, whose colours are not looked at.
DATA_COLOURS = {"#0072b2", "#d55e00", "#009e73", "#cc79a7"}


WIDGETS_ONLY = """@media print {
  article section > :not(section, .attnlib-widget, :has(.attnlib-widget)) {
    display: none !important;
  }
}"""


def walk(page: Page, index: int) -> tuple[int, list[str]]:
    """Go through a widget by the Tab key.

    Args:
        page: with the widget.
        index: which of its widgets.

    Returns:
        How many elements took the focus, and those on which it does not show or that move.
    """
    widget = page.locator(".attnlib-widget").nth(index).element_handle()
    widget.evaluate("(e) => { e.tabIndex = -1; e.focus(); e.removeAttribute('tabindex'); }")
    stops, found = 0, []
    while stops < MOST_STOPS:
        page.keyboard.press("Tab")
        where = widget.evaluate(FOCUSED)
        if where is None:
            break
        stops += 1
        page.keyboard.press("ArrowRight")
        moving, focus_shows = page.evaluate(MOVES_AND_SHOWS)
        found += [f"moves at {where}: {what}" for what in moving]
        if not focus_shows:
            found.append(f"focus does not show: {where}")
    return stops, found


def faults_on_the_way(page: Page) -> list[str]:
    """Go through all widgets of a page by the Tab key, without motion; return what is wrong."""
    page.emulate_media(reduced_motion="reduce")
    found = []
    for index in range(page.locator(".attnlib-widget").count()):
        stops, faults = walk(page, index)
        found += faults
        if not 0 < stops < MOST_STOPS:
            found.append(f"widget {index} has {stops} stops of the Tab key")
    page.emulate_media(reduced_motion="no-preference")
    return found


# A window of 1,280 pixels at 400 %: WCAG 1.4.10.
MAGNIFIED = {"width": 320, "height": 256}

# A widget measures its new width in one frame and draws in the next.
DRAWN_AGAIN = """async () => {
  for (let frame = 0; frame < 4; frame += 1) await new Promise(requestAnimationFrame);
}"""

# What reaches out of a widget and lies in no box that scrolls or clips, and text that is cut.
REACHES_OUT = """() => [...document.querySelectorAll(".attnlib-widget")].flatMap((widget) => {
  const edge = widget.getBoundingClientRect().right + 1;
  const isBoxed = (element) => {
    for (let box = element.parentElement; widget.contains(box); box = box.parentElement) {
      if (getComputedStyle(box).overflowX !== "visible" && !box.matches("svg")) return true;
    }
    return false;
  };
  const found = [...widget.querySelectorAll("*")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width * box.height > 0 && box.right > edge && !isBoxed(element);
  });
  const name = (one) => `<${one.localName} class="${one.getAttribute("class")}">`;
  return found.slice(0, 3).map((element) => `${widget.dataset.widget}: ${name(element)}`);
})"""


def faults_when_magnified(page: Page) -> list[str]:
    """Return what reaches out of its widget at four times the size; restore the window."""
    window = page.viewport_size
    page.set_viewport_size(MAGNIFIED)
    page.evaluate(DRAWN_AGAIN)
    found = [f"too wide at 400 %: {what}" for what in page.evaluate(OVERFLOW)]
    found += [f"out of its widget at 400 %: {what}" for what in page.evaluate(REACHES_OUT)]
    page.set_viewport_size(window)
    page.evaluate(DRAWN_AGAIN)
    return found


# What a widget draws as a background, each with how it looks.
BACKGROUNDS = """() => [
  ...document.querySelectorAll(".attnlib-widget figure *:not(svg *)"),
].map((element) => {
  const { backgroundColor, backgroundImage, forcedColorAdjust } = getComputedStyle(element);
  const alpha = Number(/[,/] *([\\d.]+)\\)$/.exec(backgroundColor)?.[1] ?? 1);
  const isPlain = /^rgb\\(/.test(backgroundColor);
  return {
    name: `<${element.localName} class="${element.getAttribute("class")}">`,
    isDrawn: (isPlain || alpha > 0.2 || backgroundImage !== "none")
      && !element.matches("input, option, select"),
    isKept: forcedColorAdjust === "none",
  };
})"""


def faults_in_high_contrast(page: Page) -> list[str]:
    """Return what widgets draw as a background that a browser takes away in high contrast."""
    usual = page.evaluate(BACKGROUNDS)
    page.emulate_media(forced_colors="active")
    forced = page.evaluate(BACKGROUNDS)
    page.emulate_media(forced_colors="none")
    lost = {u["name"] for u, f in zip(usual, forced, strict=True) if u["isDrawn"] > f["isKept"]}
    return [f"lost in high contrast: {name}" for name in sorted(lost)]


def printed(page: Page, scheme: str) -> set[str]:
    """Print a page that has settled; return its colours, those within pictures excepted."""
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(THEME_IS, arg=scheme, timeout=10_000)
    colours = set()
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", page.pdf(), re.DOTALL):
        try:
            commands = zlib.decompress(stream)
        except zlib.error:
            continue  # a font or a picture
        for rgb in re.findall(rb"([\d.]+) ([\d.]+) ([\d.]+) rg\b", commands):
            colours.add("#" + "".join(f"{round(255 * float(part)):02x}" for part in rgb))
    return colours


def faults_on_paper(page: Page, *, is_whole: bool) -> list[str]:
    """Print a page with widgets, light and dark; return what is wrong with its colours.

    Args:
        page: that has settled.
        is_whole: whether all of it is printed, or its widgets alone, which takes a third.
    """
    if not is_whole:
        page.add_style_tag(content=WIDGETS_ONLY)
    light, dark = printed(page, "light"), printed(page, "dark")
    found = []
    if dark != light:
        found.append(f"printed dark in other colours than light: {sorted(dark ^ light)}")
    if not dark & DATA_COLOURS:
        found.append("no widget's colour is on the paper")
    if page.evaluate("document.documentElement.dataset.theme") != "dark":
        found.append("after printing, the theme is not what it was")
    return found
