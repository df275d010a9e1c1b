"""The cache explorer on its pages: exact bytes by mouse, keys and touch, and its address."""

from __future__ import annotations

import re
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from pages import places

from attnlib.book.widgets.explorer import OWN
from attnlib.costs import Geometry, kv_cache_bytes

# Another chapter shows it with other first values; test_pages.py opens that one, too.
PLACES = [place for place in places("explorer") if place.chapter == "kv-cache"]
SIZE = {"GB": 10**9, "GiB": 2**30}
FIRST = {"context": 8192, "users": 32, "bits": 16, "memory": 80, "unit": "GB"}
FIELDS = (
    "layers",
    "query heads",
    "KV heads of GQA, SWA",
    "head width",
    "latent width of MLA",
    "rotary width of MLA",
)


def as_variants(L: int, H: int, kv: int, D: int, latent: int, rotary: int) -> dict:
    """Return one geometry per bar, that of a layer of this variant."""
    return {
        "MHA": Geometry(L, H, H, D),
        "GQA": Geometry(L, kv, kv, D),  # what is kept of KV heads, without their sharing
        "MQA": Geometry(L, H, 1, D),
        "MLA": Geometry(L, H, H, D, None, latent, rotary),
    }


def of_model(published: Geometry) -> dict:
    """Return the four bars of a model; sizes it lacks are those that the page assumes."""
    D = published.head_dim
    kv = published.n_kv_heads if published.variant == "GQA" else 8
    latent, rotary = published.kv_lora_rank or 4 * D, published.qk_rope_head_dim or D // 2
    return as_variants(published.n_layers, published.n_heads, kv, D, latent, rotary)


def rounded(n_bytes: int, unit: str) -> str:
    value = Decimal(n_bytes) / SIZE[unit]
    step = Decimal("0.01") if value >= Decimal("0.1") else Decimal("0.0001")
    return f"{value.quantize(step, ROUND_HALF_UP):,}"


READ = """(root) => {
  const text = (node, part) => node.querySelector(part).innerText;
  const all = (node, part, read) => [...node.querySelectorAll(part)].map(read);
  const each = (part, read) =>
    Object.fromEntries(all(root, part, (node) => [node.dataset.variant, read(node)]));
  return {
    cells: each(".exact tbody tr", (node) => all(node, "td", (cell) => cell.innerText)),
    takes: each(".bars li", (node) => text(node, ".takes")),
    own: each(".bars li", (node) => text(node, ".own")),
    answer: text(root, ".answer"),
    room: text(root, ".room"),
    spoken: root.querySelector("svg[role=img]").getAttribute("aria-label"),
    meets: all(root, "svg .meets", (node) => node.textContent),
    marks: all(root, "svg circle", (node) => node.dataset.variant),
  };
}"""


def assert_shows(widget, bars: dict, own: str, name: str, **state):
    """Check every number shown against attnlib: bytes, counts, crossings, the sentence."""
    state = {**FIRST, **state}
    context, users, dtype = state["context"], state["users"], state["bits"]
    memory = state["memory"] * SIZE[state["unit"]]
    page = widget.evaluate(READ)
    crossings = {}
    for variant, geometry in bars.items():
        one = kv_cache_bytes(geometry, context, dtype=dtype)
        cache = kv_cache_bytes(geometry, context, batch_size=users, dtype=dtype)
        eight_tokens = kv_cache_bytes(geometry, 8, dtype=dtype)  # whole bytes at any precision
        assert page["cells"][variant] == [
            f"{kv_cache_bytes(geometry, 1, dtype=dtype):,}",
            f"{cache:,}",
            f"{memory * 8 // eight_tokens:,}",
            f"{memory // one:,}",
        ]
        takes = f"{rounded(cache, 'GiB')} GiB = {rounded(cache, 'GB')} GB"
        assert page["takes"][variant] == takes + ", too large" * (cache > memory)
        mine = "your own" if name == OWN else name
        assert page["own"][variant] == mine * (variant == own)
        if variant == own:
            assert f"keeps {rounded(cache, 'GiB')} GiB for {users:,} user" in page["answer"]
            assert f"with {context:,} token" in page["answer"]
            few = "only " * (cache > memory) + f"{memory // one:,}"
            assert f"{few if memory >= one else 'not one'} such user" in page["answer"]
        crossing = memory * 8 // (eight_tokens * users)
        assert f"{variant} {crossing:,}" in page["spoken"]
        if 1024 <= crossing <= 2**20:
            crossings[variant] = crossing
    in_order = sorted(crossings, key=crossings.get)
    assert page["meets"] == [f"{context:,}", *(f"{crossings[name]:,}" for name in in_order)]
    assert page["marks"] == in_order
    other = "GiB" if state["unit"] == "GB" else "GB"
    have = f"{state['memory']:,} {state['unit']} = {rounded(memory, other)} {other}"
    assert have in page["room"]


