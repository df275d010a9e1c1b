"""The five dials on their page: every sum against cache_size, by mouse, keys and touch."""

from __future__ import annotations

import random
import re
from contextlib import contextmanager
from decimal import ROUND_HALF_UP, Decimal
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from pages import places
from visits import PHONE

from attnlib import layers
from attnlib.book.widgets.base import source
from attnlib.book.widgets.dials import (
    DEVICES,
    FORMATS,
    KEPT,
    MOST,
    OWNERS,
    PAGES,
    SCALES,
    SERVED,
    SPLITS,
    WIDTH,
    counted,
    dials_data,
    layers_that_own,
)
from attnlib.layers import CacheSize, Format, cache_size, layers_of, max_cached_tokens
from attnlib.models import MODELS

PLACES = places("dials")
EVERY_PLACE = pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
DECODERS = {name: model for name, model in MODELS.items() if model.kind != "encoder"}
RIGHT = {"owners": "own", "kept": "kept", "width": "all", "scales": "counted"}
DIALS = dict(zip(RIGHT, "1234", strict=True))


@contextmanager
def without_scales():
    """Let formats have neither scales nor padding while the block runs."""
    with pytest.MonkeyPatch.context() as patch:
        bare = {name: Format(form.bits) for name, form in layers.BLOCKS.items()}
        patch.setattr(layers, "BLOCKS", bare)
        bare = {
            name: {part: Format(form.bits) for part, form in layout.items()}
            for name, layout in layers.LAYOUTS.items()
        }
        patch.setattr(layers, "LAYOUTS", bare)
        yield


def as_counted(function, name: str, amount: int, state: dict, **options):
    """Call a function of attnlib.layers for a model as the dials have it counted."""
    model = DECODERS[name]
    kinds = counted(model, owners=state["owners"], width=state["width"])
    options |= {key: state[key] for key in ("page", "devices", "split")}
    options["dtype"] = model.stored if state["dtype"] == SERVED else state["dtype"]
    options["windows"] = state["kept"] == "kept"
    if state["scales"] == "counted":
        return function(kinds, amount, **options)
    with without_scales():
        return function(kinds, amount, **options)


def size_of(name: str, state: dict) -> CacheSize | str:
    """Return the size of a model's cache, or why there is none."""
    try:
        return as_counted(cache_size, name, state["tokens"], state, batch_size=state["users"])
    except ValueError as error:
        return str(error)


# What the page computes, without a page around it


@pytest.fixture(scope="module")
def sums(chromium):
    """Give a function that runs the page's sum for a list of (model, state)."""
    page = chromium.new_page()
    page.add_script_tag(content=source("dials", "js"))
    page.evaluate("(data) => { window.data = data; }", dials_data(DECODERS))
    yield lambda script, cases: page.evaluate(script, cases)
    page.close()


def states(rng: random.Random):
    """Yield states for one model: all devices, splits and pages at all lengths."""
    for tokens in (1, 129, 131_073):
        for devices in DEVICES:
            for split in SPLITS:
                yield {
                    "tokens": tokens,
                    "devices": devices,
                    "split": split,
                    "page": rng.choice(list(PAGES)),
                    "users": rng.choice((1, 3, 48, 65_536)),
                    "dtype": rng.choice(list(FORMATS)),
                    **{name: rng.choice((RIGHT[name],) * 2 + tuple(choices)) for name, choices
                       in zip(RIGHT, (OWNERS, KEPT, WIDTH, SCALES), strict=True)},
                }  # fmt: skip


TALLY = """(cases) => cases.map(([name, state]) => {
  const { once, fullest, copied, even, clash } = tally(data.models[name], state);
  return [String(bytesOf(once)), String(bytesOf(fullest)), String(copied), even, clash];
})"""


def test_every_sum_of_the_page_is_the_cost_models(sums):
    """Catches a rule for what is kept, a format, a share or a mistake that differs."""
    rng = random.Random(5)
    cases = [(name, state) for name in DECODERS for state in states(rng)]
    clashes = 0
    for (name, state), found in zip(cases, sums(TALLY, cases), strict=True):
        once, fullest, copied, even, clash = found
        expected = size_of(name, state)
        if isinstance(expected, str):
            clashes += 1
            assert f"the {clash} heads of a layer" in expected, (name, state)
            assert f"got {state['devices']}" in expected
            continue
        assert clash is None, (name, state)
        assert (int(once), int(fullest)) == expected[:2], (name, state)
        if state["split"] == "heads":  # what is on the devices together
            assert 0 <= 8 * expected.total - int(copied) < 8 * state["devices"], (name, state)
        if even and state["split"] != "heads":  # then no device has room left
            assert 0 <= 8 * expected.total - int(copied) < 8 * state["devices"], (name, state)
        if not even:
            assert state["split"] != "heads" and expected.copies > 1
    assert clashes > 40 and len(cases) > 5_000


