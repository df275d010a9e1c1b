"""The window explorer on the built page: each control by mouse, keys and touch, each number."""

from __future__ import annotations

import random
import re
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from pages import act, places
from visits import PHONE

EVERY_PLACE = pytest.mark.parametrize("place", places("window"), ids=str, scope="module")
RULES = {"sliding": "last W tokens", "chunks": "chunk of W tokens"}
PATTERNS = ("S", "SS", "SSS", "SSSS", "SSSF", "FSSS", "SF", "F")


class Truth:
    """What the figure must show in a state, by brute force from the definitions."""

    def __init__(self, T: int, state: dict):
        self.T, self.state = T, state
        self.W, self.query, self.pattern = (state[n] for n in ("window", "query", "pattern"))
        self.chunks = state["rule"] == "chunks"
        self.first = 0 if self.chunks else state["first"]

    def sees(self, t: int, at: int) -> bool:
        """Whether token t sees a token in a window layer."""
        if at > t:
            return False
        if self.chunks:
            return at // self.W == t // self.W
        return t - at < self.W or at < self.first

    def levels(self) -> list[list[int]]:
        """The tokens that are reached, from the output down to the input."""
        found = [[self.query]]
        for kind in reversed(self.pattern):
            seen = self.sees if kind == "S" else lambda t, at: at <= t
            found.append([at for at in range(self.T) if any(seen(t, at) for t in found[-1])])
        return found

    def rows(self) -> tuple[list[int | None], int, int | None]:
        """What the rows hold, the row that was written last, and the token it held before."""
        rows: list[int | None] = [None] * (self.first + self.W)
        for token in range(self.query + 1):
            ages = [-1 if at is None else at for at in rows[self.first :]]
            row = token if token < self.first else self.first + ages.index(min(ages))
            old, rows[row] = rows[row], token
        return rows, row, old


def in_words(tokens: list[int]) -> str:
    """Token numbers, with runs of three and more as ranges."""
    runs = [[at] for at in tokens if at - 1 not in tokens]
    for run in runs:
        while run[-1] + 1 in tokens:
            run.append(run[-1] + 1)
    found = [f"{r[0]} to {r[-1]}" if len(r) > 2 else " and ".join(map(str, r)) for r in runs]
    *others, last = " and ".join(found).split(" and ")
    return f"{', '.join(others)} and {last}" if others else last


def count(n: int, thing: str, things: str = "") -> str:
    return f"1 {thing}" if n == 1 else f"{n} {things or thing + 's'}"


# All that the figure shows, in one call.
SHOWN = """root => {
  const texts = (selector) => [...root.querySelectorAll(selector)].map((e) => e.textContent);
  const path = (selector) => [...root.querySelectorAll(selector)]
    .map((e) => e.getAttribute("d")).join("");
  const mask = root.querySelector(".mask");
  return {
    window: Number(root.querySelector("input[type=range]").value) + 1,
    output: texts("output")[0],
    checked: [...root.querySelectorAll(".choice label")]
      .filter((e) => e.querySelector("input").checked).map((e) => e.textContent),
    pattern: root.querySelector("select").value,
    disabled: root.querySelectorAll("fieldset")[1].disabled,
    why: getComputedStyle(root.querySelector(".why")).visibility === "visible"
      && root.querySelector(".why").checkVisibility(),
    headings: texts(".heading"),
    cost: texts(".cost")[0],
    now: Number(mask.ariaValueNow ?? mask.getAttribute("aria-valuenow")),
    spoken: mask.getAttribute("aria-valuetext"),
    near: path(".mask path.near"), first: path(".mask path.first"),
    on: path(".mask path.on"),
    hidden: path(".mask path.hidden"), later: path(".mask path.later"),
    dots: path(".mask path.dots"),
    frame: root.querySelector(".mask rect.row").getAttribute("y"),
    rows: [...root.querySelectorAll(".rows li")].map((row) =>
      [row.className, ...[...row.children].map((cell) => cell.textContent)]),
    counts: texts(".layers text.on"),
    layers: texts(".layers text.layer").filter(Boolean),
    reached: path(".layers path.near"), kept: path(".layers path.first"),
    out: path(".layers path.out"), looks: path(".layers path.looks"),
    label: root.querySelector(".layers").getAttribute("aria-label"),
  };
}"""


def corners(d: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)", d)]


