"""The attention heatmap on the built pages: each control by mouse, by keys and by touch."""

from __future__ import annotations

import re

import pytest
from pages import act, places

from attnlib.book.widgets.base import unpack

PLACES = places("heatmap")
# Pointers drive a map of one head and one of several layers and heads. Keys drive all.
POINTED = [place for place in PLACES if place.chapter.startswith(("dot-product", "what-heads"))]
ROUNDED = 0.0052  # half a unit of the second decimal, and what two processors may differ by


class Truth:
    """The weights of a widget as attnlib computes them now, or as a trained model gave them."""

    def __init__(self, widget):
        self.data = widget.data
        self.shape = layers, heads, T, S = widget.data["shape"]
        self.weights = unpack(widget.data["weights"])

    def row(self, layer: int, head: int, t: int) -> list[float]:
        _, heads, T, S = self.shape
        begin = ((layer * heads + head) * T + t) * S
        return self.weights[begin : begin + S]


# All that is written next to the map, in one call: a test reads it about ten times.
READ = """(root) => ({
  heading: root.querySelector(".reading").innerText,
  lines: [...root.querySelectorAll(".answers li")].map((line) => [
    Number(line.dataset.key),
    line.querySelector(".token").innerText,
    Number(line.querySelector(".value").innerText),
  ]),
  sum: root.querySelector(".sum").innerText,
  side: root.querySelector(".side").innerText,
})"""


def assert_reads(widget, truth: Truth, layer: int, head: int, t: int, key: int | None = None):
    """Check that the text next to the map has the row of this query and its largest weights."""
    row, keys = truth.row(layer, head, t), truth.data["keys"]
    shown = widget.evaluate(READ)
    assert shown["heading"] == f"{truth.data['queries'][t]} (query {t}) attends to"
    repeats = len(set(keys)) < len(keys)
    for at, name, value in shown["lines"]:
        assert name == keys[at] + (f" ({at})" if repeats else "")
        assert abs(value - row[at]) < ROUNDED
    assert (
        max(row) - max(row[at] for at, *_ in shown["lines"]) < ROUNDED
    )  # the largest is there
    sums = re.search(r"sum of the row: ([\d.]+)", shown["sum"])
    assert abs(float(sums[1]) - sum(row)) < 0.001
    if key is not None:
        assert f"As a key, {keys[key]} ({key})" in shown["side"]


def assert_selected(widget, truth: Truth, t: int):
    """Check that the cursor is on this query, and that a screen reader announces it."""
    cursor = widget.get_by_role("slider", name="query")
    assert cursor.get_attribute("aria-valuenow") == str(t + 1)
    spoken = cursor.get_attribute("aria-valuetext")
    assert spoken.startswith(f"{truth.data['queries'][t]}, query {t}, attends to ")


def begin(show, made_anew, place, home, **options):
    """Open a page; return the widget on it, the truth, and what it shows first."""
    made = made_anew(place)
    truth = Truth(made)
    widget = show(place, home, **options)
    widget.scroll_into_view_if_needed()
    assert_reads(widget, truth, made.layer, made.head, made.query)
    return widget, truth, made


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_keys_move_the_cursor(show, made_anew, place, disk):
    widget, truth, made = begin(show, made_anew, place, disk)
    layer, head = made.layer, made.head
    T, S = truth.shape[2:]
    cursor = widget.get_by_role("slider", name="query")
    cursor.focus()
    for press, at in (("Home", 0), ("ArrowDown", 1), ("PageDown", min(11, T - 1))):
        cursor.press(press)
        assert_reads(widget, truth, layer, head, at)
        assert_selected(widget, truth, at)
    cursor.press("End")
    cursor.press("ArrowUp")
    assert_reads(widget, truth, layer, head, T - 2)
    cursor.press("PageUp")
    t = max(T - 12, 0)
    assert_reads(widget, truth, layer, head, t)
    cursor.press("ArrowRight")  # the key cursor begins at the query's own place
    assert_reads(widget, truth, layer, head, t, min(t, S - 1))
    cursor.press("ArrowRight")
    assert_reads(widget, truth, layer, head, t, min(t + 1, S - 1))
    cursor.press("Escape")
    assert "As a key" not in widget.locator(".side").inner_text()


@pytest.mark.parametrize("place", POINTED, ids=str, scope="module")
def test_mouse(show, made_anew, place, address):
    widget, truth, made = begin(show, made_anew, place, address)
    point_at_the_map(widget, truth, made, "mouse")
    t = choose_tokens(widget, truth, made, "mouse")
    choose_layers_and_heads(widget, truth, made, t, "mouse")


