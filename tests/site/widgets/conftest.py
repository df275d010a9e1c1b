"""What tests of widgets share: chapters run again, and widgets on their pages.

A test here finds a widget on the built page, drives it as a reader would, and compares what it
then shows with attnlib, which computes the same again while the test runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from types import SimpleNamespace

import pytest
from pages import TRAINED, Place, run
from playwright.sync_api import Locator
from visits import SITE, WIDE, Reader

# A widget as the built page has it, from its opening tag to its script.
WIDGET = re.compile(r'<div class="attnlib-widget".*?</script>\n</div>', re.DOTALL)

DATA = re.compile(r'<script type="application/json">(.*?)</script>', re.DOTALL)

# Puts a widget again where the old one is. A script that is parsed this way does not run by
# itself, but a copy of it does: it has the same text, so the page's policy lets it.
MOUNT = """(old, html) => {
  history.replaceState(null, "", location.pathname); // what the old one wrote is not read
  document.activeElement?.blur();
  getSelection().removeAllRanges();
  const parsed = document.createElement("template");
  parsed.innerHTML = html;
  const widget = parsed.content.firstElementChild;
  for (const script of widget.querySelectorAll("script")) {
    const copy = document.createElement("script");
    for (const { name, value } of script.attributes) copy.setAttribute(name, value);
    copy.text = script.text;
    script.replaceWith(copy);
  }
  old.replaceWith(widget);
}"""


@cache
def built_widgets(chapter: str) -> list[str]:
    """Return the HTML of the widgets on a built page, in order."""
    return WIDGET.findall((SITE / "chapters" / f"{chapter}.html").read_text(encoding="utf-8"))


def stored(place: Place) -> SimpleNamespace:
    """Return the traits and the data of the widget at a place, as the built page has them."""
    text = DATA.search(built_widgets(place.chapter)[place.index])[1]
    return SimpleNamespace(**json.loads(text))


@pytest.fixture(scope="session")
def computed() -> Callable:
    """Give the widget at a place, made again by running its chapter now."""
    return lambda place: run(place.chapter).widget(place.index)


@pytest.fixture(scope="session")
def made_anew(computed) -> Callable:
    """Give the widget at a place, computed, or as stored where a model is trained for it.

    There nbval trains the model and compares the table that the same cell stores.
    """
    return lambda place: (stored if place.chapter in TRAINED else computed)(place)


@pytest.fixture(scope="session")
def variables() -> Callable:
    """Give the variables of the chapter at a place, after the same run."""

    def found(place: Place) -> dict:
        run(place.chapter).widget(place.index)
        return run(place.chapter).variables()

    return found


@pytest.fixture(scope="session")
def readers(chromium) -> Iterator[Callable]:
    """Give the reader of a carrier with some options; each is made once in a process."""
    made: dict[tuple, Reader] = {}

    def reader(home: str, options: dict) -> Reader:
        key = (home, repr(sorted(options.items())))
        if key not in made:
            made[key] = Reader(chromium, home, **options)
        return made[key]

    yield reader
    for one in made.values():
        one.close()


@pytest.fixture(params=["http", "disk"])
def home(request, address, disk) -> str:
    """The address of the book, served and on disk, for code that all widgets share."""
    return {"http": address, "disk": disk}[request.param]


@pytest.fixture
def show(readers) -> Iterator[Callable]:
    """Give the locator of the widget at a place, in its first state; errors fail the test.

    The function takes the place, the book's address (``address`` or ``disk``), the window,
    whether the whole page must be loaded again, and options of a browser context such as
    ``has_touch=True``. Else the page is loaded when a reader first comes to it, and afterwards
    its widget alone is put there again.
    """
    used: list[Reader] = []

    def shown(
        place: Place,
        home: str,
        *,
        viewport: dict[str, int] | None = None,
        is_loaded_anew: bool = False,
        **options,
    ) -> Locator:
        reader = readers(home, options)
        used.append(reader)
        reader.page.set_viewport_size(viewport or WIDE)
        name = f"chapters/{place.chapter}.html"
        widget = reader.page.locator(".attnlib-widget").nth(place.index)
        if is_loaded_anew or reader.page.url != home + name:
            reader.open(name)
        else:
            reader.page.mouse.move(0, 0)
            widget.evaluate(MOUNT, built_widgets(place.chapter)[place.index])
        return widget

    yield shown
    faults = [fault for reader in used for fault in reader.problems]
    for reader in used:
        reader.problems.clear()
    assert faults == []


@pytest.fixture
def put() -> Callable:
    """Give a function that puts a widget made now in the place of one of the book's."""
    return lambda widget, made: widget.evaluate(MOUNT, made.html())