def in_mask(d: str) -> set[tuple[int, int]]:
    """The cells (query, key) of a path of the mask."""
    return {(int(y - 34) // 18, int(x - 34) // 18) for x, y in corners(d)}


def assert_shows(widget, T: int, state: dict) -> dict:
    """Check controls, words and drawings against the definitions; return what was read."""
    truth, shown = Truth(T, state), widget.evaluate(SHOWN)
    assert_controls(shown, state)
    query, seen = state["query"], [at for at in range(T) if truth.sees(state["query"], at)]
    assert shown["headings"][0] == (
        f"Token {query} sees {count(len(seen), 'token')}: {in_words(seen)}"
    )
    assert shown["spoken"] == f"token {query} sees {in_words(seen)}"
    assert_mask(shown, truth)
    assert_rows(shown, truth)
    assert_reach(shown, truth)
    return shown


def assert_controls(shown: dict, state: dict):
    chunks = state["rule"] == "chunks"
    assert shown["window"] == state["window"]
    assert shown["output"] == count(state["window"], "token")
    assert shown["checked"] == [RULES[state["rule"]], str(state["first"])]
    assert shown["pattern"].startswith(f"{state['pattern']}:")
    assert shown["disabled"] == shown["why"] == chunks
    assert shown["now"] == state["query"]


def assert_mask(shown: dict, truth: Truth):
    cells = [(t, at) for t in range(truth.T) for at in range(truth.T)]
    seen = {cell for cell in cells if truth.sees(*cell)}
    first = {(t, at) for t, at in seen if at < truth.first}
    assert in_mask(shown["near"]) == seen - first
    assert in_mask(shown["first"]) == in_mask(shown["dots"]) == first
    assert in_mask(shown["on"]) == {cell for cell in seen if cell[0] == truth.query}
    assert in_mask(shown["later"]) == {(t, at) for t, at in cells if at > t}
    assert in_mask(shown["hidden"]) == {(t, at) for t, at in cells if at <= t} - seen
    assert (float(shown["frame"]) + 1 - 34) / 18 == truth.query


def assert_rows(shown: dict, truth: Truth):
    rows, written, old = truth.rows()
    query, held = truth.query, [at for at in rows if at is not None]
    event = f"filled row {written}, which was empty"
    if old is not None:
        event = f"replaced token {old} in row {written}"
    assert shown["headings"][1] == (
        f"It keeps {len(held)} of {count(query + 1, 'token')}. Token {query} {event}."
    )
    assert len(shown["rows"]) == truth.first + truth.W
    for row, (kind, name, box, words) in enumerate(shown["rows"]):
        at = rows[row]
        assert name == f"row {row}"
        assert box == (
            "empty" if at is None else f"{'◆ ' if row < truth.first else ''}token {at}"
        )
        assert (kind == "new") == (row == written)
        if row == written:
            assert words == ("← new" if old is None else f"← replaced token {old}")
        elif at is not None:
            assert (words == "not seen") == (not truth.sees(query, at))


def assert_reach(shown: dict, truth: Truth):
    levels, query = truth.levels(), truth.query
    numbers = [len(level) for level in levels]
    L = len(truth.pattern)
    assert shown["headings"][2] == (
        f"Through {count(L, 'layer')}, the output of token {query} draws on"
        f" {count(numbers[-1], 'token')}: {in_words(levels[-1])}"
    )
    assert [text for text in shown["counts"] if "token" in text] == [
        count(n, "token") for n in numbers
    ]
    assert shown["layers"] == [f"layer {i}: {truth.pattern[i]}" for i in reversed(range(L))]
    assert f"{', '.join(map(str, numbers))} tokens" in shown["label"]
    boxes = corners(shown["reached"] + shown["kept"] + shown["out"])
    assert len(boxes) == truth.T * (L + 1)
    xs, ys = (sorted({box[i] for box in boxes}) for i in (0, 1))
    filled = {(ys.index(y), xs.index(x)) for x, y in corners(shown["reached"] + shown["kept"])}
    assert filled == {(i, at) for i, level in enumerate(levels) for at in level}
    assert {xs.index(x) for x, _ in corners(shown["kept"])} == {
        at for level in levels for at in level if at < truth.first
    }
    seen = [sum(truth.sees(t, at) for at in range(truth.T)) for t in range(truth.T)]
    kinds = list(zip(reversed(truth.pattern), levels, strict=False))
    looks = [t + 1 if kind == "F" else seen[t] for kind, level in kinds for t in level]
    assert len(corners(shown["looks"])) == sum(looks)
    held = sum(at is not None for at in truth.rows()[0])
    kept = sum(query + 1 if kind == "F" else held for kind in truth.pattern)
    assert f"keep{'s' if L == 1 else ''} {kept} of " in shown["cost"]
    assert shown["cost"].endswith(f" {count(L * (query + 1), 'entry', 'entries')}.")


def drawn(widget):
    """Wait until the layers are drawn: they measure their width first."""
    widget.locator(".layers path.near").wait_for(state="attached")


def begin(show, place, home, **options):
    """Open the page; return the widget, the number of tokens, and the state it begins in."""
    widget = show(place, home, **options)
    stored = widget.evaluate(
        """(root) => JSON.parse(root.querySelector('script[type="application/json"]').text)"""
    )
    T = stored["data"]["tokens"]
    state = {name: stored[name] for name in ("window", "rule", "first", "pattern", "query")}
    widget.scroll_into_view_if_needed()
    drawn(widget)
    assert_shows(widget, T, state)
    return widget, T, state


def choose(widget, state: dict, name: str, value: object, way: str) -> dict:
    """Choose a rule or a number of first tokens; return the new state."""
    label = "a token sees" if name == "rule" else "first tokens kept"
    text = RULES.get(value, str(value))
    option = widget.get_by_role("group", name=label).get_by_label(text, exact=True)
    act(option, way, "Space")
    return {**state, name: value}


@EVERY_PLACE
def test_every_control_by_keys(show, place, disk):
    widget, T, state = begin(show, place, disk)
    slider = widget.get_by_label("window W")
    slider.focus()
    for key, window in (("Home", 1), ("ArrowRight", 2), ("End", T), ("ArrowLeft", T - 1)):
        slider.press(key)
        state["window"] = window
        assert_shows(widget, T, state)
        assert slider.get_attribute("aria-valuetext") == count(window, "token")
    slider.press("Home")
    slider.press("ArrowRight")
    state["window"] = 2
    for first in (1, 2, 0):
        state = choose(widget, state, "first", first, "keys")
        assert_shows(widget, T, state)
    state = choose(widget, choose(widget, state, "first", 2, "keys"), "rule", "chunks", "keys")
    assert_shows(widget, T, state)
    state = choose(widget, state, "rule", "sliding", "keys")
    assert_shows(widget, T, state)  # the first tokens are there again
    layers = widget.get_by_label("layers", exact=True)
    layers.focus()
    for pattern in PATTERNS:
        layers.select_option(index=PATTERNS.index(pattern))
        state["pattern"] = pattern
        assert_shows(widget, T, state)
    layers.press("ArrowUp")
    state["pattern"] = PATTERNS[-2]
    assert_shows(widget, T, state)


@EVERY_PLACE
def test_arrow_keys_walk_through_the_queries(show, place, address):
    widget, T, state = begin(show, place, address)
    mask = widget.get_by_role("slider", name="query token")
    mask.focus()
    walk = [("Home", 0), ("ArrowUp", 0), ("ArrowDown", 1), ("ArrowRight", 2), ("ArrowLeft", 1)]
    walk += [("PageDown", 5), ("PageUp", 1), ("End", T - 1), ("ArrowDown", T - 1)]
    for key, query in walk:
        mask.press(key)
        assert_shows(widget, T, {**state, "query": query})
    top = widget.page.evaluate("scrollY")
    mask.press("Space")
    assert widget.page.evaluate("scrollY") == top
    spoken = widget.get_by_role("status").filter(has_text=f"Token {T - 1} sees")
    spoken.wait_for(state="attached")  # announced a moment after the last key


@EVERY_PLACE
def test_what_is_announced_is_what_has_changed(show, place, address):
    widget, T, state = begin(show, place, address)
    status = widget.locator(".spoken")
    assert status.text_content() == ""  # nothing when the page opens
    other = "SSSS" if state["pattern"] == "F" else "F"
    widget.get_by_label("layers", exact=True).select_option(index=PATTERNS.index(other))
    shown = assert_shows(widget, T, {**state, "pattern": other})
    status.filter(has_text=f"Layers {other}.").wait_for(state="attached")
    numbers = ", ".join(str(len(n)) for n in Truth(T, {**state, "pattern": other}).levels())
    text = status.text_content()
    assert text == (
        f"Layers {other}. {shown['headings'][2]}; from the output down {numbers}."
        f" {shown['cost']}"
    )


def walk_by_pointer(widget, T: int, state: dict, way: str):
    """Move the slider, choose by buttons, and choose queries in both drawings."""

    def at(element, x: float, y: float):
        box = element.bounding_box()
        spot = {"x": x * box["width"], "y": y * box["height"]}
        (element.tap if way == "touch" else element.click)(position=spot)

    slider = widget.get_by_label("window W")
    box = slider.bounding_box()
    for window in (1, T, 3):
        x = (8 + (box["width"] - 16) * (window - 1) / (T - 1)) / box["width"]
        at(slider, x, 0.5)
        state = {**state, "window": window}
        assert_shows(widget, T, state)
    for name, value in (("first", 2), ("rule", "chunks"), ("rule", "sliding"), ("first", 1)):
        state = choose(widget, state, name, value, way)
        assert_shows(widget, T, state)
    side = 34 + T * 18 + 2
    for query in (0, 7, T - 1):
        at(widget.locator(".mask"), 0.6, (34 + 18 * query + 9) / side)
        state = {**state, "query": query}
        assert_shows(widget, T, state)
    layers = widget.locator("svg.layers")
    left, width = 92, layers.bounding_box()["width"]
    for query in (T - 3, 1):
        at(layers, (left + (query + 0.5) * (width - left - 4) / T) / width, 0.5)
        state = {**state, "query": query}
        assert_shows(widget, T, state)


@EVERY_PLACE
def test_mouse(show, place, disk):
    widget, T, state = begin(show, place, disk)
    walk_by_pointer(widget, T, state, "mouse")


@EVERY_PLACE
def test_touch_on_a_phone(show, place, address):
    widget, T, state = begin(show, place, address, has_touch=True, viewport=PHONE)
    walk_by_pointer(widget, T, state, "touch")
    for control in widget.locator("select, .choice label, .mask, .link button").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 24
    assert widget.evaluate("widget => widget.scrollWidth <= widget.clientWidth")


# Brings all controls into a state by the events that a reader's hands cause.
SET = """(root, { window, rule, first, pattern, query }) => {
  const send = (element, event) => element.dispatchEvent(event);
  const [rules, firsts] = root.querySelectorAll(".choice");
  const slider = root.querySelector("input[type=range]");
  slider.value = window - 1;
  send(slider, new Event("input"));
  rules.querySelectorAll("input")[0].click();
  firsts.querySelectorAll("input")[first].click();
  rules.querySelectorAll("input")[rule === "chunks" ? 1 : 0].click();
  const select = root.querySelector("select");
  const names = [...select.options].map(({ text }) => text.split(":")[0]);
  select.selectedIndex = names.indexOf(pattern);
  send(select, new Event("change"));
  const mask = root.querySelector(".mask");
  const press = (key) => send(mask, new KeyboardEvent("keydown", { key }));
  press("Home");
  for (let token = 0; token < query; token++) press("ArrowDown");
}"""


@EVERY_PLACE
def test_many_states(show, place, disk):
    """Compares fifty states with the definitions, each reached from another one."""
    widget, T, _ = begin(show, place, disk)
    chance = random.Random(5)
    for _ in range(50):
        state = {
            "window": chance.randint(1, T),
            "rule": chance.choice(list(RULES)),
            "first": chance.choice((0, 1, 2)),
            "pattern": chance.choice(PATTERNS),
            "query": chance.randrange(T),
        }
        widget.evaluate(SET, state)
        assert_shows(widget, T, state)


@EVERY_PLACE
def test_the_address_keeps_what_was_chosen(show, place, address):
    widget, T, state = begin(show, place, address, is_loaded_anew=True)
    page = widget.page
    assert urlsplit(page.url).query == ""  # a page that was only opened keeps its address
    state = choose(widget, state, "first", 1, "mouse")
    widget.get_by_label("layers", exact=True).select_option(index=PATTERNS.index("SSSF"))
    widget.get_by_role("slider", name="query token").press("Home")
    state |= {"pattern": "SSSF", "query": 0}
    page.wait_for_url(re.compile("query=0"))
    parts = urlsplit(page.url)
    assert dict(parse_qsl(parts.query)) == {name: str(value) for name, value in state.items()}
    assert parts.fragment == "window-explorer"
    page.reload()
    drawn(widget)
    assert_shows(widget, T, state)


@EVERY_PLACE
def test_a_bad_address_is_ignored(show, place, disk):
    widget, T, state = begin(show, place, disk)
    page, plain = widget.page, widget.page.url.partition("#")[0].partition("?")[0]
    bad = dict.fromkeys(state, "<img src=x onerror=alert(1)>")
    bad |= {"window": str(T + 1), "first": "3", "query": "-1"}
    page.goto(f"{plain}?{urlencode(bad)}")
    drawn(widget)
    assert_shows(widget, T, state)
    page.goto(f"{plain}?{urlencode({**bad, 'window': '1', 'pattern': 'SF'})}")
    drawn(widget)
    assert_shows(widget, T, {**state, "window": 1, "pattern": "SF"})