def test_clash_of_heads_and_devices_by_hand(sums):
    shared = {**RIGHT, "tokens": 10, "users": 1, "dtype": "bfloat16", "page": 1}
    cases = [
        ("Llama-2 13B", 16, "heads", 40),  # 40 heads
        ("Llama-2 13B", 8, "heads", None),
        ("Llama-2 13B", 16, "positions", None),
        ("Llama-2 13B", 16, "sequences", None),
        ("Llama-3 8B", 16, "heads", None),  # 8 heads, each on two devices
        ("DeepSeek-V3 / R1", 16, "heads", None),  # a latent, on each of them
        ("GPT-2 XL", 2, "heads", 25),
    ]
    asked = [(name, {**shared, "devices": n, "split": split}) for name, n, split, _ in cases]
    assert [found[-1] for found in sums(TALLY, asked)] == [clash for *_, clash in cases]


MOST_FIT = """(cases) => cases.map(([name, state, memory]) => {
  const fits = (change) => tally(data.models[name], { ...state, ...change }).fullest <= 8 * memory;
  const shown = (n) => (n === Infinity ? null : n);
  return [most((tokens) => fits({ tokens }), MOST), most((users) => fits({ users }), MOST)].map(shown);
})"""  # noqa: E501


def test_what_fits_is_the_cost_models(sums):
    rng = random.Random(6)
    cases = []
    for name in DECODERS:
        for state in rng.sample(list(states(rng)), 2):
            if not isinstance(size_of(name, state), str):
                cases.append((name, state, rng.choice((10**9, 80 * 10**9, 10**15))))
    seen = set()
    for (name, state, memory), (tokens, users) in zip(
        cases, sums(MOST_FIT, cases), strict=True
    ):
        options = {"most": MOST, "batch_size": state["users"]}
        expected = as_counted(max_cached_tokens, name, memory, state, **options)
        assert tokens == expected, (name, state, memory)
        for more, fits in ((0, True), (1, False)):
            if users + more:
                size = size_of(name, {**state, "users": users + more})
                assert (size.per_device <= memory) == fits, (name, state, memory, users)
        seen |= {tokens and 1, users and 1}
    assert seen == {0, 1, None}  # None: every layer of Mistral 7B has a window


# What the page shows

READ = """(root) => {
  const text = (node, part) => node.querySelector(part).innerText;
  const all = (node, part, read) => [...node.querySelectorAll(part)].map(read);
  const side = (node) => ({
    title: text(node, ".heading"),
    takes: all(node, ".takes", (line) => line.innerText),
    rows: all(node, "tbody tr", (row) => [...row.cells].map((cell) => cell.innerText)),
    head: all(node, "thead th", (cell) => cell.innerText),
    fill: parseFloat(node.querySelector(".fill").style.width),
    links: all(node, "a", (link) => link.href),
    note: text(node, ".note"),
  });
  const wrong = root.querySelector(".wrong");
  return {
    answer: text(root, ".answer"),
    wrong: wrong.checkVisibility() ? wrong.innerText : "",
    sides: all(root, "[data-side]", side),
    chosen: all(root, "input:checked + span", (node) => node.innerText),
    values: all(root, "select, input[type=number]", (node) => node.value),
    spoken: root.querySelector("[role=status]").textContent,
  };
}"""

# Whether something of a widget is wider than the window, or a number breaks within itself.
NARROW = """(root) => {
  const nodes = [...root.querySelectorAll("figure *")];
  const out = nodes.filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5);
  const lines = (cell) => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    return range.getClientRects().length;
  };
  const cells = [...root.querySelectorAll("[data-side] td")];
  const broken = cells.filter((cell) => lines(cell) > 1);
  return [...out, ...broken].map((node) => node.outerHTML.slice(0, 80));
}"""


def rounded(above: int, below: int = 10**9) -> str:
    value = Decimal(above) / below
    step = Decimal("0.01") if value >= Decimal("0.1") else Decimal("0.0001")
    return f"{value.quantize(step, ROUND_HALF_UP):,}"


