"""What tests of widgets share: chapters run again, and their pages with nothing else to reach.

A test here finds a widget on the built page, drives it as a reader would, and holds what it
then shows against attnlib, which computes the same again while the test runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pages import Place, run_chapter

from tools import SITE


@pytest.fixture(scope="session")
def computed() -> Callable:
    """Give the widget at a place, made again by running its chapter now."""
    return lambda place: run_chapter(place.chapter)[0][place.index]


@pytest.fixture(scope="session")
def variables() -> Callable:
    """Give the variables of the chapter at a place, after the same run."""
    return lambda place: run_chapter(place.chapter)[1]


@pytest.fixture(params=["http", "disk"])
def home(request, address) -> str:
    """The address of the book, served or on disk."""
    return address if request.param == "http" else SITE.as_uri() + "/"


@pytest.fixture
def show(chromium) -> Iterator[Callable]:
    """Open the page of a place and give its widget's locator; errors and calls elsewhere fail.

    The function takes the place, the book's address, and options of a browser context, such as
    ``has_touch=True``.
    """
    contexts, found = [], []

    def opened(place: Place, home: str, **options):
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        context = chromium.new_context(**options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()

        def outside(url: str) -> bool:
            return not url.startswith((home, "data:", "blob:"))

        page.route(outside, lambda route: route.abort())
        page.on("request", lambda r: outside(r.url) and found.append(f"asks for {r.url}"))
        page.on("pageerror", lambda error: found.append(f"script error: {error}"))
        page.on("console", lambda m: m.type == "error" and found.append(f"console: {m.text}"))
        page.goto(f"{home}chapters/{place.chapter}.html", wait_until="load")
        return page.locator(".attnlib-widget").nth(place.index)

    yield opened
    for context in contexts:
        context.close()
    assert found == []
