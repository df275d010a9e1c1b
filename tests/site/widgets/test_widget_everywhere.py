"""Every widget of the book where no script runs, where one does, and where one fails."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from pages import CHAPTERS, Place, stored_widgets

from tools import SITE

PAGES = {path.stem: stored_widgets(path) for path in CHAPTERS}
PAGES = {chapter: names for chapter, names in PAGES.items() if names}
CONTROLS = "input, select, button, summary, [role=slider]"
EVERY_PAGE = pytest.mark.parametrize("chapter", PAGES)


def widgets_on(first, chapter: str) -> Iterator:
    """Give each widget of a page, from the locator of its first."""
    found = first.page.locator(".attnlib-widget")
    assert [widget.get_attribute("data-widget") for widget in found.all()] == PAGES[chapter]
    yield from found.all()


def assert_says_the_same(widget) -> None:
    """The fallback is seen, with numbers in a table or with a picture that is described."""
    fallback = widget.locator(".attnlib-fallback")
    assert fallback.is_visible()
    assert fallback.locator("p").first.inner_text().strip()  # the title
    for picture in fallback.locator("img, svg").all():
        assert picture.get_attribute("alt") or picture.get_attribute("aria-label")
    cells = fallback.locator("td")
    if not fallback.locator("img, svg").count():
        assert sum(bool(re.search(r"\d", text)) for text in cells.all_inner_texts()) >= 3
    assert all(cell.is_visible() for cell in cells.all()[:3])


@EVERY_PAGE
def test_without_scripts_the_table_is_there_and_no_dead_control(show, chapter, home):
    for widget in widgets_on(show(Place(chapter, 0), home, java_script_enabled=False), chapter):
        assert_says_the_same(widget)
        assert widget.locator(CONTROLS).count() == 0
        assert widget.locator("figure").count() == 0


@EVERY_PAGE
def test_with_scripts_one_figure_and_the_table_behind_a_key(show, chapter, home):
    for widget in widgets_on(show(Place(chapter, 0), home), chapter):
        assert widget.locator("figure").count() == 1
        assert widget.locator("figure").is_visible()
        fallback = widget.locator(".attnlib-fallback")
        assert not fallback.is_visible()
        summary = widget.get_by_text("As a table", exact=True)
        summary.press("Enter")
        assert_says_the_same(widget)
        summary.press("Enter")
        assert not fallback.is_visible()


@EVERY_PAGE
def test_widget_that_fails_leaves_the_table(chromium, address, chapter):
    # As a script would that a browser is too old for: here its data cannot be read.
    whole = (SITE / "chapters" / f"{chapter}.html").read_text(encoding="utf-8")
    data = '<script type="application/json">'
    broken = whole.replace(data + "{", data)
    assert len(whole) - len(broken) == len(PAGES[chapter])
    with chromium.new_context() as context:
        page, errors = context.new_page(), []
        url = f"{address}chapters/{chapter}.html"
        page.route(url, lambda route: route.fulfill(body=broken, content_type="text/html"))
        page.on("pageerror", lambda error: errors.append(error.name))
        page.goto(url, wait_until="load")
        for widget in widgets_on(page.locator("body"), chapter):
            assert_says_the_same(widget)
            assert widget.locator(f"figure, {CONTROLS}").count() == 0
    assert errors == ["SyntaxError"] * len(PAGES[chapter])