def whole(text: str) -> int:
    return int(text.replace(",", ""))


def most_users(name: str, state: dict) -> int:
    """Return how many users fit, by one guess: bytes grow with users in equal steps."""
    memory, step = state["memory"] * 10**9, 1
    if state["split"] == "sequences":
        step = state["devices"]
    size = size_of(name, {**state, "users": step}).per_device
    users = memory // size * step
    one_more = size_of(name, {**state, "users": users + 1}).per_device
    return users if one_more > memory else users + 1


def assert_side(side: dict, name: str, state: dict) -> CacheSize | None:
    """Check all that is said about one model; return its size, if the devices can share it."""
    model, devices = DECODERS[name], state["devices"]
    size = size_of(name, state)
    assert side["title"].endswith(f": {name}")
    assert side["links"] == list(model.links[:1])
    assert model.note in side["note"]
    if isinstance(size, str):
        assert re.fullmatch(
            rf"{devices} devices cannot share \d+ heads: neither number divides the other\.",
            side["takes"][0],
        )
        assert side["takes"][1] == "" and side["fill"] == 0
        assert {cell for *_, copies, gb in side["rows"] for cell in (copies, gb)} == {"–"}
        return None
    takes, room = side["takes"]
    assert takes.startswith(f"{size.per_device:,} bytes")
    assert (f" of {devices} devices" in takes) == (devices > 1)
    if devices > 1 and "on each of" in takes:
        once = "Each number is stored once." in takes
        assert once == (rounded(*size.copies.as_integer_ratio()) == "1.00")
        if not once:
            assert f"stored {rounded(*size.copies.as_integer_ratio())} times" in takes
    tokens = as_counted(
        max_cached_tokens,
        name,
        state["memory"] * 10**9,
        state,
        batch_size=state["users"],
        most=MOST,
    )
    users = most_users(name, state)
    assert room.startswith(f"{state['memory']:,} GB")
    assert f"hold {'any number of' if tokens is None else f'{tokens:,}'} token" in room
    many = f"or {users:,} user{'s' * (users > 1)}" if users else "but no user"
    assert f"{many} with {state['context']:,} token" in room

    # The products of the rows add up.
    total = shares = 0
    for what, entries, numbers, n_bytes, copies, gb in side["rows"]:
        if copies == "–":
            assert "the cache of the" in what and (entries, numbers, gb) == ("0", "0", "0")
            continue
        layer_bytes = whole(entries) * Decimal(n_bytes.replace(",", "")) * state["users"]
        total += layer_bytes * whole(what.split()[0])
        shares += Decimal(gb.replace(",", "").replace("< ", ""))
        assert 1 <= Decimal(copies) <= devices
    assert total == size.once
    step = Decimal("0.0051") * len(side["rows"])
    assert abs(shares - Decimal(size.per_device) / 10**9) <= step
    for kind in layers_that_own(layers_of(model)) if state["width"] == "all" else []:
        number, *words = kind.split()
        pattern = rf"{number} (layers? \()?{' '.join(words)}"
        assert any(re.match(pattern, row[0]) for row in side["rows"]), (kind, side["rows"])
    return size


def assert_shows(widget, state: dict) -> dict:
    """Check every number and sentence against attnlib; return what was read."""
    state = {**state, "tokens": state["context"]}
    page = widget.evaluate(READ)
    names = [state["a"], state["b"]]
    sizes = [
        assert_side(side, name, state) for side, name in zip(page["sides"], names, strict=True)
    ]
    s = "" if state["users"] == 1 else "s"
    assert page["answer"].startswith(
        f"For {state['users']:,} user{s} with {state['context']:,} token"
    )
    for name, size in zip(names, sizes, strict=True):
        if size:
            assert f"{name} keeps {rounded(size.per_device)} GB" in page["answer"]
        else:
            assert f"heads of {name} cannot be divided among the devices" in page["answer"]
    if all(sizes) and names[0] != names[1]:
        small, large = sorted(size.per_device for size in sizes)
        more = names[sizes[1].per_device > sizes[0].per_device]
        if small < large:
            times = rounded(large, small)
            assert page["answer"].endswith(f": {more} keeps {times} times as much.")
        for side, size in zip(page["sides"], sizes, strict=True):
            assert side["fill"] == pytest.approx(100 * size.per_device / large, abs=0.01)
    turned = [number for name, number in DIALS.items() if state[name] != RIGHT[name]]
    assert (page["wrong"] != "") == (turned != [])
    for number in turned:
        assert re.search(rf"^Dials? [^:]*\b{number}\b", page["wrong"])
    for name, size in zip(names, sizes, strict=True):
        if turned and size:
            right = size_of(name, {**state, **RIGHT}).per_device
            times = rounded(size.per_device, right)
            words = f"at {times} times its real size"
            if times == "1.00":
                words = "a little too"
            if size.per_device == right:
                words = f"{name} is not affected"
            assert words in page["wrong"]
    return page


