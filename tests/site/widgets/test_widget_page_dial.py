"""The RoPE dial on the built page: each control by mouse, by keys and by touch."""

from __future__ import annotations

import math
import re

import pytest
import torch
from pages import act, places
from playwright.sync_api import expect

from attnlib import NtkScaling, apply_rope, rope_angles

PLACES = places("dial")
ROUNDED = 0.0052  # half a unit of the second decimal, and what two processors may differ by


class Truth:
    """What a dial must show, rotated by attnlib now; `at` is what the reader has set."""

    def __init__(self, widget):
        self.q, self.k = widget._vectors
        self.D = len(self.q)
        self.last, self.trained = widget.data["positions"], widget.data["trained"]
        self.bases, self.factors = widget.data["bases"], widget.data["factors"]
        self.at = widget.state()

    def turned(self, x, *positions, factor=None):
        """Return the pairs of a vector at positions, shape (T, D / 2, 2)."""
        factor = self.at["scaling"] if factor is None else factor
        scaling = NtkScaling(factor) if factor > 1 else None
        options = {"base": self.at["base"], "scaling": scaling}
        cos, sin = rope_angles(torch.tensor(positions), self.D, **options)
        return torch.stack(
            apply_rope(x.expand(len(positions), -1), cos, sin).chunk(2, dim=-1), dim=-1
        )

    def shares(self, m, n) -> list[float]:
        return (self.turned(self.q, m) * self.turned(self.k, n)).sum(dim=-1)[0].tolist()

    def score(self, m, n) -> float:
        return sum(self.shares(m, n))

    def set(self, **values):
        self.at.update(values)
        return self


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


def direction(vector) -> float:
    return math.atan2(vector[1], vector[0])


def apart(a: float, b: float) -> float:
    """How far two directions are apart, in radians."""
    return abs(math.remainder(a - b, math.tau))


def points(d: str) -> list[tuple[float, float]]:
    """Return the points of a path, the numbers of an arc left out."""
    numbers = r"(-?[\d.e-]+)[ ,](-?[\d.e-]+)"
    return [(float(x), float(y)) for x, y in re.findall(rf"(?:[ML]|A.* [01] ){numbers}", d)]


# All that a dial shows, in one call: a test reads it about twenty times.
SHOWN = """root => {
  const all = (selector, name) => [...root.querySelectorAll(selector)].map(
    (node) => name ? node.getAttribute(name) : node.textContent);
  return {
    sliders: [...root.querySelectorAll("input[type=range]")].map((input) => input.value),
    outputs: all("output"),
    distance: all(".dial-distance")[0],
    score: all(".dial-score")[0],
    shares: all(".dial-value"),
    speeds: all(".dial-name .note"),
    reading: all(".dial-reading p"),
    chosen: all(".dial-pairs input").map((_, i) =>
      root.querySelectorAll(".dial-pairs input")[i].checked),
    query: all(".dial-big .dial-head.q", "d")[0],
    key: all(".dial-big .dial-line.k", "d")[0],
    rim: all(".dial-big .dial-seen", "d")[0],
    rims: all(".dial-seen").length,
    curve: all(".dial-curve", "d")[0],
    part: all(".dial-curve-part", "d")[0],
    rules: all("path.rule", "d"),
    dots: [all(".dial-now", "cx"), all(".dial-now", "cy")],
  };
}"""


