"""The plane of models on its page: every control, every point, by mouse, keys and touch."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import replace
from math import log2

import pytest
from pages import act, places

from attnlib import MODELS
from attnlib.costs import attention_params, decode_cost, kv_cache_bytes
from attnlib.layers import cache_size, step_reads
from attnlib.variants import VARIANTS

PLACES = places("plane")
EVERY_PLACE = pytest.mark.parametrize("place", PLACES, ids=str, scope="module")

MEASURES = {
    "bytes": "cache per token",
    "read": "read per token of context",
    "intensity": "FLOPs a cache byte",
    "longest": "cache at longest context",
    "params": "attention parameters",
    "year": "year",
}
CONTEXTS = [2**i for i in range(10, 18)]
DECODERS = {name: model for name, model in MODELS.items() if model.kind != "encoder"}
YEARS = range(
    min(model.year for model in DECODERS.values()),
    max(model.year for model in DECODERS.values()) + 1,
)
ALL = "all families"


class State(dict):
    """What a reader has set, and what must then be seen, from attnlib's own functions."""

    def value(self, name: str, model) -> float | None:
        """What a model is worth on a measure; a year has the variants side by side."""
        if name == "year":
            lane = list(VARIANTS).index(model.variant) - (len(VARIANTS) - 1) / 2
            return model.year + 0.72 / len(VARIANTS) * lane
        if model.geometry is None:
            return self.value_of_layers(name, model)
        g = replace(model.geometry, d_model=model.geometry.d_model or 1)
        naive = g.variant == "MLA" and self["form"] == "naive"
        if name in ("bytes", "read"):
            return kv_cache_bytes(g, self["context"], expanded=naive) / self["context"]
        if name == "intensity":
            form = "naive" if naive else "absorbed"
            cost = decode_cost(g, 2**17, new_tokens=self["queries"], form=form)
            return round(cost.core_intensity, 2)
        if name == "longest":
            longest = model.max_context
            return longest and kv_cache_bytes(g, longest, expanded=naive)
        return attention_params(g) if model.geometry.d_model else None

    def value_of_layers(self, name: str, model) -> float | None:
        """The same for a model whose layers differ; its projections are not counted."""
        S, longest = self["context"], model.max_context
        if name == "bytes":
            return cache_size(model, S).once / S
        if name == "read":
            return step_reads(model, S).bytes / S
        if name == "longest":
            return longest and cache_size(model, longest).once
        if name == "params":
            return None
        flops = sum(step_reads(model, S - earlier).flops for earlier in range(self["queries"]))
        return round(flops / step_reads(model, S).bytes, 2)

    def passes(self, model) -> bool:
        return (
            self[model.variant]
            and self["from_year"] <= model.year <= self["to_year"]
            and self["family"] in (ALL, model.family)
        )

    def points(self) -> list[tuple[tuple[float, float], list[str]]]:
        """Return each point with its models, in the order of the horizontal axis."""
        found = defaultdict(list)
        for name, model in DECODERS.items():
            x, y = (self.value(self[axis], model) for axis in "xy")
            if self.passes(model) and x is not None and y is not None:
                found[round(x, 6), round(y, 6)].append(name)
        return sorted(found.items())

    def at(self, name: str) -> tuple[tuple[float, float], list[str]] | None:
        """The point of a model, with its models; ``None`` if it is not shown."""
        return next((point for point in self.points() if name in point[1]), None)


def first_state(made) -> State:
    state = State(dict.fromkeys(VARIANTS, True))
    state.update(x=made.x, y=made.y, context=made.context, form=made.form, family=ALL)
    state.update(queries=made.queries)
    state.update(from_year=made.from_year, to_year=made.to_year, ridge=made.ridge)
    return State(state, model=made.model)


READ = """(root) => {
  const all = (part, read) => [...root.querySelectorAll(part)].map(read);
  const place = (node) => node.getAttribute("transform").match(/-?[\\d.]+/g).map(Number);
  return {
    heading: root.querySelector(".reading").innerText,
    list: all(".found li", (node) => node.innerText),
    links: all(".found a", (node) => node.href),
    about: all(".note", (node) => node.innerText).join(" "),
    marks: all(".field .mark", (node) => {
      return [Number(node.dataset.at), node.dataset.variant, ...place(node).slice(0, 2)];
    }),
    many: all(".field .many", (node) => Number(node.textContent)),
    names: all(".field .name", (node) => node.textContent),
    rings: all(".field .ring", (node) => [Number(node.getAttribute("cx")), Number(node.getAttribute("cy"))]),
    away: root.querySelectorAll(".field .away").length,
    ridge: all(".field path.ridge", (node) => node.getAttribute("d")),
    offered: all("select", (node) => [...node.options].map((option) => option.text)).pop(),
    spoken: root.querySelector(".field").getAttribute("aria-valuetext"),
    now: ["now", "max"].map((end) => Number(root.querySelector(".field").getAttribute(`aria-value${end}`))),
  };
}"""  # noqa: E501