def begin(show, place, home, **options):
    widget = show(place, home, **options)
    first = widget.evaluate(
        """(root) => {
          const { data, label, ...state } =
            JSON.parse(root.querySelector('script[type="application/json"]').text);
          return state;
        }"""
    )
    widget.scroll_into_view_if_needed()
    assert_shows(widget, first)
    assert widget.get_by_label("model A").locator("option").count() >= 30
    return widget, first


def dial(widget, number: int):
    """One of the five groups of switches."""
    return widget.get_by_role("group", name=f"{number} · ")


@EVERY_PLACE
def test_the_page_alone_says_what_a_device_keeps(show, place, address):
    widget, first = begin(show, place, address)
    widget.get_by_label("model A").select_option("gpt-oss-120b")
    widget.get_by_label("devices", exact=True).press("ArrowRight")
    widget.get_by_label("devices", exact=True).press("ArrowRight")
    state = {**first, "a": "gpt-oss-120b", "devices": 4}
    page = assert_shows(widget, state)
    n_bytes = 18 * 2 * 2 * 64 * (131_072 + 128) * 2  # two heads, key and value, of 64 numbers
    assert f"{n_bytes:,} bytes on each of 4 devices" in page["sides"][0]["takes"][0]
    assert "gpt-oss-120b keeps 1.21 GB on each of 4 devices" in page["answer"]


@EVERY_PLACE
def test_models_by_mouse(show, place, disk):
    widget, state = begin(show, place, disk)
    lists = {side: widget.get_by_label(f"model {side.upper()}") for side in "ab"}
    names = lists["a"].locator("option").all_inner_texts()
    assert set(names) <= set(DECODERS)
    for first, second in zip(names[::14], names[1::14], strict=False):
        state |= {"a": first, "b": second}
        lists["a"].select_option(first)
        lists["b"].select_option(second)
        assert_shows(widget, state)
    lists["b"].select_option(state["a"])
    page = assert_shows(widget, {**state, "b": state["a"]})
    assert page["answer"].count(state["a"]) == 1  # a model is not compared with itself


@EVERY_PLACE
def test_every_dial_by_mouse(show, place, address):
    widget, state = begin(show, place, address)
    groups = {"owners": (1, OWNERS), "kept": (2, KEPT), "width": (3, WIDTH)}
    groups |= {"scales": (4, SCALES), "split": (5, SPLITS)}
    widget.get_by_label("model A").select_option("Gemma 4 E4B")
    state["a"] = "Gemma 4 E4B"
    for dtype, text in FORMATS.items():
        widget.get_by_label("number format").select_option(text)
        assert_shows(widget, state := {**state, "dtype": dtype})
    widget.get_by_label("number format").select_option(FORMATS["q8_0"])
    state["dtype"] = "q8_0"
    slider = widget.get_by_label("devices", exact=True)
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] * 0.5, "y": box["height"] / 2})
    assert_shows(widget, state := {**state, "devices": 4})
    for name, (number, options) in groups.items():
        for value, text in reversed(options.items()):
            dial(widget, number).get_by_label(text, exact=True).click()
            assert_shows(widget, {**state, name: value})
    for value, text in list(PAGES.items())[1:]:
        widget.get_by_label("memory is reserved").select_option(text)
        assert_shows(widget, state := {**state, "page": value})
    widget.get_by_label("tokens per user").fill("1000")
    widget.get_by_label("users at a time").fill("7")
    widget.get_by_label("cache memory per device").fill("640")
    state |= {"context": 1000, "users": 7, "memory": 640}
    assert_shows(widget, state)
    for text in (OWNERS["all"], KEPT["all"], WIDTH["kv"], SCALES["left out"]):
        widget.get_by_label(text, exact=True).click()
    wrong = {"owners": "all", "kept": "all", "width": "kv", "scales": "left out"}
    page = assert_shows(widget, {**state, **wrong})
    assert page["wrong"].startswith("Dials 1, 2, 3 and 4 are set to common mistakes: ")


