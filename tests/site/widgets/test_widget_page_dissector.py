"""The headline dissector on its page: each switch by mouse, keys and touch, against attnlib."""

from __future__ import annotations

import re
from itertools import product

import pytest
from pages import act, places

from attnlib import MODELS
from attnlib.costs import Geometry, kv_cache_bytes

PLACES = places("dissector")
EVERY_PLACE = pytest.mark.parametrize("place", PLACES, ids=str, scope="module")

V2 = MODELS["DeepSeek-V2"].geometry
PRECISIONS = {"6 bits for V2, 16 for the other": 6, "16 bits for both": 16}
BASELINES = {
    "DeepSeek 67B": MODELS["DeepSeek LLM 67B"].geometry,
    "GQA-8, V2’s layers": Geometry(60, 64, 8, 128),
    "MHA, V2’s heads": Geometry(60, 128, 128, 128),
    "the report’s MHA": 860_200,  # numbers per token, all layers: its Table 9, rounded
}
COUNTED = ("the whole model", "one layer")
GROUPS = (list(PRECISIONS), list(BASELINES), list(COUNTED))
FIRST = tuple(names[0] for names in GROUPS)

READ = """(root) => {
  const all = (part) => [...root.querySelectorAll(part)];
  return {
    answer: root.querySelector(".answer").innerText,
    stamp: root.querySelector(".stamp").innerText,
    takes: all(".bars .takes").map((node) => node.innerText),
    lengths: all(".bars .fill").map((node) => node.getBoundingClientRect().width),
    room: all(".bars .track").map((node) => node.getBoundingClientRect().width),
    rows: all(".factors tr").map((row) => [...row.cells].map((cell) => cell.innerText)),
    chosen: all("input:checked + span").map((node) => node.innerText),
    text: root.querySelector("figure").innerText,
  };
}"""


def bytes_of(geometry: Geometry, one_layer: bool, bits: int) -> tuple[int, int]:
    """Return the numbers and the bytes per token, from the formula of the cache."""
    layers = geometry.n_layers if one_layer else 1
    numbers = kv_cache_bytes(geometry, 1, dtype=8) // layers  # a byte each
    return numbers, kv_cache_bytes(geometry, 8, dtype=bits) // 8 // layers


def assert_shows(widget, precision: str, baseline: str, counted: str):
    """Check both caches, the saving, the factors and the words of a comparison."""
    page = widget.evaluate(READ)
    assert page["chosen"] == [precision, baseline, counted]
    bits, one_layer = PRECISIONS[precision], counted == "one layer"
    other = BASELINES[baseline]
    numbers, mine = bytes_of(V2, one_layer, bits)
    assert page["takes"][0] == f"{numbers:,} numbers = {mine:,} bytes"
    if isinstance(other, int) and one_layer:
        assert page["answer"] == "Nothing to compare with"
        assert len(page["takes"]) == 1
        assert not widget.locator(".factors").is_visible()
        assert "does not say how many layers" in page["text"]
        return
    near = "about " * isinstance(other, int)
    pair = (other, 2 * other) if near else bytes_of(other, one_layer, 16)
    assert page["takes"][1] == f"{near}{pair[0]:,} numbers = {near}{pair[1]:,} bytes"
    saving, ratio = 100 * (1 - mine / pair[1]), pair[1] / mine
    assert page["answer"] == f"{saving:.2f} % less cache per token: 1/{ratio:.2f} of it"
    is_headline = (precision, baseline, counted) == FIRST
    assert page["stamp"].startswith("To one decimal this is" if is_headline else "This is not")
    assert page["lengths"][0] == pytest.approx(page["room"][0] / ratio, abs=2)
    assert page["lengths"][1] == pytest.approx(page["room"][1])
    *parts, (name, factors, total) = page["rows"]
    assert (name, total) == ("together", f"{ratio:.2f}")
    assert factors == " × ".join(part[2] for part in parts)
    found = 1.0
    for _, counted_as, factor in parts:
        above, below = (float(re.sub("[a-z, ]", "", n)) for n in counted_as.split(" / "))
        assert factor == f"{above / below:.3f}"
        found *= above / below
    assert found == pytest.approx(ratio)
    for text in (f"{mine:,} bytes", f"{pair[1]:,} bytes", f"{saving:.1f} % less"):
        assert text in page["text"]


def begin(show, place, home, **options):
    widget = show(place, home, **options)
    widget.scroll_into_view_if_needed()
    assert_shows(widget, *FIRST)
    return widget


@EVERY_PLACE
def test_mouse_reaches_every_comparison(show, place, address):
    widget = begin(show, place, address)
    for state in product(*GROUPS):
        for name in state:
            act(widget.get_by_role("radio", name=name, exact=True), "mouse")
        assert_shows(widget, *state)


@EVERY_PLACE
def test_keys_go_through_every_switch(show, place, disk):
    widget = begin(show, place, disk)
    keyboard = widget.page.keyboard
    widget.get_by_role("radio", name=FIRST[0], exact=True).focus()
    state = list(FIRST)
    for group, names in enumerate(GROUPS):
        if group:
            keyboard.press("Tab")
        for name in [*names[1:], names[0]]:  # past the last comes the first
            keyboard.press("ArrowRight")
            state[group] = name
            assert_shows(widget, *state)
        keyboard.press("ArrowLeft")
        state[group] = names[-1]
    assert_shows(widget, *(names[-1] for names in GROUPS))  # nothing in print to compare with


@EVERY_PLACE
def test_touch_on_a_phone(show, place, address):
    widget = begin(show, place, address, has_touch=True, viewport={"width": 390, "height": 800})
    state = list(FIRST)
    for group, names in enumerate(GROUPS):
        for name in reversed(names):
            act(widget.get_by_role("radio", name=name, exact=True), "touch")
            state[group] = name
            assert_shows(widget, *state)
    assert widget.evaluate("widget => widget.scrollWidth <= widget.clientWidth")


@EVERY_PLACE
def test_a_change_is_announced(show, place, address):
    widget = begin(show, place, address)
    status = widget.get_by_role("status")
    assert status.inner_text() == ""  # a page that has just opened announces nothing
    act(widget.get_by_role("radio", name="16 bits for both", exact=True), "keys", "Space")
    mine, other = kv_cache_bytes(V2, 1), kv_cache_bytes(BASELINES["DeepSeek 67B"], 1)
    status.filter(has_text=f"{100 * (1 - mine / other):.2f} % less").wait_for(state="attached")
    assert "This is not the report’s 93.3 %" in status.inner_text()
    assert "the depth (60 layers for 95)" in status.inner_text()


@EVERY_PLACE
def test_sources_can_be_followed(show, place, address):
    widget = begin(show, place, address)
    links = widget.locator("figure a").all()
    assert [link.get_attribute("href") for link in links] == [
        f"https://arxiv.org/abs/{number}" for number in ("2405.04434", "2401.02954")
    ]
    assert all(link.inner_text().strip() for link in links)
