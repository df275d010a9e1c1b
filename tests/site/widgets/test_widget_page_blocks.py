"""The block walk on the built page: each control by mouse, keys and touch, each number."""

from __future__ import annotations

import math
import random
import re
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from pages import act, places
from visits import PHONE

EVERY_PLACE = pytest.mark.parametrize("place", places("blocks"), ids=str, scope="module")
VIEWS = {"walk": "one by one", "parts": "in parts, then merged"}
ORDERS = {"left": "from the left", "right": "from the right"}
SIZES = (1, 2, 4, 8)
S = 8
NEAR = 1.1e-3  # numbers are shown with three decimals


class Truth:
    """What the figure must show in a state, from its scores and values alone."""

    def __init__(self, data: dict, state: dict):
        self.size, self.query, self.read = (state[n] for n in ("block_size", "query", "read"))
        self.is_walk = state["view"] == "walk"
        self.scores, self.values = data["scores"], data["values"]
        keys = list(range(S)) if state["order"] == "left" else list(range(S))[::-1]
        if not self.is_walk:
            keys = list(range(S))
        size = self.size
        self.blocks = [sorted(keys[at : at + size]) for at in range(0, S, size)]
        self.i = -(-self.read // size) - 1
        self.n = S // size

    def sums(self, keys: list[int]) -> tuple[float, list[float]]:
        """The largest score of some keys, and their sums relative to it."""
        row = self.scores[self.query]
        seen = [key for key in keys if row[key] is not None]
        m = max((row[key] for key in seen), default=-math.inf)
        weights = [math.exp(row[key] - m) for key in seen]
        pairs = list(zip(weights, seen, strict=True))
        return m, [
            sum(weights),
            *(sum(w * self.values[k][d] for w, k in pairs) for d in (0, 1)),
        ]

    def output(self, keys: list[int]) -> list[float]:
        _, (total, *out) = self.sums(keys)
        return [x / total for x in out] if total else [0.0, 0.0]

    def upto(self, i: int) -> list[int]:
        return sorted(sum(self.blocks[: i + 1], []))  # noqa: RUF017 # eight keys


def in_words(keys: list[int], word: str = "key") -> str:
    if len(keys) == 1:
        return f"{word} {keys[0]}"
    return f"{word}s {keys[0]} {'and' if len(keys) == 2 else 'to'} {keys[-1]}"


def show(x: float, digits: int = 3) -> str:
    return "−∞" if x == -math.inf else f"{x:.{digits}f}".replace("-", "−")


def number(text: str) -> float:
    """The number in a cell such as ``= −0.565`` or ``− 1.393``."""
    found = text.replace("−", "-").replace(" ", "").lstrip("=+×max")
    return float(found.replace("∞", "inf"))


# All that the figure shows, in one call.
SHOWN = """root => {
  const texts = (selector) => [...root.querySelectorAll(selector)].map((e) => e.textContent);
  const rows = (selector) => [...root.querySelectorAll(`.numbers${selector} tbody tr`)]
    .map((row) => [...row.cells].map((cell) => cell.textContent));
  const grid = root.querySelector(".scores");
  return {
    checked: [...root.querySelectorAll(".choice:not([hidden]) label")]
      .filter((e) => e.querySelector("input").checked).map((e) => e.textContent),
    buttons: [...root.querySelectorAll(".steps button")]
      .map((e) => e.checkVisibility() && e.getAttribute("aria-disabled")),
    where: texts(".where")[0], what: texts(".what")[0].replaceAll("\\u00a0", " "),
    radio: [...grid.querySelectorAll("input")].findIndex((e) => e.checked),
    on: [...grid.querySelectorAll("tr.query")].map((e) => e.classList.contains("on")),
    heads: [...grid.tHead.rows[0].cells].slice(1)
      .map((e) => [e.textContent, e.colSpan, e.ariaLabel ?? e.getAttribute("aria-label")]),
    grid: [...grid.tBodies[0].rows].filter((row) => row.checkVisibility()).map((row) =>
      [...row.cells].slice(1).map((cell) => [cell.textContent, [...cell.classList]])),
    ledger: rows(".ledger"), results: rows(".results"), parts: rows(".parts"),
    shrunk: root.querySelector(".shrunk") !== null,
    same: texts(".same")[0] ?? null,
    bars: [...root.querySelectorAll(".fill")].map((e) => parseFloat(e.style.width)),
  };
}"""


def assert_shows(widget, data: dict, state: dict) -> dict:
    """Check controls, words and numbers against the truth; return what was read."""
    truth, shown = Truth(data, state), widget.evaluate(SHOWN)
    sides = [ORDERS[state["order"]]] if truth.is_walk else []
    assert shown["checked"] == [VIEWS[state["view"]], str(truth.size), *sides]
    assert shown["radio"] == truth.query
    assert shown["on"] == [i == truth.query for i in range(len(truth.scores))]
    assert_grid(shown, truth)
    (assert_walk if truth.is_walk else assert_parts)(shown, truth)
    return shown


def assert_grid(shown: dict, truth: Truth):
    across = sorted(range(truth.n), key=lambda block: truth.blocks[block])
    marks = {}
    for block, (text, span, label) in zip(across, shown["heads"], strict=True):
        now = not truth.is_walk or block == truth.i
        kind = "now" if now else "done" if block < truth.i else "later"
        mark = "" if not truth.is_walk else {"now": "▼ ", "done": "✓ ", "later": ""}[kind]
        words = {"now": "read now", "done": "already read", "later": "not yet read"}[kind]
        name = f"block {block + 1}, {words}" if truth.is_walk else f"part {block + 1}"
        assert (text, span, label) == (f"{mark}{block + 1}", truth.size, name)
        marks |= dict.fromkeys(truth.blocks[block], kind)
    T, read = len(truth.scores), truth.upto(truth.i)
    m = truth.sums(read)[0]
    row = truth.scores[truth.query]
    best = next((key for key in read if row[key] == m), None) if truth.is_walk else None
    for t, cells in enumerate(shown["grid"][:T]):
        for key, (text, kinds) in enumerate(cells):
            score = truth.scores[t][key]
            assert text == ("–" if score is None else show(score, 1))
            assert ("masked" in kinds) == (score is None)
            assert marks[key] in kinds
            assert ("from" in kinds) == (key % truth.size == 0)
            assert ("to" in kinds) == ((key + 1) % truth.size == 0)
            assert ("max" in kinds) == (t == truth.query and key == best)
    rest = shown["grid"][T:]
    assert len(rest) == 2 + truth.is_walk
    if truth.is_walk:
        for key, (text, _) in enumerate(rest[0]):
            if marks[key] != "now":
                assert text == ""
            else:
                weight = 0.0 if row[key] is None else math.exp(row[key] - m)
                assert abs(number(text) - weight) < 5.1e-3
    for d, cells in enumerate(rest[-2:]):
        assert [text for text, _ in cells] == [show(pair[d], 1) for pair in truth.values]


def assert_walk(shown: dict, truth: Truth):
    i, n, block = truth.i, truth.n, truth.blocks[truth.i]
    assert shown["where"] == f"block {i + 1} of {n}: {in_words(block)}"
    ends = [str(i == 0).lower()] * 2 + [str(i == n - 1).lower()] * 2
    assert shown["buttons"] == ends
    assert shown["parts"] == shown["bars"] == []
    (old, before), (m, after) = (
        truth.sums(truth.upto(i - 1) if i else []),
        truth.sums(truth.upto(i)),
    )
    largest, _ = truth.sums(block)
    factor = 0.0 if old == -math.inf else math.exp(old - m)
    assert shown["ledger"][0] == [
        "m",
        show(old, 1),
        "",
        f"max {show(largest, 1)}",
        f"= {show(m, 1)}",
    ]
    for j, (name, *cells) in enumerate(shown["ledger"][1:]):
        assert name == ("ℓ", "o, 1st", "o, 2nd")[j]
        assert abs(number(cells[0]) - before[j]) < NEAR
        assert cells[1] == ("" if old == -math.inf else f"× {show(factor)}")
        assert abs(number(cells[2]) - (after[j] - before[j] * factor)) < NEAR
        assert cells[2][0] in "+−"
        assert abs(number(cells[3]) - after[j]) < NEAR
    assert shown["shrunk"] == (-math.inf < old < m)
    last = i == n - 1
    names = [f"softmax over {'all 8 keys' if last else in_words(truth.upto(i))}"]
    names = ["o / ℓ", *names, *([] if last else ["in the end, all 8 keys"])]
    assert [row[0] for row in shown["results"]] == names
    wanted = [truth.output(truth.upto(i))] * 2 + [truth.output(list(range(S)))]
    for (_, *cells), out in zip(shown["results"], wanted, strict=False):
        assert [number(cell) for cell in cells] == pytest.approx(out, abs=NEAR)
    assert shown["results"][0][1:] == shown["results"][1][1:]
    assert shown["same"].startswith("Equal: all keys" if last else "Equal: exact for the keys")
    if largest == -math.inf:
        assert shown["what"].startswith(f"The mask hides this block from query {truth.query}")
    elif old == -math.inf:
        assert f"its largest score, {show(m, 1)}, is the first m" in shown["what"]
    elif m > old:
        power = show(m, 1) if m >= 0 else f"({show(m, 1)})"
        assert shown["what"] == (
            f"The new largest score {show(m, 1)} is larger than {show(old, 1)}: what was added"
            f" up shrinks, times exp({show(old, 1)} − {power}) = {show(factor)}."
        )
    else:
        assert shown["what"].startswith(f"No score here is larger than {show(old, 1)}: m stays")


def assert_parts(shown: dict, truth: Truth):
    n, size, blocks = truth.n, truth.size, truth.blocks
    things = f"{n} part{'s' * (n > 1)} of {size} key{'s' * (size > 1)}"
    assert shown["where"] == things
    assert shown["buttons"] == [False] * 4
    assert shown["ledger"] == shown["results"] == []
    m, (total, *_) = truth.sums(list(range(S)))
    lse, outs, shares = m + math.log(total), [], []
    for (name, *cells), block in zip(shown["parts"][:n], blocks, strict=True):
        assert name == in_words(block)
        largest, (part, *_) = truth.sums(block)
        if not part:
            assert cells == ["−∞", "–", "–", "0.000"]
            shares.append(0.0)
            continue
        outs.append(truth.output(block))
        shares.append(math.exp(largest + math.log(part) - lse))
        wanted = [largest + math.log(part), *outs[-1], shares[-1]]
        assert [number(cell) for cell in cells] == pytest.approx(wanted, abs=NEAR)
    assert shown["bars"] == pytest.approx([2.5 * share for share in shares], abs=0.01)
    merged, softmax, mean = shown["parts"][n:]
    whole = truth.output(list(range(S)))
    assert [number(cell) for cell in merged[1:]] == pytest.approx([lse, *whole, 1], abs=NEAR)
    assert merged[2:4] == softmax[2:4]
    middle = [sum(x) / len(outs) for x in zip(*outs, strict=True)]
    assert [number(cell) for cell in mean[2:4]] == pytest.approx(middle, abs=NEAR)
    assert (mean[4] == "✗ wrong") == (middle != pytest.approx(whole, abs=NEAR))
    if max(shares) - min(shares) < 1e-9:
        assert "so the plain mean is right as well" in shown["what"]
    else:
        best = shares.index(max(shares))
        assert f"{in_words(blocks[best], 'Key')} weigh" in shown["what"]


def begin(show, place, home, **options):
    """Open the page; return the widget, its data, and the state it begins in."""
    widget = show(place, home, **options)
    stored = widget.evaluate(
        """(root) => JSON.parse(root.querySelector('script[type="application/json"]').text)"""
    )
    state = {name: stored[name] for name in ("block_size", "query", "read", "order", "view")}
    widget.scroll_into_view_if_needed()
    assert_shows(widget, stored["data"], state)
    return widget, stored["data"], state


def choose(widget, state: dict, name: str, value: object, way: str) -> dict:
    """Choose by one of the rows of radio buttons; return the new state."""
    label = {"view": "blocks", "block_size": "keys in a block", "order": "read"}[name]
    text = {**VIEWS, **ORDERS}.get(value, str(value))
    group = widget.get_by_role("group", name=label, exact=True).filter(has_text=text)
    act(group.get_by_label(text, exact=True).last, way, "Space")
    return {**state, name: value}


def step(widget, state: dict, name: str, way: str) -> dict:
    """Press one of the buttons; return the new state."""
    button = widget.get_by_role("button", name=name)
    if button.get_attribute("aria-disabled") == "true":
        button.evaluate("button => button.click()")  # nothing must happen
    else:
        act(button, way)
    n, i = S // state["block_size"], -(-state["read"] // state["block_size"]) - 1
    to = {"First": 0, "Back": max(i - 1, 0), "Next": min(i + 1, n - 1), "Last": n - 1}[name]
    return {**state, "read": state["block_size"] * (to + 1)}


def drive(widget, data: dict, state: dict, way: str):
    """Every button, each size, both orders, both views, and rows of the table."""
    state = choose(widget, state, "block_size", 2, way)
    for name in ("First", "Back", "Next", "Next", "Back", "Last", "Next", "First", "Next"):
        state = step(widget, state, name, way)
        assert_shows(widget, data, state)
    for size in (1, 4, 8, 2):  # the place in the row of keys is kept
        state = choose(widget, state, "block_size", size, way)
        assert_shows(widget, data, state)
    state = choose(widget, state, "order", "right", way)
    assert_shows(widget, data, state)
    for view in ("parts", "walk"):
        state = choose(widget, state, "view", view, way)
        assert_shows(widget, data, state)
        for query in (1, len(data["scores"]) - 1, 0):
            if way == "keys":
                radios = widget.locator(".scores input")
                radios.nth(query - 1 if query else 1).press("Space")
                radios.nth(query - 1 if query else 1).press("ArrowDown" if query else "ArrowUp")
            else:
                cell = widget.locator("tr.query").nth(query).locator("td").nth(5)
                act(cell, way)
            state["query"] = query
            assert_shows(widget, data, state)


@EVERY_PLACE
def test_mouse(show, place, disk):
    drive(*begin(show, place, disk), "mouse")


@EVERY_PLACE
def test_keys(show, place, address):
    drive(*begin(show, place, address), "keys")


@EVERY_PLACE
def test_touch_on_a_phone(show, place, address):
    widget, data, state = begin(show, place, address, has_touch=True, viewport=PHONE)
    drive(widget, data, state, "touch")
    for control in widget.locator(
        ".choice label, .steps button, .query label, .link button"
    ).all():
        box = control.bounding_box()
        assert box is None or min(box["width"], box["height"]) >= 24
    for size in SIZES:
        for view in VIEWS:
            choose(
                widget,
                choose(widget, state, "block_size", size, "touch"),
                "view",
                view,
                "touch",
            )
            assert widget.evaluate("widget => widget.scrollWidth <= widget.clientWidth")


@EVERY_PLACE
def test_arrow_keys_walk_through_blocks_and_queries(show, place, disk):
    """In the table left and right are blocks, up and down queries; the page stands still."""
    widget, data, state = begin(show, place, disk)
    state = choose(widget, state, "block_size", 2, "mouse")
    widget.locator("tr.query td").first.click()  # from here on by keys alone
    state["query"] = 0
    top = widget.page.evaluate("scrollY")
    walk = [("Home", 0, 0), ("ArrowLeft", 0, 0), ("ArrowRight", 1, 0), ("ArrowDown", 1, 1)]
    walk += [("End", 3, 1), ("ArrowRight", 3, 1), ("ArrowUp", 3, 0), ("ArrowLeft", 2, 0)]
    for key, i, query in walk:
        widget.page.keyboard.press(key)
        state |= {"read": 2 * (i + 1), "query": query}
        assert_shows(widget, data, state)
    assert widget.page.evaluate("scrollY") == top
    forward = widget.get_by_role("button", name="Next")
    forward.press("ArrowLeft")
    assert_shows(widget, data, {**state, "read": 4})


@EVERY_PLACE
def test_what_is_announced_is_what_has_changed(show, place, address):
    widget, data, state = begin(show, place, address)
    status = widget.locator(".spoken")
    assert status.text_content() == ""  # nothing when the page opens
    state = choose(widget, {**state, "query": 0}, "block_size", 2, "mouse")
    widget.locator("tr.query td").first.click()
    state = step(widget, step(widget, state, "First", "mouse"), "Next", "mouse")
    shown = assert_shows(widget, data, state)
    status.filter(has_text="Query 0, block 2 of 4").wait_for(state="attached")
    text = status.text_content().replace("\u00a0", " ")
    assert text.startswith(f"Query 0, {shown['where']}. {shown['what']} m ")
    assert f"Output {' and '.join(shown['results'][0][1:])}." in text


# Brings all controls into a state by the events that a reader's hands cause.
SET = """(root, { block_size, query, read, order, view }) => {
  const radios = (i) => [...root.querySelectorAll(".choice")[i].querySelectorAll("input")];
  radios(0)[0].click();
  radios(1)[[1, 2, 4, 8].indexOf(block_size)].click();
  radios(2)[order === "left" ? 0 : 1].click();
  root.querySelectorAll(".scores input")[query].click();
  const [first, , next] = root.querySelectorAll(".steps button");
  first.click();
  for (let at = block_size; at < read; at += block_size) next.click();
  radios(0)[view === "walk" ? 0 : 1].click();
}"""


@EVERY_PLACE
def test_many_states(show, place, disk):
    """Compares fifty states with the truth, each reached from another one."""
    widget, data, _ = begin(show, place, disk)
    chance = random.Random(7)
    for _ in range(50):
        size = chance.choice(SIZES)
        state = {
            "block_size": size,
            "query": chance.randrange(len(data["scores"])),
            "read": size * chance.randint(1, S // size),
            "order": chance.choice(list(ORDERS)),
            "view": chance.choice(("walk", "walk", "walk", "parts")),
        }
        widget.evaluate(SET, state)
        assert_shows(widget, data, state)


@EVERY_PLACE
def test_the_address_keeps_what_was_chosen(show, place, address):
    widget, data, state = begin(show, place, address, is_loaded_anew=True)
    page = widget.page
    assert urlsplit(page.url).query == ""  # a page that was only opened keeps its address
    state = choose(widget, state, "block_size", 4, "mouse")
    state = choose(widget, state, "order", "right", "mouse")
    state = step(widget, state, "Last", "mouse")
    widget.locator("tr.query td").first.click()
    state["query"] = 0
    page.wait_for_url(re.compile("block_size=4.*query=0.*read=8"))
    parts = urlsplit(page.url)
    assert dict(parse_qsl(parts.query)) == {name: str(value) for name, value in state.items()}
    assert parts.fragment == "block-walk"
    page.reload()
    assert_shows(widget, data, state)


@EVERY_PLACE
def test_a_bad_address_is_ignored(show, place, disk):
    widget, data, state = begin(show, place, disk)
    page, plain = widget.page, widget.page.url.partition("#")[0].partition("?")[0]
    bad = dict.fromkeys(state, "<img src=x onerror=alert(1)>")
    bad |= {"block_size": "3", "read": "9", "query": "-1"}
    page.goto(f"{plain}?{urlencode(bad)}")
    assert_shows(widget, data, state)
    page.goto(f"{plain}?{urlencode({**bad, 'read': '5', 'view': 'parts'})}")
    assert_shows(widget, data, {**state, "read": 5, "view": "parts"})
