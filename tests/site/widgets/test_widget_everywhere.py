"""Every page with widgets whose scripts fail; test_pages.py has them run, and not run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fallbacks import bare_tables
from pages import WIDGETS
from visits import SITE, Reader

DATA = '<script type="application/json">'


@pytest.fixture(scope="module")
def reader(chromium, address) -> Iterator[Reader]:
    """A reader who gets pages without the theme's scripts, which no widget needs."""
    reader = Reader(chromium, address)
    reader.page.route("**/*.js*", lambda route: route.fulfill(content_type="text/javascript"))
    yield reader
    reader.close()


@pytest.mark.parametrize("chapter", [chapter for chapter, names in WIDGETS.items() if names])
def test_widget_that_fails_leaves_the_table(reader, chapter):
    # As a script would in a browser that is too old for it: here its data cannot be read.
    names = WIDGETS[chapter]
    whole = (SITE / "chapters" / f"{chapter}.html").read_text(encoding="utf-8")
    broken = whole.replace(DATA + "{", DATA)
    assert len(whole) - len(broken) == len(names)
    url = f"{reader.home}chapters/{chapter}.html"
    reader.page.route(url, lambda route: route.fulfill(body=broken, content_type="text/html"))
    page = reader.open(f"chapters/{chapter}.html")
    assert bare_tables(page, names) == []
    errors = [fault for fault in reader.problems if fault.startswith("script error: ")]
    assert sum("JSON" in error for error in errors) == len(names), errors