def assert_shows(widget, truth: Truth):
    """Check that numbers, list, large dial and curve follow from what has been set."""
    shown = widget.evaluate(SHOWN)
    m, n, pair = (truth.at[name] for name in ("query_position", "key_position", "pair"))
    assert shown["sliders"] == [str(m), str(n), str(min(m, n))]
    assert shown["outputs"] == [str(m), str(n), f"{m} and {n}"]
    assert number(shown["distance"]) == m - n
    assert abs(number(shown["score"]) - truth.score(m, n)) < ROUNDED
    for text, true in zip(shown["shares"], truth.shares(m, n), strict=True):
        assert abs(number(text) - true) < ROUNDED
    assert shown["chosen"] == [i == pair for i in range(truth.D // 2)]
    assert_large_dial(shown, truth, m, n, pair)
    assert_curve(shown, truth, m - n, pair)
    return shown


def assert_large_dial(shown, truth, m, n, pair):
    q, k = truth.turned(truth.q, m)[0, pair], truth.turned(truth.k, n)[0, pair]
    x, y = points(shown["query"])[0]
    assert apart(direction((x, -y)), direction(q)) < 1e-3
    x, y = points(shown["key"])[-1]
    assert apart(direction((x, -y)), direction(k)) < 1e-3
    found = re.fullmatch(r"Pair (\d+): angle from k to q (−?\d+)°", shown["reading"][0])
    assert int(found[1]) == pair
    angle = math.degrees(direction(q) - direction(k))
    assert abs(math.remainder(number(found[2]) - angle, 360)) < 0.51
    made = re.fullmatch(r"q has made ([\d.]+) turns, k ([\d.]+)", shown["reading"][1])
    base = truth.at["base"] * truth.at["scaling"] ** (truth.D / (truth.D - 2))
    speeds = [math.tau * base ** (2 * i / truth.D) for i in range(truth.D // 2)]
    for text, position in zip(made.groups(), (m, n), strict=True):
        assert abs(number(text) - position / speeds[pair]) < ROUNDED
    for text, speed in zip(shown["speeds"], speeds, strict=True):
        assert abs(number(text.removesuffix(" tokens a turn")) - speed) < 0.51


def assert_curve(shown, truth, distance, pair):
    """The curve has the score of every whole distance, and its dots are at this one."""
    curve, part = points(shown["curve"]), points(shown["part"])
    assert len(curve) == len(part) == 8 * truth.last + 1
    dots = [tuple(map(float, dot)) for dot in zip(*shown["dots"], strict=True)]
    at = 4 * (truth.last + distance)
    assert dots[0] == pytest.approx(part[at], abs=0.1)
    assert dots[1] == pytest.approx(curve[at], abs=0.1)
    rules = [re.match(r"M[\d.]+ ([\d.]+)H", d) for d in shown["rules"]]
    _, zero, high = (float(rule[1]) for rule in rules if rule)
    lengths = [torch.hypot(*x.chunk(2)) for x in (truth.q, truth.k)]
    top = math.ceil((lengths[0] * lengths[1]).sum().item())
    distances = range(-truth.last, truth.last + 1)
    q = truth.turned(truth.q, *(max(d, 0) for d in distances))
    k = truth.turned(truth.k, *(max(-d, 0) for d in distances))
    shares = (q * k).sum(dim=-1)  # (distances, D / 2)
    for line, true in ((curve, shares.sum(dim=-1)), (part, shares[:, pair])):
        ys = [zero + (high - zero) * value / top for value in true.tolist()]
        assert [y for _, y in line[::4]] == pytest.approx(ys, abs=0.2)


def begin(show, computed, place, home, **options):
    """Open a page, check what it shows first; return the widget and the truth."""
    truth = Truth(computed(place))
    widget = show(place, home, **options)
    widget.scroll_into_view_if_needed()
    assert_shows(widget, truth)
    return widget, truth


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_keys(show, computed, place, disk):
    widget, truth = begin(show, computed, place, disk)
    query, key, both = sliders(widget)
    presses = (
        (query, "Home", {"query_position": 0}),
        (query, "ArrowRight", {"query_position": 1}),
        (query, "End", {"query_position": truth.last}),
        (query, "ArrowLeft", {"query_position": truth.last - 1}),
        (key, "End", {"key_position": truth.last}),  # after the query: a negative distance
        (key, "Home", {"key_position": 0}),
        (key, "ArrowUp", {"key_position": 1}),
        (both, "ArrowRight", {"query_position": truth.last, "key_position": 2}),
        (both, "Home", {"query_position": truth.last - 2, "key_position": 0}),
    )
    for slider, press, change in presses:
        slider.focus()
        slider.press(press)
        assert_shows(widget, truth.set(**change))
    choose(widget, truth, "keys")
    m, n = truth.at["query_position"], truth.at["key_position"]
    score, distance = (
        widget.locator(name).inner_text() for name in (".dial-score", ".dial-distance")
    )
    expect(widget.locator(".spoken")).to_contain_text(
        f"Query at {m}, key at {n}, distance {distance}: score {score}."
    )


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_mouse(show, computed, place, address):
    widget, truth = begin(show, computed, place, address)
    slide(widget, truth, "mouse")
    choose(widget, truth, "mouse")


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_touch(show, computed, place, address):
    widget, truth = begin(show, computed, place, address, has_touch=True)
    slide(widget, truth, "touch")
    choose(widget, truth, "touch")


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_moving_both_turns_the_arrows_and_leaves_the_score(show, computed, place, address):
    widget, truth = begin(show, computed, place, address)
    query, key, both = sliders(widget)
    query.fill("9")
    key.fill("5")
    first = assert_shows(widget, truth.set(query_position=9, key_position=5))
    both.focus()
    for press, m in (("ArrowRight", 10), ("ArrowRight", 11), ("End", truth.last)):
        both.press(press)
        now = assert_shows(widget, truth.set(query_position=m, key_position=m - 4))
        for rests in ("distance", "score", "shares", "dots", "curve"):
            assert now[rests] == first[rests]
        assert now["query"] != first["query"]
        assert now["key"] != first["key"]


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_the_rim_is_where_training_has_been(show, computed, place, address):
    widget, truth = begin(show, computed, place, address)
    sliders(widget)[1].fill("7")
    last = truth.D // 2 - 1
    widget.locator(".dial-pairs input").nth(last).check()
    shown = assert_shows(widget, truth.set(key_position=7, pair=last))
    if truth.trained is None:
        assert shown["rims"] == 0
        return
    assert shown["rims"] == truth.D // 2 + 1  # all small dials and the large one
    rim = points(shown["rim"])
    assert len(rim) == 2
    for (x, y), distance in zip(rim, (0, truth.trained), strict=True):
        true = direction(truth.turned(truth.q, 7 + distance, factor=1)[0, last])
        assert apart(direction((x, -y)), true) < 1e-3


def sliders(widget):
    names = ("query position", "key position", "both together")
    return [widget.get_by_label(name) for name in names]


def slide(widget, truth, way):
    """Point at places of the three sliders; their values tell where the thumbs went."""
    for slider, share in zip(sliders(widget), (0.8, 0.3, 0.1), strict=True):
        box = slider.bounding_box()
        spot = {"x": share * box["width"], "y": box["height"] / 2}
        before = [int(part.input_value()) for part in sliders(widget)]
        (slider.tap if way == "touch" else slider.click)(position=spot)
        after = [int(part.input_value()) for part in sliders(widget)]
        assert after != before
        m, n, _ = after
        room = truth.last if share > 0.1 else truth.last - abs(m - n)
        moved = {0.8: m, 0.3: n, 0.1: min(m, n)}[share]
        assert abs(moved - share * room) < 0.05 * truth.last + 1
        if share == 0.1:
            assert m - n == before[0] - before[1]
        assert_shows(widget, truth.set(query_position=m, key_position=n))


def choose(widget, truth, way):
    """Choose each pair, and every base and factor there is."""
    pairs = widget.locator(".dial-pairs input")
    assert pairs.count() == truth.D // 2
    for pair in range(truth.D // 2):
        act(pairs.nth(pair), way, "Space")
        assert_shows(widget, truth.set(pair=pair))
    groups = (("base", "base", truth.bases), ("scaling", "NTK-aware scaling", truth.factors))
    for name, legend, values in groups:
        group = widget.get_by_role("group", name=legend, exact=True)
        assert group.count() == (len(values) > 1)
        for i, value in enumerate(values if len(values) > 1 else ()):
            act(group.locator("input").nth(i), way, "Space")
            assert_shows(widget, truth.set(**{name: value}))
