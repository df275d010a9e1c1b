"""The front page's figure: its slider by keys, mouse and touch, its numbers against attnlib."""

from __future__ import annotations

import pytest
from visits import PHONE

from attnlib import MODELS, Geometry, kv_cache_bytes
from attnlib.book.widgets.growth import CONTEXTS
from attnlib.costs import max_batch_size

MODEL = MODELS["DeepSeek-V3 / R1"].geometry
GEOMETRIES = {
    "MHA": Geometry(61, 128, 128, 128),
    "GQA": Geometry(61, 128, 8, 128),
    "MQA": Geometry(61, 128, 1, 128),
    "MLA": MODEL,
    "SWA": Geometry(61, 128, 8, 128, window=1024, n_window_layers=61),
}
MEMORY = 80 * 10**9

READ = """(root) => {
  const all = (part) => [...root.querySelectorAll(part)];
  return {
    answer: root.querySelector(".answer").innerText,
    names: all("li b").map((node) => node.innerText),
    takes: all(".takes").map((node) => node.innerText),
    lengths: all(".fill").map((node) => node.getBoundingClientRect().width),
    room: root.querySelector(".track").getBoundingClientRect().width,
    marks: all(".brink").map((node) => node.offsetLeft),
    told: root.querySelector("[role=status]").innerText,
  };
}"""


def gib(n_bytes: int) -> str:
    """Return bytes as the figure prints them."""
    value = n_bytes / 2**30
    digits = 2 if value < 10 else 0
    rounded = int(value * 10**digits + 0.5) / 10**digits  # half up
    return f"{rounded:,.{digits}f} GiB"


def users(count: int) -> str:
    """Return how many users fit, in the figure's words."""
    if count == 0:
        return "does not fit"
    return f"{count:,} user fits" if count == 1 else f"{count:,} users fit"


def assert_shows(widget, context: int):
    """Check every bar and every word at a context."""
    page = widget.evaluate(READ)
    caches = {name: kv_cache_bytes(g, context) for name, g in GEOMETRIES.items()}
    assert page["names"] == list(caches)
    full = max(*caches.values(), MEMORY)
    for (name, cache), takes, length, mark in zip(
        caches.items(), page["takes"], page["lengths"], page["marks"], strict=True
    ):
        fit = max_batch_size(GEOMETRIES[name], MEMORY, context)
        assert takes == f"{gib(cache)}, {users(fit)}"
        assert length == pytest.approx(max(2, page["room"] * cache / full), abs=1)
        assert mark == pytest.approx(page["room"] * MEMORY / full, abs=2)
    assert page["answer"] == (
        f"After {context:,} tokens, one user’s cache takes {gib(caches['MHA'])} with MHA"
        f" and {gib(caches['MQA'])} with MQA."
    )


@pytest.fixture
def front(readers, home):
    """The figure on the front page, just opened; errors fail the test."""
    reader = readers(home, {})
    reader.open("intro.html")
    yield reader.page.locator(".attnlib-widget")
    faults = list(reader.problems)
    reader.problems.clear()
    assert faults == []


def test_every_stop_by_keys(front):
    slider = front.get_by_label("context")
    assert_shows(front, 131_072)
    slider.focus()
    slider.press("Home")
    for context in CONTEXTS:
        assert_shows(front, context)
        assert slider.get_attribute("aria-valuetext") == f"{context:,} tokens"
        slider.press("ArrowRight")
    assert_shows(front, CONTEXTS[-1])  # it stays at its end
    front.page.wait_for_timeout(400)
    assert front.evaluate(READ)["told"].startswith("After 1,048,576 tokens")


def test_by_pointer_and_on_a_phone(front):
    front.page.set_viewport_size(PHONE)
    slider = front.get_by_label("context")
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] - 3, "y": box["height"] / 2})
    assert_shows(front, CONTEXTS[-1])
    assert front.evaluate("(root) => root.scrollWidth <= root.clientWidth + 1")
    table = front.locator("details.as-table")
    table.locator("summary").click()
    assert table.locator("table").is_visible()
