"""The headline dissector on its page: headlines, switches and readings, against attnlib."""

from __future__ import annotations

import re
from itertools import product

import pytest
from pages import act, places

from attnlib import MODELS
from attnlib.book.widgets.dissector import dissector_data
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

OTHERS = [entry for entry in dissector_data()["headlines"] if entry["readings"]]
V2_TEXT = dissector_data()["headlines"][0]["text"]

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
    headline: root.querySelector("select").selectedOptions[0].text,
    groups: all("legend").map((node) => node.innerText),
    bars: all(".bars li > span:first-child").map((node) => node.innerText),
    ladder: all(".ladder tbody tr").map((row) => [...row.cells].map((cell) => cell.innerText)),
    links: all("figure a").map((node) => node.href),
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
    assert page["headline"] == V2_TEXT
    assert page["groups"] == ["bits of a cached number", "V2 against", "counted"]
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


def assert_reads(widget, entry: dict, reading: dict):
    """Check both sides, the result, the factors, the words and the sources of a reading."""
    page = widget.evaluate(READ)
    assert (page["headline"], page["groups"]) == (entry["text"], ["relative to what?"])
    assert page["chosen"] == [reading["text"]]
    assert page["answer"] == reading["strong"] + reading["rest"]
    assert page["stamp"] == reading["stamp"]
    sides = [reading["mine"], reading["other"]]
    assert page["takes"] == [side["takes"] for side in sides]
    for shown, side in zip(page["bars"], sides, strict=True):
        parts = "; ".join(side[part] for part in ("counted", "precision", "context"))
        assert shown == f"{side['name']} ({parts})"
    most = max(side["amount"] for side in sides)
    for length, room, side in zip(page["lengths"], page["room"], sides, strict=True):
        assert length == pytest.approx(room * side["amount"] / most, abs=2)
    factors = [factor for *_, factor in reading["factors"]]
    together = ["together", " × ".join(factors), reading["total"]]
    assert page["rows"] == [*reading["factors"], together]
    assert reading["sentence"] in page["text"]
    assert page["ladder"] == (entry["table"]["rows"] if entry["table"] else [])
    assert page["links"] == [address for _, address in entry["sources"]]


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
def test_mouse_reaches_every_reading(show, place, address):
    widget = begin(show, place, address)
    choose = widget.get_by_label("headline")
    for entry in OTHERS:
        choose.select_option(entry["text"])
        assert_reads(widget, entry, entry["readings"][0])
        for reading in reversed(entry["readings"]):
            act(widget.get_by_role("radio", name=reading["text"], exact=True), "mouse")
            assert_reads(widget, entry, reading)
    choose.select_option(V2_TEXT)
    assert_shows(widget, *FIRST)  # its switches are as they were


@EVERY_PLACE
def test_keys_reach_every_reading(show, place, disk):
    widget = begin(show, place, disk)
    choose, keyboard = widget.get_by_label("headline"), widget.page.keyboard
    choose.focus()
    for entry in OTHERS:
        keyboard.press("ArrowDown")
        assert_reads(widget, entry, entry["readings"][0])
        assert choose.evaluate("node => node === document.activeElement")
        keyboard.press("Tab")
        for reading in [*entry["readings"][1:], entry["readings"][0]]:
            keyboard.press("ArrowRight")
            assert_reads(widget, entry, reading)
        keyboard.press("Shift+Tab")
    keyboard.press("Home")
    assert_shows(widget, *FIRST)


@EVERY_PLACE
def test_touch_reaches_every_reading_on_a_phone(show, place, address):
    widget = begin(show, place, address, has_touch=True, viewport={"width": 390, "height": 800})
    for entry in OTHERS:
        widget.get_by_label("headline").select_option(entry["text"])
        for reading in reversed(entry["readings"]):
            act(widget.get_by_role("radio", name=reading["text"], exact=True), "touch")
            assert_reads(widget, entry, reading)
            assert widget.evaluate("widget => widget.scrollWidth <= widget.clientWidth")


@EVERY_PLACE
def test_a_new_headline_is_announced(show, place, address):
    widget = begin(show, place, address)
    entry = OTHERS[-1]
    widget.get_by_label("headline").select_option(entry["text"])
    status = widget.get_by_role("status")
    status.filter(has_text=entry["readings"][0]["sentence"]).wait_for(state="attached")
    assert entry["readings"][0]["stamp"] in status.inner_text()


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
