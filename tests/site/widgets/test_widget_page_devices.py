"""The split of a layer on the built page: every control, every case."""

from __future__ import annotations

import re
from itertools import product
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from pages import act, places
from visits import PHONE

EVERY_PLACE = pytest.mark.parametrize("place", places("devices"), ids=str, scope="module")
VARIANTS = {
    "heads-8": ("MHA: 8 KV heads", 8, 32),  # label, KV heads, numbers per entry and head
    "heads-4": ("GQA-4: 4", 4, 32),
    "heads-2": ("GQA-2: 2", 2, 32),
    "heads-1": ("MQA: 1", 1, 32),
    "latent": ("MLA: a latent", 1, 72),
}
SPLITS = {"heads": "by heads", "sequences": "by sequences", "context": "by positions (context)"}
RANKS = (1, 2, 4, 8)
NAMES = ("variant", "ranks", "split", "rank")


class Truth:
    """What the figure must show in a state, from the definitions."""

    def __init__(self, state: dict):
        self.N, self.split, self.variant = state["ranks"], state["split"], state["variant"]
        _, self.kv_heads, self.width = VARIANTS[self.variant]

    def queries(self, rank: int) -> list[int]:
        each = 8 // self.N
        return list(
            range(rank * each, (rank + 1) * each) if self.split == "heads" else range(8)
        )

    def heads(self, rank: int) -> list[int]:
        return sorted({q // (8 // self.kv_heads) for q in self.queries(rank)})

    def sequences(self, rank: int) -> list[int]:
        if self.split != "sequences":
            return list(range(4))
        each = max(1, 4 // self.N)
        return [s for s in range(4) if s // each == rank]

    def positions(self, rank: int) -> list[int]:
        return list(range(rank, 8, self.N) if self.split == "context" else range(8))

    def held(self, rank: int) -> set[tuple[int, int, int]]:
        return set(product(self.heads(rank), self.sequences(rank), self.positions(rank)))

    def bytes(self, rank: int) -> int:
        return 2 * self.width * len(self.held(rank))

    def first(self, rank: int) -> int:
        same = [r for r in range(self.N) if self.held(r) == self.held(rank)]
        return same[0] if self.held(rank) else rank

    def sent(self) -> int:
        if self.split == "sequences":
            return 0
        return 2 * (self.N - 1) * 128 // self.N if self.split == "heads" else 136 * (self.N - 1)


# All that the figure shows, in one call.
SHOWN = """root => {
  const texts = (selector) => [...root.querySelectorAll(selector)].map((e) => e.textContent);
  const path = (box, kind) => [...box.querySelectorAll(`svg .${kind}`)]
    .map((e) => e.getAttribute("d")).join("");
  const labels = [...root.querySelectorAll(".boxes label")].filter((e) => e.checkVisibility());
  return {
    checked: [...root.querySelectorAll(".controls input:checked + span")]
      .map((e) => e.textContent),
    rank: root.querySelector(".boxes input:checked").getAttribute("aria-label"),
    answer: texts(".answer")[0],
    clash: root.querySelector(".clash").checkVisibility() ? texts(".clash")[0] : "",
    chosen: texts(".chosen")[0],
    boxes: labels.map((label) => ({
      name: label.querySelector("input").getAttribute("aria-label"),
      words: [...label.querySelectorAll("span span")].map((e) => e.textContent),
      own: path(label, "own"), copy: path(label, "copy"),
      same: label.className === "same",
      letters: [...label.querySelectorAll("svg text")].map((e) => e.textContent),
    })),
    numbers: texts(".body > .below td"),
    below: texts(".below p"),
    links: [...root.querySelectorAll(".below a")].map((e) => e.href),
  };
}"""


def cells(d: str, truth: Truth) -> set[tuple[int, int, int]]:
    """The cells (head, sequence, position) of a path of a picture."""
    found = set()
    high = 12 * truth.width / 32
    for x, y in re.findall(r"M([\d.]+) ([\d.]+)h3", d):
        left, top = float(x) - 14.5, float(y) - 13.5
        found.add((round(top / high), int(left // 36), int(left % 36 // 4)))
    return found


def in_words(numbers: list[int], noun: str, names: str = "01234567") -> str:
    """Numbers with their noun, a run of three and more as a range."""
    shown = [names[n] for n in numbers]
    if len(shown) == 1:
        return f"{noun} {shown[0]}"
    if len(shown) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{noun}s {shown[0]} to {shown[-1]}"
    return f"{noun}s {', '.join(shown[:-1])} and {shown[-1]}"


def assert_shows(widget, state: dict) -> dict:
    """Check controls, words and pictures against the definitions; return what was read."""
    truth, shown = Truth(state), widget.evaluate(SHOWN)
    label, _, _ = VARIANTS[state["variant"]]
    assert shown["checked"] == [label, str(state["ranks"]), SPLITS[state["split"]]]
    assert shown["rank"] == f"rank {state['rank']}"
    assert [box["name"] for box in shown["boxes"]] == [f"rank {r}" for r in range(truth.N)]
    for rank, box in enumerate(shown["boxes"]):
        assert_box(box, truth, rank, state["rank"])
    assert_words(shown, truth, state["rank"])
    return shown


def assert_box(box: dict, truth: Truth, rank: int, chosen: int):
    held, first = truth.held(rank), truth.first(rank)
    is_copy = first != rank
    assert cells(box["copy" if is_copy else "own"], truth) == held
    assert box["own" if is_copy else "copy"] == ""
    title, queries, stored, size = box["words"]
    mark = f"copy of rank {first}" if is_copy else "" if held else "empty"
    assert title.strip() == f"rank {rank} {mark}".strip()
    assert queries == in_words(truth.queries(rank), "query head")
    latent = truth.variant == "latent"
    heads = in_words(truth.heads(rank), "KV head", "ABCDEFGH")
    assert stored == ("no sequence" if not held else "the latent" if latent else heads)
    assert size == f"{truth.bytes(rank):,} bytes"
    same = bool(held) and rank != chosen and truth.held(chosen) == held
    assert box["same"] == same
    letters = [] if latent or not held else ["ABCDEFGH"[head] for head in truth.heads(rank)]
    assert box["letters"] == letters + [f"seq {s}" for s in range(4)]


def assert_words(shown: dict, truth: Truth, chosen: int):
    every = [truth.held(rank) for rank in range(truth.N)]
    once, full = set().union(*every), max(truth.bytes(rank) for rank in range(truth.N))
    total = sum(truth.bytes(rank) for rank in range(truth.N))
    copies = sum(map(len, every)) // len(once)
    share = 2 * truth.width * len(once) // full
    assert ("the whole cache" if share == 1 else f"1/{share} of the cache") in shown["answer"]
    assert shown["answer"].endswith(f" {'once' if copies == 1 else f'{copies} times'}.")
    assert shown["numbers"] == [
        f"{total // copies:,} bytes",
        f"{full:,} bytes",
        f"{total:,} bytes",
        str(copies),
        f"{truth.sent():,} numbers",
    ]
    assert bool(shown["clash"]) == (copies > 1 or not all(every))
    mine = every[chosen]
    others = [r for r in range(truth.N) if r != chosen and mine and every[r] == mine]
    assert f"Rank {chosen} has" in shown["chosen"]
    assert f": {truth.bytes(chosen):,} bytes." in shown["chosen"]
    assert ("The same entries are also on" in shown["chosen"]) == bool(others)
    assert ("No other rank" in shown["chosen"]) == bool(mine and not others and truth.N > 1)
    assert (f"= {truth.sent()} numbers" in shown["below"][2]) == (truth.sent() > 0)
    assert bool(shown["links"]) == (truth.N > 1)


def begin(show, place, home, **options):
    """Open the page; return the widget and the state it begins in."""
    widget = show(place, home, **options)
    stored = widget.evaluate(
        """(root) => JSON.parse(root.querySelector('script[type="application/json"]').text)"""
    )
    state = {name: stored[name] for name in NAMES}
    assert_shows(widget, state)
    return widget, state


LEGENDS = {"variant": "variant", "ranks": "ranks (devices)", "split": "the layer is split"}


def choose(widget, state: dict, name: str, value, way: str) -> dict:
    """Choose by a radio button; return the new state."""
    if name == "rank":
        option = widget.get_by_label(f"rank {value}", exact=True)
    else:
        text = {"variant": VARIANTS.get(value, [""])[0], "ranks": str(value)}.get(name)
        group = widget.get_by_role("group", name=LEGENDS[name])
        option = group.get_by_label(text or SPLITS[value], exact=True)
    act(option, way, "Space")
    state = {**state, name: value}
    return {**state, "rank": min(state["rank"], state["ranks"] - 1)}


def walk(widget, state: dict, way: str) -> dict:
    """Choose every option of every control."""
    steps = [("variant", v) for v in VARIANTS] + [("ranks", n) for n in (1, 2, 4, 8)]
    steps += [("split", s) for s in SPLITS] + [("rank", r) for r in range(8)]
    steps += [("split", "heads"), ("variant", "heads-4"), ("rank", 7), ("ranks", 4)]
    for name, value in steps:
        state = choose(widget, state, name, value, way)
        assert_shows(widget, state)
    return state


@EVERY_PLACE
@pytest.mark.parametrize("way", ["mouse", "keys"])
def test_every_control(show, place, disk, way):
    widget, state = begin(show, place, disk)
    walk(widget, state, way)


@EVERY_PLACE
def test_touch_on_a_phone(show, place, address):
    widget, state = begin(show, place, address, has_touch=True, viewport=PHONE)
    walk(widget, state, "touch")
    for control in widget.locator(".choice label:visible, .link button").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 24
    assert widget.evaluate("widget => widget.scrollWidth <= widget.clientWidth")


@EVERY_PLACE
def test_arrow_keys_walk_through_the_ranks(show, place, address):
    widget, state = begin(show, place, address)
    state = choose(widget, choose(widget, state, "ranks", 4, "mouse"), "rank", 0, "mouse")
    for key, rank in (("ArrowRight", 1), ("ArrowDown", 2), ("ArrowUp", 1), ("ArrowLeft", 0)):
        widget.page.keyboard.press(key)
        assert_shows(widget, {**state, "rank": rank})
    widget.page.keyboard.press("ArrowLeft")  # round to the last one that there is
    shown = assert_shows(widget, {**state, "rank": 3})
    widget.get_by_role("status").filter(has_text="Rank 3").wait_for(state="attached")
    assert widget.locator(".spoken").text_content() == shown["chosen"]


@EVERY_PLACE
def test_what_is_announced_is_what_has_changed(show, place, address):
    widget, state = begin(show, place, address)
    status = widget.locator(".spoken")
    assert status.text_content() == ""  # nothing when the page opens
    other = "heads-1" if state["variant"] != "heads-1" else "heads-8"
    state = choose(widget, state, "variant", other, "mouse")
    shown = assert_shows(widget, state)
    status.filter(has_text=VARIANTS[other][0].split(":")[0]).wait_for(state="attached")
    assert status.text_content().startswith(shown["answer"])


# Brings all controls into a state by the events that a reader's hands cause.
SET = """(root, places) => {
  const groups = root.querySelectorAll(".choice");
  places.forEach((place, i) => groups[i].querySelectorAll("input")[place].click());
}"""


@EVERY_PLACE
def test_every_case(show, place, disk):
    """Compares all 60 cases with the definitions, each at two ranks."""
    widget, _ = begin(show, place, disk)
    for variant, split, ranks in product(VARIANTS, SPLITS, RANKS):
        for rank in {0, ranks - 1 - ranks // 4}:
            state = {"variant": variant, "ranks": ranks, "split": split, "rank": rank}
            spots = [list(VARIANTS).index(variant), RANKS.index(ranks)]
            widget.evaluate(SET, [*spots, list(SPLITS).index(split), rank])
            assert_shows(widget, state)


@EVERY_PLACE
def test_the_address_keeps_what_was_chosen(show, place, address):
    widget, state = begin(show, place, address, is_loaded_anew=True)
    page = widget.page
    assert urlsplit(page.url).query == ""  # a page that was only opened keeps its address
    for name, value in (("variant", "latent"), ("ranks", 4), ("split", "context"), ("rank", 3)):
        state = choose(widget, state, name, value, "mouse")
    page.wait_for_url(re.compile("rank=3"))
    parts = urlsplit(page.url)
    assert dict(parse_qsl(parts.query)) == {name: str(value) for name, value in state.items()}
    assert parts.fragment == "device-split"
    page.reload()
    assert_shows(widget, state)


@EVERY_PLACE
def test_a_bad_address_is_ignored(show, place, disk):
    widget, state = begin(show, place, disk)
    page, plain = widget.page, widget.page.url.partition("#")[0].partition("?")[0]
    bad = dict.fromkeys(state, "<img src=x onerror=alert(1)>")
    page.goto(f"{plain}?{urlencode({**bad, 'ranks': '3', 'rank': '-1'})}")
    assert_shows(widget, state)
    page.goto(f"{plain}?{urlencode({**bad, 'ranks': '2', 'rank': '7'})}")
    assert_shows(widget, {**state, "ranks": 2, "rank": 1})  # the last rank that there is