def written(measure: str, value: float) -> str:
    if measure in ("bytes", "read", "longest"):
        return f"{round(value):,} bytes"
    if measure == "intensity":
        return f"{value:g}"
    return f"{value:,}" if measure == "params" else str(round(value))


def assert_shows(widget, state: State) -> dict:
    """Check marks, numbers and words of a state."""
    page = widget.evaluate(READ)
    points = state.points()
    shown = [name for name, model in DECODERS.items() if state.passes(model)]
    count = sum(len(names) for _, names in points)
    assert f"{count} of {len(DECODERS)} models at {len(points)} points" in page["about"]
    expected = sorted(
        (i, kind)
        for i, (_, names) in enumerate(points)
        for kind in {DECODERS[name].variant for name in names}
    )
    assert sorted((at, kind) for at, kind, *_ in page["marks"]) == expected
    assert page["many"] == [len(names) for _, names in points if len(names) > 1]
    worth = [[state.value(state[axis], DECODERS[n]) for axis in "xy"] for n in DECODERS]
    assert page["away"] == sum(None not in pair for pair in worth) - count
    for axis in (0, 1):
        assert_to_scale(page["marks"], points, state["xy"[axis]], axis)
    assert ("Small dots: filtered out" in page["about"]) == (page["away"] > 0)
    assert len(page["ridge"]) == (state["ridge"] and "intensity" in (state["x"], state["y"]))
    assert sorted({*shown, state["model"]}) == sorted(page["offered"])
    assert_reads(page, state, points)
    return page


def assert_to_scale(marks, points, measure: str, axis: int):
    """Catches a point that is drawn where its numbers are not."""
    value = float if measure == "year" else log2
    drawn = [(value(points[mark[0]][0][axis]), mark[2 + axis]) for mark in marks]
    low, high = min(drawn, default=None), max(drawn, default=None)
    if not drawn or high[0] - low[0] < 1e-9:
        return
    slope = (high[1] - low[1]) / (high[0] - low[0])
    assert (slope > 0) == (axis == 0)  # to the right, and upwards
    for number, pixel in drawn:
        assert pixel == pytest.approx(low[1] + slope * (number - low[0]), abs=0.5)


def assert_reads(page: dict, state: State, points):
    """Check the text about the chosen point, and what a screen reader announces."""
    point = state.at(state["model"])
    if point is None:
        assert page["heading"].startswith(state["model"])
        assert page["list"] == page["rings"] == []
        return
    names = sorted(point[1], key=lambda name: name != state["model"])
    many = "One model" if len(names) == 1 else f"{len(names)} models"
    values = (
        f"{MEASURES[state[axis]]} {written(state[axis], value)}"
        for axis, value in zip("xy", point[0], strict=True)
    )
    assert page["heading"] == f"{many} at this point: {', '.join(values)}"
    label = names[0] + f" and {len(names) - 1} more" * (len(names) > 1)
    assert label in page["names"]
    mark = next(mark for mark in page["marks"] if mark[0] == points.index(point))
    assert mark[2:] in [pytest.approx(ring) for ring in page["rings"]]
    assert page["now"] == [points.index(point) + 1, len(points)]
    assert len(page["list"]) == len(names)
    for name, text in zip(names, page["list"], strict=True):
        model = DECODERS[name]
        layers = f"{model.n_layers} layers; " if model.geometry else ""
        assert text.startswith(f"{name} ({model.year}, {model.variant}): {layers}")
        intensity = state.value("intensity", model)
        assert f"takes {written('bytes', state.value('bytes', model))} of cache" in text
        flops = "FLOP" if intensity == 1 else "FLOPs"
        assert f"does {intensity:g} {flops} for each byte" in text
        params = state.value("params", model)
        assert ("parameters" in text) == (params is not None)
        assert params is None or f"{params:,} parameters" in text
        assert (f"{state['context']:,} tokens, and" in text) == bool(model.traits)
        assert ("longest context" in text) == (model.max_context is not None)
        assert model.source in text
        assert set(model.links) >= {link for link in page["links"] if len(names) == 1}
        assert f"{name} ({model.year}, {model.variant})" in page["spoken"]