@EVERY_PLACE
def test_a_clash_is_said_and_other_splits_work(show, place, disk):
    widget, state = begin(show, place, disk)
    name = next(
        name
        for name in widget.get_by_label("model A").locator("option").all_inner_texts()
        if isinstance(size_of(name, {**state, "tokens": 1, "devices": 16}), str)
    )
    widget.get_by_label("model B").select_option(name)
    widget.get_by_label("devices", exact=True).press("End")
    state |= {"b": name, "devices": 16}
    page = assert_shows(widget, state)
    assert "times as much" not in page["answer"]
    dial(widget, 5).get_by_label("by positions").click()
    assert_shows(widget, {**state, "split": "positions"})
    dial(widget, 5).get_by_label("by sequences").click()
    page = assert_shows(widget, {**state, "split": "sequences"})
    assert "on the fullest of 16 devices" in page["answer"]  # the others have no user
    widget.get_by_label("users at a time").fill("32")
    page = assert_shows(widget, {**state, "split": "sequences", "users": 32})
    assert "on each of 16 devices" in page["answer"]
    assert page["sides"][0]["takes"][0].endswith("Each number is stored once.")


@EVERY_PLACE
def test_what_does_not_fit_is_said(show, place, disk):
    widget, _ = begin(show, place, disk)
    widget.get_by_label("model A").select_option("Llama-2 7B")
    widget.get_by_label("cache memory per device").fill("1")
    room = widget.locator("[data-side=a] .takes").last
    assert room.inner_text() == (
        "1 GB would hold 1,907 tokens of one user, but no user with 131,072 tokens."
    )
    widget.get_by_label("users at a time").fill("65536")
    assert room.inner_text() == "1 GB would not hold one user with 131,072 tokens."
    widget.get_by_label("tokens per user").fill("1")
    assert room.inner_text() == (
        "1 GB would hold 1,907 users with 1 token each, but not one token of each of 65,536"
        " users."
    )
    widget.get_by_label("users at a time").fill("0")
    assert widget.get_by_text("a whole number from 1 to 65,536").is_visible()


@EVERY_PLACE
def test_keys_reach_every_control(show, place, disk):
    widget, state = begin(show, place, disk)
    page = widget.page
    names = widget.get_by_label("model A").locator("option").all_inner_texts()
    widget.get_by_label("model A").focus()
    page.keyboard.press("ArrowDown")
    state["a"] = names[names.index(state["a"]) + 1]
    assert_shows(widget, state)
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowUp")
    state["b"] = names[names.index(state["b"]) - 1]
    assert_shows(widget, state)
    for name, value in (("context", 4000), ("users", 12), ("memory", 96)):
        page.keyboard.press("Tab")
        page.keyboard.press("ControlOrMeta+a")
        page.keyboard.type(str(value))
        assert_shows(widget, state := {**state, name: value})
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    state["page"] = 16
    assert_shows(widget, state)
    for name, value in (("owners", "all"), ("kept", "all"), ("width", "kv")):
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowRight")
        assert_shows(widget, state := {**state, name: value})
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    state["dtype"] = list(FORMATS)[list(FORMATS).index(state["dtype"]) + 1]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowLeft")  # around, to the other one
    assert_shows(widget, state := {**state, "scales": "left out"})
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    state |= {"devices": 2, "split": "positions"}
    page.wait_for_timeout(400)  # while keys are pressed, nothing is announced
    shown = assert_shows(widget, state)
    assert shown["spoken"] == f"{shown['answer']} {shown['wrong']}"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Home")
    assert_shows(widget, {**state, "devices": 1})


@EVERY_PLACE
def test_a_change_of_the_memory_is_announced(show, place, disk):
    """Catches a reader who hears nothing, since the answer is the same."""
    widget, _ = begin(show, place, disk)
    widget.get_by_label("users at a time").fill("2")
    widget.page.wait_for_timeout(400)
    widget.get_by_label("cache memory per device").fill("100")
    widget.page.wait_for_timeout(400)
    spoken = widget.evaluate(READ)["spoken"]
    for room in widget.locator(".takes:nth-of-type(3)").all_inner_texts():
        assert room.startswith("100 GB would hold ") and room in spoken


