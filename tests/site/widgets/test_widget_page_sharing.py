"""Head sharing on the built pages: both sliders and the drawing, by mouse, keys and touch."""

from __future__ import annotations

import re

import pytest
import torch
from pages import places

from attnlib import KVCache

PLACES = places("sharing")


class Truth:
    """What the figure must show for a number of KV heads, from attnlib's own cache."""

    def __init__(self, made):
        data = made.data
        self.H, self.tokens, self.layers = data["heads"], data["tokens"], data["layers"]
        self.head_dim, self.dtype = data["head_dim"], getattr(torch, data["dtype"])
        self.stops = [kv for kv in range(self.H, 0, -1) if self.H % kv == 0]

    def nbytes(self, n_kv_heads: int) -> int:
        return KVCache(1, n_kv_heads, 1, self.head_dim, dtype=self.dtype).nbytes

    def name(self, n_kv_heads: int) -> str:
        return {self.H: "MHA", 1: "MQA"}.get(n_kv_heads, "GQA")

    def group(self, n_kv_heads: int, head: int) -> tuple[int, list[int]]:
        """The KV head that a query head reads, and all query heads that read it."""
        reads = torch.arange(n_kv_heads).repeat_interleave(self.H // n_kv_heads).tolist()
        return reads[head], [h for h in range(self.H) if reads[h] == reads[head]]

    def sentence(self, n_kv_heads: int, head: int) -> str:
        kv, heads = self.group(n_kv_heads, head)
        if len(heads) == 1:
            return f"Query head {head} has KV head {kv} to itself."
        if len(heads) == self.H:
            return f"All {self.H} query heads share KV head 0."
        joint = " and " if len(heads) == 2 else " to "
        return f"Query heads {heads[0]}{joint}{heads[-1]} share KV head {kv}."


# What the paths of a kind draw.
DRAWN = """(root, kind) => [...root.querySelectorAll(`svg path.${kind}`)]
  .map((path) => path.getAttribute("d")).join("")"""


def boxes(widget, kind: str) -> list[tuple[float, float, float]]:
    """Left edge, upper edge and width of the boxes of a kind that are drawn."""
    found = re.findall(r"M([\d.]+) ([\d.]+)h([\d.]+)", widget.evaluate(DRAWN, kind))
    return sorted(tuple(map(float, box)) for box in found)


def assert_shows(widget, truth: Truth, n_kv_heads: int, head: int):
    """Check words, numbers and blocks for this number of KV heads."""
    G, per_token = truth.H // n_kv_heads, truth.nbytes(n_kv_heads)
    headline = widget.locator(".share-headline").inner_text()
    assert headline.startswith(truth.name(n_kv_heads))
    assert re.findall(r"\d+", headline) == {
        "MHA": [str(truth.H)],
        "MQA": [str(truth.H)],
        "GQA": [str(n_kv_heads), str(G)],
    }.get(truth.name(n_kv_heads))
    assert widget.locator(".share-members").inner_text() == truth.sentence(n_kv_heads, head)
    rows = widget.locator("table.numbers tr td").all_inner_texts()
    ratio = "the same" if G == 1 else f"1/{truth.nbytes(truth.H) // per_token}"
    total = [f"{per_token * truth.layers:,} bytes"] if truth.layers > 1 else []
    assert rows == [str(G), f"{per_token:,} bytes", *total, ratio]
    assert_drawn(widget, truth, n_kv_heads, G)


LIT = ("lit", "chosen")


def assert_drawn(widget, truth: Truth, n_kv_heads: int, G: int):
    """Check that there is a box and a wire per head, and a cache to scale."""
    assert len(boxes(widget, "q")) == truth.H
    assert widget.locator("svg path.q.chosen").get_attribute("d").count("M") == 1
    assert sum(widget.evaluate(DRAWN, f"wire.{kind}").count("M") for kind in LIT) == G
    for kind in ("k", "v"):
        assert len(boxes(widget, kind)) == n_kv_heads * (1 + truth.tokens)
        assert len(boxes(widget, f"{kind}.lit")) == 1 + truth.tokens
    left, top, whole = boxes(widget, "whole")[0]
    queries = [x + width / 2 for x, _, width in boxes(widget, "q")]
    keys, values = ([box for box in boxes(widget, kind) if box[1] < top] for kind in "kv")
    for kv, (k, v) in enumerate(zip(keys, values, strict=True)):
        middle = sum(queries[kv * G : (kv + 1) * G]) / G
        assert (k[0] + v[0] + v[2]) / 2 == pytest.approx(middle, abs=0.1)
    right = max(x + width for x, y, width in boxes(widget, "v") if y >= top)
    assert (right - left) / whole == pytest.approx(n_kv_heads / truth.H, abs=0.01)


def begin(show, computed, place, home, **options):
    """Open a page; return the widget on it, the truth, and the state it begins in."""
    made = computed(place)
    truth = Truth(made)
    widget = show(place, home, **options)
    widget.scroll_into_view_if_needed()
    assert_shows(widget, truth, made.n_kv_heads, made.head)
    return widget, truth, made


def sliders(widget):
    return [
        widget.get_by_role("slider", name=name, exact=True)
        for name in ("KV heads", "query head")
    ]


def point_at(slider, at: int, last: int, way: str):
    """Click or tap a slider where its thumb has a value; a thumb is 16 pixels wide."""
    box = slider.bounding_box()
    spot = {"x": 8 + (box["width"] - 16) * at / last, "y": box["height"] / 2}
    (slider.tap if way == "touch" else slider.click)(position=spot)


def spot_of(widget, truth: Truth, head: int) -> dict:
    """The middle of a query head's box in the drawing."""
    drawing = widget.locator("svg.share")
    shown = drawing.bounding_box()["width"]
    drawn = float(drawing.get_attribute("viewBox").split()[2])
    x, y, width = boxes(widget, "q")[head]
    return {"x": (x + width / 2) * shown / drawn, "y": y + 5}


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_keys_walk_from_mha_to_mqa_and_through_the_heads(show, computed, place, disk):
    widget, truth, made = begin(show, computed, place, disk)
    stops, heads = sliders(widget)
    stops.focus()
    stops.press("Home")
    for i, n_kv_heads in enumerate(truth.stops):
        if i:
            stops.press("ArrowRight")
        assert_shows(widget, truth, n_kv_heads, made.head)
        assert (
            stops.get_attribute("aria-valuetext") == f"{n_kv_heads} ({truth.name(n_kv_heads)})"
        )
    stops.press("ArrowLeft")
    middle = truth.stops[-2]
    stops.press("Tab")
    assert heads.evaluate("input => input === document.activeElement")
    for press, head in (("Home", 0), ("ArrowRight", 1), ("End", truth.H - 1)):
        heads.press(press)
        assert_shows(widget, truth, middle, head)
        assert heads.get_attribute("aria-valuetext") == str(head)
    spoken = widget.get_by_role("status").filter(
        has_text=truth.sentence(middle, truth.H - 1)
    )  # announced a moment after the last key
    spoken.wait_for(state="attached")
    assert f"{truth.nbytes(middle):,} bytes" in spoken.inner_text()


@pytest.mark.parametrize("place", PLACES[:1], ids=str, scope="module")
def test_mouse_moves_sliders_and_chooses_heads_in_the_drawing(show, computed, place, address):
    widget, truth, made = begin(show, computed, place, address)
    walk_by_pointer(widget, truth, made, "mouse")


@pytest.mark.parametrize("place", PLACES[:1], ids=str, scope="module")
def test_touch_moves_sliders_and_chooses_heads_in_the_drawing(show, computed, place, address):
    widget, truth, made = begin(
        show, computed, place, address, has_touch=True, viewport={"width": 390, "height": 800}
    )
    walk_by_pointer(widget, truth, made, "touch")
    box, inner = widget.bounding_box(), widget.locator("svg.share").bounding_box()
    assert inner["x"] + inner["width"] <= box["x"] + box["width"] + 0.5
    assert widget.evaluate("widget => widget.scrollWidth <= widget.clientWidth")


def walk_by_pointer(widget, truth, made, way):
    stops, heads = sliders(widget)
    last = len(truth.stops) - 1
    for at in (0, last, 1):
        point_at(stops, at, last, way)
        assert_shows(widget, truth, truth.stops[at], made.head)
    n_kv_heads = truth.stops[1]
    point_at(heads, truth.H - 1, truth.H - 1, way)
    assert_shows(widget, truth, n_kv_heads, truth.H - 1)
    drawing = widget.locator("svg.share")
    for head in (0, truth.H // 2 + 1, 2):
        spot = spot_of(widget, truth, head)
        (drawing.tap if way == "touch" else drawing.click)(position=spot)
        assert heads.get_attribute("aria-valuetext") == str(head)
        assert_shows(widget, truth, n_kv_heads, head)
    # A pair in the cache chooses the first head that reads it; next to it there is nothing.
    top = boxes(widget, "whole")[0][1]
    x, y, width = max(box for box in boxes(widget, "k") if box[1] >= top)
    first = truth.H - truth.H // n_kv_heads
    for shift in (width / 2, 3 * width):
        spot = {"x": x + shift, "y": y + 5}
        (drawing.tap if way == "touch" else drawing.click)(position=spot)
        assert_shows(widget, truth, n_kv_heads, first)


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_hovering_previews_and_does_not_select(show, computed, place, address):
    widget, truth, made = begin(show, computed, place, address)
    other = (made.head + truth.H // 2) % truth.H
    widget.locator("svg.share").hover(position=spot_of(widget, truth, other))
    assert_shows(widget, truth, made.n_kv_heads, other)
    assert sliders(widget)[1].get_attribute("aria-valuetext") == str(made.head)
    widget.locator("figcaption").hover()
    assert_shows(widget, truth, made.n_kv_heads, made.head)