def begin(show, computed, place, home, **options):
    made = computed(place)
    widget = show(place, home, **options)
    widget.scroll_into_view_if_needed()
    state = first_state(made)
    assert_shows(widget, state)
    return widget, state


def labelled(widget, text: str):
    return widget.get_by_label(text, exact=True)


def made_families() -> list[str]:
    """Families with several models, in the order of the list."""
    counts = Counter(model.family for model in DECODERS.values())
    return sorted((name for name in counts if counts[name] > 1), key=str.casefold)


def slide(slider, at: int, last: int, way: str = "mouse"):
    """Click or tap a slider where its thumb has a value; a thumb is 16 pixels wide."""
    box = slider.bounding_box()
    spot = {"x": 8 + (box["width"] - 16) * at / last, "y": box["height"] / 2}
    (slider.tap if way == "touch" else slider.click)(position=spot)


def check_of(widget, variant: str):
    count = sum(model.variant == variant for model in DECODERS.values())
    return widget.get_by_role("checkbox", name=f"{variant} ({count})", exact=True)


def spot(widget, mark) -> dict:
    """Where a mark is, for a click in the field."""
    shift = widget.evaluate("""(root) => {
      const [svg, field] = ["svg", ""].map((part) => root.querySelector(`.field ${part}`));
      const outer = field.getBoundingClientRect(), inner = svg.getBoundingClientRect();
      return [inner.left - outer.left, inner.top - outer.top];
    }""")
    return {"x": mark[2] + shift[0], "y": mark[3] + shift[1]}


def lonely(page: dict) -> list:
    """Return the marks with no other near, so that a click can only mean them."""

    def away(one, other) -> float:
        return ((one[2] - other[2]) ** 2 + (one[3] - other[3]) ** 2) ** 0.5

    marks = page["marks"]
    return [m for m in marks if all(away(m, other) > 20 for other in marks if other is not m)]


@EVERY_PLACE
def test_mouse_axes_context_and_what_mla_caches(show, computed, place, address):
    widget, state = begin(show, computed, place, address)
    labelled(widget, "model").select_option("Gemma-3 27B")
    state["model"] = "Gemma-3 27B"
    context = labelled(widget, "tokens kept")
    for i in (7, 0, 4):
        slide(context, i, 7)
        state["context"] = CONTEXTS[i]
        assert_shows(widget, state)
    for i in (3, 1):
        slide(labelled(widget, "query tokens in a step"), i, 3)
        state["queries"] = i + 1
        assert_shows(widget, state)
    for form, name in (
        ("naive", "expanded keys and values"),
        ("absorbed", "latents, absorbed"),
    ):
        act(widget.get_by_role("radio", name=name, exact=True), "mouse")
        state["form"] = form
        for x, y in (("year", "bytes"), ("params", "longest"), ("longest", "intensity")):
            labelled(widget, "across").select_option(MEASURES[x])
            labelled(widget, "up").select_option(MEASURES[y])
            state.update(x=x, y=y)
            assert_shows(widget, state)


@EVERY_PLACE
def test_mouse_filters(show, computed, place, address):
    widget, state = begin(show, computed, place, address)
    state["model"] = "Llama-3 8B"
    labelled(widget, "model").select_option("Llama-3 8B")
    for variant in VARIANTS:
        check_of(widget, variant).click()
        state[variant] = False
        assert_shows(widget, state)
    assert "is filtered out, like all others" in widget.locator(".reading").inner_text()
    for variant in ("GQA", "MLA", "MHA"):
        check_of(widget, variant).click()
        state[variant] = True
    last = len(YEARS) - 1
    slide(labelled(widget, "from"), last - 1, last)
    state["from_year"] = YEARS[-2]
    assert_shows(widget, state)
    slide(labelled(widget, "to"), 3, last)  # before the first year, which goes along
    state.update(from_year=YEARS[3], to_year=YEARS[3])
    page = assert_shows(widget, state)
    assert page["heading"] == "Llama-3 8B is not among the models shown."
    slide(labelled(widget, "from"), 5, last)
    state.update(from_year=YEARS[5], to_year=YEARS[5])
    assert_shows(widget, state)
    slide(labelled(widget, "to"), last, last)
    state["to_year"] = YEARS[-1]
    families = {model.family for model in DECODERS.values()}
    for family in ("Llama", "Qwen", "DeepSeek", ALL):
        assert family in {*families, ALL}
        labelled(widget, "family").select_option(family)
        state["family"] = family
        assert_shows(widget, state)