def begin(show, variables, place, home, **options):
    published = variables(place)["published"]
    widget = show(place, home, **options)
    widget.scroll_into_view_if_needed()
    assert_shows(widget, of_model(published["Llama-3 8B"]), "GQA", "Llama-3 8B")
    return widget, published


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_mouse_models_contexts_users_and_formats(show, variables, place, address):
    widget, published = begin(show, variables, place, address)
    context = widget.get_by_label("context (tokens)", exact=True)
    users = widget.get_by_label("users at a time", exact=True)
    for i, (name, geometry) in enumerate(published.items()):
        widget.get_by_label("model").select_option(name)
        state = {
            "context": (4096, 131_072, 10_000_000, 1)[i % 4],
            "users": (1, 7, 65_536)[i % 3],
        }
        context.fill(str(state["context"]))
        users.fill(str(state["users"]))
        state["bits"] = (16, 4, 8, 32)[i % 4]
        text = {32: "float32, 4 bytes", 16: "bfloat16, 2 bytes", 8: "8-bit, 1 byte"}
        choose = widget.get_by_label("one number takes")
        choose.select_option(text.get(state["bits"], "4-bit, ½ byte"))
        if state["context"] <= 2**20:  # a longer context stretches the axis
            assert_shows(widget, of_model(geometry), geometry.variant, name, **state)


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_mouse_slider_memory_and_units(show, variables, place, disk):
    widget, published = begin(show, variables, place, disk)
    bars = of_model(published["Llama-3 8B"])
    slider = widget.get_by_label("context (tokens), powers of two")
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] - 2, "y": box["height"] / 2})
    assert_shows(widget, bars, "GQA", "Llama-3 8B", context=2**20)
    slider = widget.get_by_label("users at a time, powers of two")
    slider.click(position={"x": 2, "y": box["height"] / 2})
    state = {"context": 2**20, "users": 1}
    assert_shows(widget, bars, "GQA", "Llama-3 8B", **state)
    widget.get_by_label("GiB", exact=True).click()
    assert_shows(widget, bars, "GQA", "Llama-3 8B", **state, unit="GiB")
    widget.get_by_label("memory for the cache").fill("141")
    assert_shows(widget, bars, "GQA", "Llama-3 8B", **state, unit="GiB", memory=141)


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_keys_reach_every_control(show, variables, place, disk):
    widget, published = begin(show, variables, place, disk)
    names = list(published)
    model = widget.get_by_label("model")
    model.focus()
    model.press("ArrowDown")
    name = names[names.index("Llama-3 8B") + 1]
    bars, own = of_model(published[name]), published[name].variant
    assert_shows(widget, bars, own, name)

    slider = widget.get_by_label("context (tokens), powers of two")
    slider.focus()
    slider.press("ArrowRight")
    slider.press("Tab")  # to the field next to it
    assert_shows(widget, bars, own, name, context=16_384)
    page = widget.page
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("12345")
    state = {"context": 12_345}
    assert_shows(widget, bars, own, name, **state)
    assert slider.input_value() == "14"  # the nearest power of two
    page.keyboard.press("Tab")  # the users' slider
    page.keyboard.press("ArrowLeft")
    state["users"] = 16
    assert_shows(widget, bars, own, name, **state)
    page.keyboard.press("Tab")  # the users' field
    page.keyboard.press("Tab")  # the number format
    page.keyboard.press("ArrowDown")
    state["bits"] = 8
    assert_shows(widget, bars, own, name, **state)
    page.keyboard.press("Tab")  # the memory
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("24")
    page.keyboard.press("Tab")  # the unit
    page.keyboard.press("ArrowRight")
    state |= {"memory": 24, "unit": "GiB"}
    assert_shows(widget, bars, own, name, **state)
    page.keyboard.press("Tab")  # the sizes
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # the layers
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("3")
    own_bars = {v: replace(g, n_layers=3) for v, g in bars.items()}
    assert_shows(widget, own_bars, own, OWN, **state)


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_own_geometry_by_typing(show, variables, place, address):
    widget, published = begin(show, variables, place, address)
    widget.get_by_label("model").select_option(OWN)  # keeps the sizes, and opens them
    assert_shows(widget, of_model(published["Llama-3 8B"]), "GQA", OWN)
    sizes = (61, 30, 5, 96, 100, 33)
    for label, size in zip(FIELDS, sizes, strict=True):
        widget.get_by_label(label, exact=True).fill(str(size))
    assert_shows(widget, as_variants(*sizes), "GQA", OWN)
    alert = widget.locator(".geometry > [role=alert]")
    assert alert.inner_text() == ""
    for kv, own in ((30, "MHA"), (1, "MQA")):
        widget.get_by_label("KV heads of GQA").fill(str(kv))
        assert_shows(widget, as_variants(61, 30, kv, *sizes[3:]), own, OWN)
    widget.get_by_label("KV heads of GQA").fill("4")
    assert alert.inner_text().startswith("30 query heads cannot share 4 KV heads evenly")
    widget.get_by_label("query heads", exact=True).fill("0")  # is refused, and changes nothing
    assert widget.get_by_text("a whole number from 1 to 1,024").is_visible()
    assert_shows(widget, as_variants(61, 30, 4, *sizes[3:]), "GQA", OWN)
    widget.get_by_label("model").select_option("DeepSeek-V3 / R1")
    assert_shows(widget, of_model(published["DeepSeek-V3 / R1"]), "MLA", "DeepSeek-V3 / R1")
    assert widget.locator("[aria-invalid=true]").count() == 0  # what was refused is forgotten
    assert widget.get_by_label("query heads", exact=True).input_value() == "128"


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_touch(show, variables, place, address):
    widget, published = begin(show, variables, place, address, has_touch=True)
    bars = of_model(published["Llama-3 8B"])
    slider = widget.get_by_label("users at a time, powers of two")
    box = slider.bounding_box()
    slider.tap(position={"x": box["width"] - 2, "y": box["height"] / 2})
    assert_shows(widget, bars, "GQA", "Llama-3 8B", users=1024)
    widget.get_by_label("GiB", exact=True).tap()
    assert_shows(widget, bars, "GQA", "Llama-3 8B", users=1024, unit="GiB")
    widget.locator(".geometry summary").tap()
    widget.get_by_label("layers", exact=True).tap()
    widget.get_by_label("layers", exact=True).fill("2")
    own_bars = {v: replace(g, n_layers=2) for v, g in bars.items()}
    assert_shows(widget, own_bars, "GQA", OWN, users=1024, unit="GiB")


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_the_address_keeps_what_was_chosen(show, variables, place, home):
    widget, published = begin(show, variables, place, home, is_loaded_anew=True)
    page = widget.page
    assert urlsplit(page.url).query == ""  # a page that was only opened keeps its address
    widget.get_by_label("model").select_option("DeepSeek-V3 / R1")
    widget.get_by_label("users at a time", exact=True).fill("5")
    page.wait_for_url(re.compile("users=5"))
    parts = urlsplit(page.url)
    assert dict(parse_qsl(parts.query)) == {
        "model": "DeepSeek-V3 / R1",
        **{name: str(value) for name, value in {**FIRST, "users": 5}.items()},
    }
    assert parts.fragment == "cache-explorer"
    page.reload()
    bars = of_model(published["DeepSeek-V3 / R1"])
    assert_shows(widget, bars, "MLA", "DeepSeek-V3 / R1", users=5)

    widget.locator(".geometry summary").click()
    widget.get_by_label("layers", exact=True).fill("7")
    page.wait_for_url(re.compile("layers=7"))
    page.reload()
    own_bars = {v: replace(g, n_layers=7) for v, g in bars.items()}
    assert_shows(widget, own_bars, "GQA", OWN, users=5)  # 128 query heads, 8 for GQA
    assert widget.get_by_label("layers", exact=True).is_visible()


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_a_bad_address_is_ignored(show, variables, place, disk):
    widget, published = begin(show, variables, place, disk)
    page = widget.page
    bad = {
        "model": "<img src=x onerror=alert(1)>",
        "context": "1e9",
        "users": "-3",
        "bits": "6",
        "memory": "99999999",
        "unit": "bananas",
        "layers": "5",
        "highlight": "cache",
    }
    plain = page.url.partition("#")[0]
    page.goto(f"{plain}?{urlencode(bad)}")
    assert_shows(widget, of_model(published["Llama-3 8B"]), "GQA", "Llama-3 8B")
    some = {"model": OWN, "layers": "5", "width": "0", "heads": "x", "users": "65537"}
    page.goto(f"{plain}?{urlencode(some)}")  # what is good counts, what is not does not
    bars = of_model(published["Llama-3 8B"])
    own_bars = {v: replace(g, n_layers=5) for v, g in bars.items()}
    assert_shows(widget, own_bars, "GQA", OWN)


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
@pytest.mark.parametrize("allowed", [True, False])
def test_copy_link(show, variables, place, address, allowed):
    permissions = ["clipboard-read", "clipboard-write"] if allowed else []
    widget, published = begin(show, variables, place, address, permissions=permissions)
    page = widget.page
    if not allowed:
        page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(1); }")
    widget.get_by_label("context (tokens)", exact=True).fill("2000")
    button = widget.get_by_role("button", name="Copy link to this state")
    button.focus()
    button.press("Enter")
    field = widget.get_by_label("link to this state", exact=True)
    if allowed:
        widget.get_by_role("button", name="Copied").wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert not field.is_visible()
    else:
        field.wait_for()
        assert page.evaluate("getSelection().toString()") == field.input_value()
        copied = field.input_value()
    page.goto("about:blank")
    page.goto(copied)
    assert_shows(widget, of_model(published["Llama-3 8B"]), "GQA", "Llama-3 8B", context=2000)


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_the_numbers_in_the_chapters_prose(variables, place):
    """Catches an edit of the sizes that makes the text after the figure wrong."""
    bars = of_model(variables(place)["published"]["Llama-3 8B"])
    for memory, gqa, mha in ((80 * 10**9, 74, 18), (64 * 10**9, 59, 14), (80 * 2**30, 80, 20)):
        assert memory // kv_cache_bytes(bars["GQA"], 8192) == gqa
        assert memory // kv_cache_bytes(bars["MHA"], 8192) == mha
    bars = of_model(variables(place)["published"]["DeepSeek-V3 / R1"])
    caches = {variant: kv_cache_bytes(g, 131_072) for variant, g in bars.items()}
    assert rounded(caches["MLA"], "GiB") == "8.58"
    assert rounded(caches["MHA"], "GiB") == "488.00"
    assert round(caches["MHA"] / caches["MLA"], 1) == 56.9
    assert min(caches, key=caches.get) == "MQA"
