"""The MLA stepper on the built pages: each control by mouse, by keys and by touch."""

from __future__ import annotations

import pytest
import torch
from pages import act, places

from attnlib import apply_rope, rope_angles
from attnlib.costs import Geometry, kv_cache_bytes

PLACES = places("stepper")
NAMES = [
    "1 keys and values cached",
    "2 latent, expanded",
    "3 latent, absorbed",
    "4 RoPE in the way",
]


def expected(sizes: dict, S: int) -> list[tuple[int, list[int]]]:
    """Bytes read, and the FLOPs of each product: written out again, form by form."""
    H, n, rho, v, r, itemsize = sizes.values()
    dtype = 8 * itemsize
    wide = kv_cache_bytes(Geometry(1, H, H, n + rho, v), S, dtype=dtype)
    latent = Geometry(1, H, H, n, v, kv_lora_rank=r, qk_rope_head_dim=rho)
    narrow = kv_cache_bytes(latent, S, dtype=dtype)
    score, mix = 2 * H * S * (n + rho), 2 * H * S * v
    return [
        (wide, [2 * H * r * (n + v), score, mix]),
        (narrow, [2 * H * S * r * n, 2 * H * S * r * v, score, mix]),
        (narrow, [2 * H * r * n, 2 * H * S * (r + rho), 2 * H * S * r, 2 * H * r * v]),
    ]


def assert_counts(widget, sizes: dict, step: int, S: int):
    """Check the table, the products and the drawn sizes of this step and cache."""
    forms = expected(sizes, S)
    rows = widget.locator(".costs tbody tr")
    assert rows.count() == len(forms)
    for i, (read, flops) in enumerate(forms):
        cells = rows.nth(i).locator("td").all_inner_texts()
        per_byte = f"{sum(flops) / read:,.1f}"
        assert cells == [f"{read:,}", f"{sum(flops):,}", per_byte]
        assert rows.nth(i).get_attribute("aria-current") == ("step" if i == step else None)
    shown = widget.locator(".stage:not([hidden]) .flops").all_inner_texts()
    assert shown == [f"{flops:,} FLOPs" for flops in forms[step][1]]
    assert widget.locator(".stage:not([hidden]) .size", has_text=f"{S:,} × ").count() > 0
    assert widget.get_by_label("cached tokens, S").get_attribute("aria-valuetext") == f"{S:,}"


def change(widget, distance: int) -> float:
    """How much an entry of W_Q^T R W_UK differs from that of distance 0, from the data."""
    rotation = widget.data["rotation"]
    d_model, D, d_c = rotation["shape"]
    parts = [signed(rotation[part]) for part in ("w_q", "w_uk")]
    w_q, w_uk = parts[0].view(d_model, D), parts[1].view(D, d_c)
    cos, sin = rope_angles(torch.tensor([distance]), D)
    turned = apply_rope(w_q[:, None], cos, sin)[:, 0]  # the query turns forward, row by row
    return ((turned - w_q) @ w_uk).abs().max().item()


def signed(packed: dict) -> torch.Tensor:
    from attnlib.book.widgets.base import unpack

    shares = torch.tensor(unpack(packed["packed"]), dtype=torch.float64)
    return (2 * shares - 1) * packed["limit"]


def assert_turned(widget, made, distance: int):
    """Check the numbers next to the products: of this relative position, and of none."""
    shown = widget.locator(".tiled .flops").all_inner_texts()
    texts = [text.removeprefix("largest change: ") for text in shown]
    assert abs(float(texts[0]) - change(made, distance)) < 0.011
    assert texts[1] == "0.00"
    spoken = widget.get_by_label("relative position").get_attribute("aria-valuetext")
    assert spoken == f"{distance} token{'s' * (distance != 1)}"


def tiles(widget, row: int) -> list[str]:
    """The strength of each tile of the product of a row."""
    return widget.evaluate(
        "(el, row) => [...[...el.querySelectorAll('.tiled')][row].querySelectorAll('svg')]"
        ".at(-1).querySelectorAll('rect').values().map((r) => r.getAttribute('fill') +"
        " r.getAttribute('fill-opacity')).toArray()",
        row,
    )