@EVERY_PLACE
def test_an_axis_swaps_with_the_other(show, computed, place, address):
    widget, state = begin(show, computed, place, address)
    labelled(widget, "across").select_option(MEASURES[state["y"]])
    state.update(x=state["y"], y=state["x"])
    assert_shows(widget, state)
    labelled(widget, "up").select_option(MEASURES["year"])
    labelled(widget, "up").select_option(MEASURES[state["x"]])
    state.update(x="year", y=state["x"])
    assert_shows(widget, state)


@EVERY_PLACE
def test_the_ridge_point_is_where_it_belongs(show, computed, place, address):
    widget, state = begin(show, computed, place, address)
    ridge = 989 / 3.35
    for x, y, axis in (("bytes", "intensity", 1), ("intensity", "bytes", 0)):
        labelled(widget, "across").select_option(MEASURES[x])
        labelled(widget, "up").select_option(MEASURES[y])
        state.update(x=x, y=y)
        page = assert_shows(widget, state)
        points = state.points()
        drawn = [(log2(points[m[0]][0][axis]), m[2 + axis]) for m in page["marks"]]
        low, high = min(drawn), max(drawn)
        slope = (high[1] - low[1]) / (high[0] - low[0])
        start = page["ridge"][0][1:].replace("H", " ").replace("V", " ").split()[:2]
        expected = low[1] + slope * (log2(ridge) - low[0])
        assert float(start[axis]) == pytest.approx(expected, abs=0.5)
        assert widget.locator(".field text", has_text="H100: 295").is_visible()
    box = labelled(widget, "H100’s ridge point")
    box.click()
    state["ridge"] = False
    assert_shows(widget, state)
    assert widget.locator(".field text", has_text="H100").count() == 0
    labelled(widget, "across").select_option(MEASURES["year"])
    assert box.is_disabled()  # no axis has it
    link = widget.locator(".note a")
    assert link.get_attribute("href") == "https://arxiv.org/abs/2505.21487"


@EVERY_PLACE
def test_mouse_chooses_points(show, computed, place, address):
    widget, state = begin(show, computed, place, address)
    page = assert_shows(widget, state)
    field = widget.locator(".field")
    points = state.points()
    for mark in lonely(page)[::5]:
        field.click(position=spot(widget, mark))
        state["model"] = points[mark[0]][1][0]
        assert_shows(widget, state)


@EVERY_PLACE
def test_a_second_click_means_the_mark_beneath(show, computed, place, address):
    """DeepSeek-V2 and V3 are one pixel apart: a pointer must reach both."""
    widget, state = begin(show, computed, place, address)
    labelled(widget, "model").select_option("DeepSeek-V2")
    state["model"] = "DeepSeek-V2"
    page = assert_shows(widget, state)
    mark = next(m for m in page["marks"] if m[0] == page["now"][0] - 1)
    for name in ("DeepSeek-V3 / R1", "DeepSeek-V2", "DeepSeek-V3 / R1"):
        widget.locator(".field").click(position=spot(widget, mark))
        state["model"] = name
        assert_shows(widget, state)


@EVERY_PLACE
def test_hovering_names_a_point_and_chooses_nothing(show, computed, place, address):
    widget, state = begin(show, computed, place, address)
    page = assert_shows(widget, state)
    points = state.points()
    mark = next(m for m in lonely(page) if state["model"] not in points[m[0]][1])
    widget.locator(".field").hover(position=spot(widget, mark))
    name, *others = points[mark[0]][1]
    over = assert_shows(widget, state)
    assert name + f" and {len(others)} more" * bool(others) in over["names"]
    assert len(over["rings"]) == 2
    widget.locator("figcaption").hover()
    assert assert_shows(widget, state) == page