@pytest.mark.parametrize("place", POINTED, ids=str, scope="module")
def test_touch(show, made_anew, place, address):
    widget, truth, made = begin(show, made_anew, place, address, has_touch=True)
    point_at_the_map(widget, truth, made, "touch")
    t = choose_tokens(widget, truth, made, "touch")
    choose_layers_and_heads(widget, truth, made, t, "touch")


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_tokens_layers_and_heads_by_keys(show, made_anew, place, disk):
    widget, truth, made = begin(show, made_anew, place, disk)
    t = choose_tokens(widget, truth, made, "keys")
    choose_layers_and_heads(widget, truth, made, t, "keys")


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_hovering_previews_and_does_not_select(show, made_anew, place, address):
    widget, truth, made = begin(show, made_anew, place, address)
    widget.locator(".strip label").nth(0).hover()
    assert_reads(widget, truth, made.layer, made.head, 0, 0 if truth.data["same"] else None)
    assert_selected(widget, truth, made.query)
    widget.locator("figcaption").hover()
    assert_reads(widget, truth, made.layer, made.head, made.query)


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_masked_cells_are_hatched_and_zeros_are_not(show, made_anew, place, address):
    widget, truth, _ = begin(show, made_anew, place, address)
    lines = widget.locator(".hatching").get_attribute("d").count("M")
    dense = 3 if max(truth.shape[2:]) <= 12 else 1
    assert lines == dense * truth.data["hidden"].count("1")
    assert widget.get_by_text("hatched: hidden by the mask").count() == bool(lines)


def point_at_the_map(widget, truth, made, way):
    T, S = truth.shape[2:]
    cursor = widget.get_by_role("slider", name="query")
    for t, at in ((T - 1, 0), (T // 2, S // 3), (0, S - 1)):
        box = cursor.bounding_box()
        spot = {"x": (at + 0.5) * box["width"] / S, "y": (t + 0.5) * box["height"] / T}
        (cursor.tap if way == "touch" else cursor.click)(position=spot)
        assert_reads(widget, truth, made.layer, made.head, t, at)
        assert_selected(widget, truth, t)
    cursor.press("Escape")


def choose_tokens(widget, truth, made, way) -> int:
    tokens = widget.locator(".strip")
    assert tokens.locator("label").all_inner_texts() == truth.data["queries"]
    for t in (0, made.query or 1):
        act(tokens.locator("input").nth(t), way, "Space")
        assert_reads(widget, truth, made.layer, made.head, t)
        assert_selected(widget, truth, t)
        assert tokens.locator("input").nth(t).is_checked()
    if way == "keys":
        tokens.locator("input").nth(made.query or 1).press("ArrowLeft")
        assert_selected(widget, truth, (made.query or 1) - 1)
        tokens.locator("input").nth((made.query or 1) - 1).press("ArrowRight")
    return made.query or 1


def choose_layers_and_heads(widget, truth, made, t, way):
    layers, heads = truth.shape[:2]
    layer = layers - 1 - made.layer
    if layers > 1:
        act(
            widget.locator(".controls").get_by_label(truth.data["layers"][layer], exact=True),
            way,
            "Space",
        )
        assert_reads(widget, truth, layer, made.head, t)
    choices = widget.locator(".heads input")
    assert choices.count() == heads
    assert widget.locator(".heads").is_visible() == (heads > 1)
    for head in {0, (made.head + 1) % heads} if heads > 1 else ():
        act(choices.nth(head), way, "Space")
        assert_reads(widget, truth, layer, head, t)


# Both are read at once: the page itself may still move while its formulas are drawn.
BELOW_ITS_TOP = "(e, inner) => inner.getBoundingClientRect().y - e.getBoundingClientRect().y"


@pytest.mark.parametrize("width", [1280, 848, 390])
@pytest.mark.parametrize("place", POINTED, ids=str, scope="module")
def test_nothing_moves_under_the_pointer(show, place, address, width):
    """Catches a reading that grows, pushes the tokens away, and shrinks again, without end."""
    widget = show(place, address, viewport={"width": width, "height": 900})
    tokens = widget.locator(".strip label")
    first = tokens.first.element_handle()
    before = widget.evaluate(BELOW_ITS_TOP, first)
    for t in (0, 1, tokens.count() - 1):
        tokens.nth(t).dispatch_event("pointerenter", {"pointerType": "mouse"})
        after = widget.evaluate(BELOW_ITS_TOP, first)
        assert abs(after - before) < 1, f"moved by {after - before} at token {t}"