@EVERY_PLACE
def test_touch_on_a_phone(show, place, address):
    widget, state = begin(show, place, address, viewport=PHONE, has_touch=True)
    slider = widget.get_by_label("devices", exact=True)
    box = slider.bounding_box()
    slider.tap(position={"x": box["width"] - 2, "y": box["height"] / 2})
    dial(widget, 5).get_by_label("by positions").tap()
    dial(widget, 2).get_by_label(KEPT["all"]).tap()
    state |= {"devices": 16, "split": "positions", "kept": "all"}
    assert_shows(widget, state)
    for control in widget.locator("select, .choice label").all():
        box = control.bounding_box()
        assert min(box["width"], box["height"]) >= 24


@EVERY_PLACE
@pytest.mark.parametrize(
    "hard",
    [
        {},
        {"a": "DeepSeek-V4.1-Flash", "b": "Kimi K3", "devices": "16"},
        {"a": "GPT-3 175B", "b": "Kimi K3", "context": "10000000", "users": "65536"},
    ],
    ids=["first", "many rows", "long numbers"],
)
def test_nothing_is_too_wide_on_a_phone(show, place, address, hard):
    widget, _ = begin(show, place, address, viewport=PHONE, has_touch=True)
    names = widget.get_by_label("model A").locator("option").all_inner_texts()
    for side in "ab":
        if hard.get(side) in names:
            widget.get_by_label(f"model {side.upper()}").select_option(hard[side])
    if "context" in hard:
        widget.get_by_label("tokens per user").fill(hard["context"])
        widget.get_by_label("users at a time").fill(hard["users"])
    if "devices" in hard:
        widget.get_by_label("devices", exact=True).press("End")
    assert widget.evaluate(NARROW) == []


@EVERY_PLACE
def test_without_scripts_there_is_the_table(chromium, place, disk):
    context = chromium.new_context(viewport=PHONE, java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{disk}chapters/{place.chapter}.html")
    table = page.locator(".attnlib-widget").nth(place.index).locator("table")
    row = table.get_by_role("row").filter(has_text="gpt-oss-120b")
    size = cache_size(DECODERS["gpt-oss-120b"], 131_072).once
    assert row.is_visible()
    assert row.locator("td").all_inner_texts()[:3] == [
        "18 window + 18 full",
        f"{size:,}",
        "4.84",
    ]
    context.close()


@EVERY_PLACE
def test_the_address_keeps_what_was_chosen(show, place, address):
    widget, first = begin(show, place, address, is_loaded_anew=True)
    page = widget.page
    assert urlsplit(page.url).query == ""  # a page that was only opened keeps its address
    widget.get_by_label("model B").select_option("DeepSeek-V3 / R1")
    widget.get_by_label(OWNERS["all"]).click()
    widget.get_by_label("devices", exact=True).press("End")
    widget.get_by_label("tokens per user").fill("5000")
    page.wait_for_url(re.compile("context=5000"))
    state = {**first, "b": "DeepSeek-V3 / R1", "owners": "all", "devices": 16}
    state["context"] = 5000
    parts = urlsplit(page.url)
    assert dict(parse_qsl(parts.query)) == {name: str(value) for name, value in state.items()}
    assert parts.fragment == "cache-dials"
    page.reload()
    shown = assert_shows(widget, state)
    assert OWNERS["all"] in shown["chosen"]


@EVERY_PLACE
def test_a_bad_address_is_ignored(show, place, disk):
    widget, first = begin(show, place, disk)
    page = widget.page
    bad = dict.fromkeys(first, "<img src=x onerror=alert(1)>")
    bad |= {"context": "1e9", "users": "-3", "memory": "99999999", "devices": "3", "page": "32"}
    plain = page.url.partition("#")[0].partition("?")[0]
    page.goto(f"{plain}?{urlencode(bad)}")
    assert_shows(widget, first)
    page.goto(f"{plain}?{urlencode({**bad, 'devices': '8', 'split': 'positions'})}")
    assert_shows(widget, {**first, "devices": 8, "split": "positions"})


@EVERY_PLACE
def test_copied_link_opens_the_state(show, place, address):
    permissions = ["clipboard-read", "clipboard-write"]
    widget, first = begin(show, place, address, permissions=permissions)
    page = widget.page
    widget.get_by_label("users at a time").fill("9")
    widget.get_by_role("button", name="Copy link to this state").press("Enter")
    widget.get_by_role("button", name="Copied").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    page.goto("about:blank")
    page.goto(copied)
    assert_shows(widget, {**first, "users": 9})
