"""What a page shows once it is open: maths, images, widgets, nothing too wide for a phone."""

from __future__ import annotations

import re
from urllib.parse import unquote

from fallbacks import hidden_tables
from visits import PHONE, SETTLED, Reader

PICTURE_NAME = re.compile(r"://|[/\\]|\.(?:png|svg|jpe?g|gif|webp)$", re.IGNORECASE)

# What a page shows: formulas, those that are not drawn, text that should have been one, images.
SHOWN = r"""() => {
  const quiet = "script, style, noscript, pre, code, kbd, textarea, math";
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const raw = [];
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const found = /\$\$|\$[^\s$][^$]*\$|\\\(|\\\[|\\begin\{/.exec(node.data);
    if (found && !node.parentElement.closest(quiet)) raw.push(node.data.trim().slice(0, 60));
  }
  const isDrawn = (formula) => {
    const box = formula.querySelector(":scope > math")?.getBoundingClientRect();
    return box && (box.width * box.height > 0 || !formula.checkVisibility());
  };
  return {
    undrawn: [...document.querySelectorAll(".math")].filter((formula) => !isDrawn(formula))
      .map((formula) => formula.textContent),
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


def problems(reader: Reader, name: str, widgets: tuple[str, ...] = ()) -> list[str]:
    """Open a page wide, then on a phone; return what is wrong with what it shows.

    What goes wrong while it loads is in ``reader.problems``.

    Args:
        reader: who opens it; the page stays open, on the phone.
        name: where the page is, from the reader's home.
        widgets: the names of the widgets that the page must have, in order.
    """
    page = reader.open(name)
    page.evaluate(SETTLED)
    found = shortcomings(page.evaluate(SHOWN)) + hidden_tables(page, widgets)
    window = page.viewport_size
    page.set_viewport_size(PHONE)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => done()))")
    found += [f"too wide for a phone: {what}" for what in page.evaluate(OVERFLOW)]
    page.set_viewport_size(window)
    return found


def shortcomings(shown: dict) -> list[str]:
    """Return what is wrong with the maths and the images that a page shows."""
    found = [f"formula not drawn: {text}" for text in shown["undrawn"]]
    found += [f"raw maths: {text}" for text in shown["raw"]]
    for image in shown["images"]:
        name = unquote(image["source"].rpartition("/")[2])[:60]
        alt = image["alt"]
        if not image["loaded"]:
            found.append(f"image not loaded: {name}")
        if alt is None or (image["inArticle"] and not alt.strip()):
            found.append(f"image without alternative text: {name}")
        elif PICTURE_NAME.search(alt.strip()):
            found.append(f"image with a file name as alternative text: {alt[:60]}")
    return found