def set_slider(slider, way: str, at: int, count: int):
    """Move a range input to one of its values."""
    if way == "keys":
        slider.focus()
        slider.press("Home")
        for _ in range(at):
            slider.press("ArrowRight")
        return
    box = slider.bounding_box()
    spot = {"x": 8 + (box["width"] - 16) * at / (count - 1), "y": box["height"] / 2}
    (slider.tap if way == "touch" else slider.click)(position=spot)


def drive(widget, made, way: str):
    sizes, tokens = made.data["sizes"], made.data["tokens"]
    assert_counts(widget, sizes, made.step, made.cached)
    S = tokens.index(made.cached)
    for at in (len(tokens) - 1, 0, S):
        set_slider(widget.get_by_label("cached tokens, S"), way, at, len(tokens))
        assert_counts(widget, sizes, made.step, tokens[at])
    for step in (2, 1, 0):
        act(widget.get_by_label(NAMES[step], exact=True), way, "Space")
        assert_counts(widget, sizes, step, made.cached)
    back, forward = (widget.get_by_role("button", name=name) for name in ("Previous", "Next"))
    assert back.get_attribute("aria-disabled") == "true"
    back.press("Enter")  # at the first step nothing happens
    for step in (0, 1, 2):
        assert_counts(widget, sizes, step, made.cached)
        act(forward, way)
    assert widget.get_by_label(NAMES[3], exact=True).is_checked()
    assert forward.get_attribute("aria-disabled") == "true"
    assert not widget.locator(".costs").is_visible()
    assert_turned(widget, made, made.distance)
    before = tiles(widget, 0), tiles(widget, 1)
    for distance in (32, 0, 7):
        set_slider(widget.get_by_label("relative position"), way, distance, 33)
        assert_turned(widget, made, distance)
        assert (tiles(widget, 0) == tiles(widget, 1)) == (distance == 0)
    assert tiles(widget, 0) != before[0] and tiles(widget, 1) == before[1]
    act(back, way)
    assert_counts(widget, sizes, 2, made.cached)


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_mouse(show, computed, place, address):
    drive(show(place, address), computed(place), "mouse")


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_keys(show, computed, place, disk):
    drive(show(place, disk), computed(place), "keys")


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_touch_on_a_narrow_page(show, computed, place, address):
    options = {"has_touch": True, "viewport": {"width": 390, "height": 844}}
    widget = show(place, address, **options)
    drive(widget, computed(place), "touch")


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_drawn_to_scale(show, computed, place, address, width):
    """Sides that are not the tokens' are as long as their numbers, on one scale."""
    made = computed(place)
    widget = show(place, address, viewport={"width": width, "height": 900})
    length = made.data["sizes"]["kv_lora_rank"] / 2
    for form in made.data["forms"]:
        drawn = [m for product in form["products"] for m in product["matrices"]]
        boxes = [
            box.bounding_box() for box in widget.locator(".stage:not([hidden]) .sides").all()
        ]
        assert len(boxes) == len(drawn)
        units = set()
        for matrix, box in zip(drawn, boxes, strict=True):
            for side, pixels in (("rows", box["height"]), ("columns", box["width"])):
                size = length if matrix[side] == "S" else matrix[side]
                if size > 1:
                    units.add(round(pixels / size, 2))
        assert max(units) - min(units) < 0.011, (form["name"], units)
        for parts in split_along_the_side_of(widget, "k^R"):
            assert parts[0]["x"] == parts[1]["x"] and parts[0]["y"] < parts[1]["y"]
            assert parts[0]["height"] > parts[1]["height"]  # the rotary key is the narrow one
        widget.get_by_role("button", name="Next").click()


def split_along_the_side_of(widget, name: str) -> list[list[dict]]:
    """The boxes of the parts of each upright matrix of a name, its ``^`` left out."""
    matrices = widget.locator(".stage:not([hidden]) .matrix", has_text=name.replace("^", ""))
    parts = [matrix.locator(".upright i").all() for matrix in matrices.all()]
    return [[part.bounding_box() for part in both] for both in parts if len(both) == 2]


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_a_change_is_announced_with_its_numbers(show, computed, place, address):
    made, widget = computed(place), show(place, address)
    status = widget.locator(".spoken")
    assert status.inner_text() == ""
    widget.get_by_role("button", name="Next").click()
    read, flops = expected(made.data["sizes"], made.cached)[1]
    status.get_by_text(f"{read:,} bytes of cache, {sum(flops):,} FLOPs").wait_for(
        state="attached"
    )