@EVERY_PLACE
def test_keys_reach_every_control(show, computed, place, disk):
    widget, state = begin(show, computed, place, disk)
    keyboard = widget.page.keyboard
    measures = list(MEASURES)
    labelled(widget, "across").focus()
    keyboard.press("ArrowDown")
    keyboard.press("ArrowDown")  # to what is up, and so the two swap
    assert (state["x"], state["y"]) == ("bytes", "intensity")
    state.update(x="intensity", y="read")
    assert_shows(widget, state)
    keyboard.press("Tab")
    keyboard.press("End")
    state["y"] = measures[-1]
    assert_shows(widget, state)
    keyboard.press("Tab")
    keyboard.press("ArrowRight")
    state["context"] *= 2
    assert_shows(widget, state)
    keyboard.press("Tab")
    keyboard.press("ArrowRight")
    state["queries"] += 1
    assert_shows(widget, state)
    *_, last = VARIANTS
    for variant in VARIANTS:
        keyboard.press("Tab")
        keyboard.press("Space")
        state[variant] = False
        if variant != last:
            assert_shows(widget, state)
            keyboard.press("Space")
            state[variant] = True
    assert_shows(widget, state)
    keyboard.press("Space")
    state[last] = True
    keyboard.press("Tab")
    keyboard.press("ArrowRight")
    state["from_year"] += 1
    keyboard.press("Tab")
    keyboard.press("ArrowLeft")
    state["to_year"] -= 1
    assert_shows(widget, state)
    keyboard.press("Tab")
    keyboard.press("ArrowDown")
    state["family"] = made_families()[0]
    assert_shows(widget, state)
    keyboard.press("Tab")
    keyboard.press("Space")
    state["ridge"] = False
    assert_shows(widget, state)
    keyboard.press("Tab")
    keyboard.press("ArrowRight")
    state["form"] = "naive"
    assert_shows(widget, state)
    keyboard.press("Tab")
    keyboard.press("End")
    state["model"] = [name for name, m in DECODERS.items() if state.passes(m)][-1]
    assert_shows(widget, state)
    keyboard.press("Tab")  # the plane
    assert widget.locator(".field").evaluate("field => field === document.activeElement")
    keyboard.press("Home")
    state["model"] = state.points()[0][1][0]
    assert_shows(widget, state)


# Presses a key so many times, and says what is spoken after each.
PRESS = """(field, [key, times]) => Array.from({ length: times }, () => {
  field.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  return field.getAttribute("aria-valuetext");
})"""


@EVERY_PLACE
def test_arrows_pass_every_point_in_order(show, computed, place, address):
    widget, state = begin(show, computed, place, address)
    field = widget.locator(".field")
    field.focus()
    across = state.points()
    upwards = sorted(across, key=lambda point: point[0][::-1])
    for order, forth, back in (
        (across, "ArrowRight", "ArrowLeft"),
        (upwards, "ArrowUp", "ArrowDown"),
    ):
        field.press("Home")
        field.evaluate(PRESS, [back, order.index(across[0])])
        spoken = [field.get_attribute("aria-valuetext")]
        spoken += field.evaluate(PRESS, [forth, len(order) - 1])
        for text, (_, names) in zip(spoken, order, strict=True):
            assert text.startswith(f"{names[0]} ("), names
        field.press(forth)  # after the last there is nothing
        state["model"] = order[-1][1][0]
        assert_shows(widget, state)
        field.press(back)
        state["model"] = order[-2][1][0]
        assert_shows(widget, state)
    for key, names in (
        ("End", across[-1][1]),
        ("PageDown", across[-11][1]),
        ("Home", across[0][1]),
        ("PageUp", across[10][1]),
    ):
        field.press(key)
        state["model"] = names[0]
        assert_shows(widget, state)
    status = widget.get_by_role("status").filter(has_text=f"{state['model']} (")
    status.wait_for(state="attached")
    assert f"{len(DECODERS)} models at {len(across)} points" in status.inner_text()


@EVERY_PLACE
def test_arrows_find_back_from_a_model_that_is_filtered_out(show, computed, place, address):
    widget, state = begin(show, computed, place, address)
    labelled(widget, "model").select_option("Llama-2 7B")
    labelled(widget, "family").select_option("Qwen")
    state.update(model="Llama-2 7B", family="Qwen")
    assert_shows(widget, state)
    widget.locator(".field").press("ArrowRight")
    state["model"] = state.points()[0][1][0]
    assert_shows(widget, state)


@EVERY_PLACE
def test_touch_on_a_phone(show, computed, place, address):
    widget, state = begin(
        show, computed, place, address, has_touch=True, viewport={"width": 390, "height": 800}
    )
    check_of(widget, "GQA").tap()
    state["GQA"] = False
    slide(labelled(widget, "tokens kept"), 6, 7, "touch")
    state["context"] = CONTEXTS[6]
    last = len(YEARS) - 1
    slide(labelled(widget, "to"), last - 1, last, "touch")
    state["to_year"] = YEARS[-2]
    labelled(widget, "H100’s ridge point").tap()
    state["ridge"] = False
    act(widget.get_by_role("radio", name="expanded keys and values", exact=True), "touch")
    state["form"] = "naive"
    page = assert_shows(widget, state)
    points = state.points()
    for mark in lonely(page)[:4]:
        widget.locator(".field").tap(position=spot(widget, mark))
        state["model"] = points[mark[0]][1][0]
        assert_shows(widget, state)
    labelled(widget, "up").select_option(MEASURES["year"])
    state["y"] = "year"
    assert_shows(widget, state)
    assert widget.evaluate("widget => widget.scrollWidth <= widget.clientWidth")
