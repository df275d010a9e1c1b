"""Slides in Chromium, from disk: complete, without a network, and with live widgets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pages import CHAPTERS
from visits import Reader, build_editions

SLIDES = {"width": 1280, "height": 720}


@pytest.fixture(scope="session")
def reader(chromium, tmp_path_factory) -> Iterator[Reader]:
    """A reader of the slides of all chapters."""
    folder = tmp_path_factory.mktemp("editions") / "all"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("BOOK_REPOSITORY", raising=False)
        build_editions(CHAPTERS, folder)
    reader = Reader(chromium, (folder / "slides").as_uri() + "/", viewport=SLIDES)
    yield reader
    reader.close()


SHOWN = """() => ({
  raw: /\\\\\\(|\\$[^$ ]+\\$/.test(document.querySelector(".slides").innerText),
  formulas: document.querySelectorAll(".slides math").length,
  notes: document.querySelectorAll("aside.notes").length,
  broken: [...document.images].filter((i) => !i.naturalWidth || !i.alt).length,
})"""

# Goes through all slides; returns how many there are and the beginnings of those too wide.
THROUGH = """async () => {
  await document.fonts.ready;
  const wide = [];
  const count = Reveal.getTotalSlides();
  for (let at = 1; ; at += 1) {
    wide.push(...[...document.querySelectorAll(".slides > section > section")]
      .filter((slide) => slide.offsetWidth && slide.scrollWidth > slide.clientWidth + 1)
      .map((slide) => slide.textContent.trim().slice(0, 60)));
    if (at === count) break;
    Reveal.next();
    await new Promise((done) => requestAnimationFrame(done));
  }
  return { count, wide, isLast: Reveal.isLastSlide() };
}"""


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_slides_ask_no_network(path, reader):
    """Every slide: no address but a file's, no error, maths set, nothing too wide."""
    page = reader.open(f"{path.stem}.html")
    slides = page.evaluate(THROUGH)
    shown = page.evaluate(SHOWN)
    assert reader.problems == []
    assert slides["isLast"]
    assert slides["count"] > 20
    assert slides["wide"] == []
    assert shown["notes"] > 10
    assert not shown["raw"]
    assert shown["broken"] == 0
    assert shown["formulas"] > 0 or path.stem == "bug-museum"


def go_to_slide_of(page, selector: str) -> list[int]:
    """Show the slide with an element; return where it is."""
    return page.evaluate(
        """(selector) => {
          const slide = document.querySelector(selector).closest("section");
          const place = Reveal.getIndices(slide);
          Reveal.slide(place.h, place.v);
          return [place.h, place.v];
        }""",
        selector,
    )


def test_a_widgets_controls_are_its_own(reader):
    """Catches a style of reveal.js that moves or hides what a widget has, and flat powers."""
    page = reader.open("multi-head-latent-attention.html")
    go_to_slide_of(page, ".stepper")
    widget = page.locator("section.present .stepper")
    widget.get_by_role("button", name="Next").click()
    assert widget.get_by_role("radio", name="latent, expanded").is_checked()
    controls, body = widget.locator(".controls"), widget.locator(".body")
    box = controls.bounding_box()
    assert box["y"] + box["height"] <= body.bounding_box()["y"]
    rise = widget.locator("sup").first.evaluate("(e) => getComputedStyle(e).verticalAlign")
    assert rise != "baseline"
    arrows = page.locator(".reveal > .controls .navigate-right").bounding_box()
    inner = widget.bounding_box()
    assert inner["x"] + inner["width"] <= arrows["x"]
    assert min(arrows["width"], arrows["height"]) >= 24


def test_a_widget_keeps_its_keys(reader):
    """Arrows move a widget's cursor while it has the focus, and slides otherwise."""
    page = reader.open("dot-product-attention.html")
    where = go_to_slide_of(page, "[data-widget]")
    now = "() => { const { h, v } = Reveal.getIndices(); return [h, v]; }"
    page.locator("section.present [data-widget] [tabindex='0']").first.focus()
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(now) == where
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(now) == [where[0] + 1, 0]


def test_a_slide_that_is_too_wide_is_noticed(reader):
    page = reader.open("dot-product-attention.html")
    page.evaluate("""() => {
      const slide = [...document.querySelectorAll(".slides > section > section")].at(-2);
      slide.innerHTML = "<p style='width: 3000px'>A wide slide</p>";
    }""")
    assert set(page.evaluate(THROUGH)["wide"]) == {"A wide slide"}
