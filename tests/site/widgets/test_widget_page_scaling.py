"""The scaling explorer on the built page: width, scale and query by mouse, keys and touch."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
from pages import act, places
from playwright.sync_api import expect

from attnlib import attention

PLACES = places("scaling")
WIDTHS = [4, 8, 16, 32, 64, 128, 256, 512, 1024]
SCALES = {"none": lambda D: 1.0, "1/√D": lambda D: D**-0.5, "1/D": lambda D: 1 / D}
DIGITS = [None, None, 3, 2, 1, 3]  # of the table's rows; None: two below ten, else one


@cache
def truth(D: int, scale: str) -> dict:
    """Measure the chapter's vectors with attnlib and whole Jacobians, not with the widget."""
    torch.manual_seed(D)
    q, k = torch.randn(100, 10, D), torch.randn(100, 128, D)
    factor = SCALES[scale](D)
    z = (q @ k.mT * factor).flatten(0, 1)  # (1000, S)
    _, p = attention(q[:, None], k[:, None], k[:, None], scale=factor)  # (100, 1, 10, S)
    p = p.flatten(0, -2)
    first, second = z.topk(2).values.T
    entropy = torch.distributions.Categorical(probs=p).entropy()
    jacobian = (p.diag_embed() - p[:, :, None] * p[:, None, :]).norm(dim=(-2, -1))
    rows = torch.stack([first, first - second, p.amax(-1), entropy, entropy.exp(), jacobian])
    return {"z": z, "p": p, "rows": rows, "sigma": z.std().item(), "jacobian": jacobian}


def number(text: str) -> float:
    return float(text.replace("−", "-"))


def assert_close(text: str, value: float, digits: int | None, sigma: float = 0.0):
    """The text is the value rounded; a packed score is exact to some 1/10,000 of sigma."""
    if digits is None:
        digits = 2 if abs(number(text)) < 10 else 1
    assert re.fullmatch(rf"−?\d+\.\d{{{digits}}}", text)
    assert abs(number(text) - value) < 0.51 * 10**-digits + 1e-4 + 2e-4 * sigma, (text, value)


def assert_shows(widget, D: int, scale: str, query: int):
    """Check the table, the notes in the drawings and the drawings themselves."""
    true = truth(D, scale)
    rows, sigma, p = true["rows"], true["sigma"], true["p"][query]
    assert widget.locator(".scaling-width output").inner_text() == str(D)
    for i, line in enumerate(widget.locator("table.numbers tbody tr").all()):
        expected = [rows[i, query], rows[i].mean(), rows[i].median()]
        for cell, value in zip(line.locator("td").all_inner_texts(), expected, strict=True):
            assert_close(cell, value.item(), DIGITS[i], sigma)

    scores, weights, norms = widget.locator(".scaling-panels svg").all()
    notes = " | ".join(text for panel in (scores, weights, norms) for text in texts(panel))
    heading = widget.locator("table.numbers th").first.inner_text()
    assert heading == f"query {query}"
    assert_close(found(r"sigma ([\d.]+)", notes), sigma, 2)
    assert_close(found(r"([\d.]+) keys in use", notes), rows[4, query].item(), 1)
    assert_close(found(r"mean ([\d.]+)", notes), rows[5].mean().item(), 3)
    assert_close(found(r"median ([\d.]+)", notes), rows[5].median().item(), 3)
    for panel, row in ((scores, 0), (norms, 5)):  # each names what is the query's own
        own = found(rf"query {query}: ([−\d.]+)", " | ".join(texts(panel)))
        assert_close(own, rows[row, query].item(), DIGITS[row], sigma)
    largest = p.sort(descending=True).values
    others = found(r"the other 96 together ([\d.]+)", notes)
    assert_close(others, largest[32:].sum().item(), 3)

    # The bars: heights as shares of the axis, which the lines at 0 and 1 measure.
    zero, one = (rule_heights(weights)[i] for i in (0, -1))
    bars = [*tops(weights, ".scaling-own"), *tops(weights, ".scaling-row")]
    heights = [(zero - top) / (zero - one) for top in bars]
    assert heights == pytest.approx(largest[:32].tolist(), abs=1e-3)
    # The bar of one sigma to each side, in units of the axis from -120 to 120.
    left, right = re.search(r"M(\S+) \S+H(\S+)", d(scores, ".scaling-sigma")).groups()
    begin, end = re.match(r"M(\S+) \S+V\S+H(\S+)", d(scores, ".frame")).groups()
    span = (float(right) - float(left)) / (float(end) - float(begin)) * 240
    assert span == pytest.approx(2 * sigma, abs=0.01)
    # The share of the queries whose Jacobian is below 0.02: the first step of the outline.
    top = float(re.match(r"M\S+ \S+?V([\d.]+)H", d(norms, ".scaling-all"))[1])
    zero, one = (rule_heights(norms)[i] for i in (0, -1))
    deaf = (true["jacobian"] < 0.02).float().mean().item()
    assert (zero - top) / (zero - one) == pytest.approx(deaf, abs=0.0021)


def texts(svg) -> list[str]:
    return svg.locator("text").all_text_contents()


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, f"{pattern} is not in {text}"
    return match[1]


def d(svg, selector: str) -> str:
    return svg.locator(selector).first.get_attribute("d")


def tops(svg, selector: str) -> list[float]:
    return [float(top) for top in re.findall(r"M\S+ \S+?V([\d.]+)H", d(svg, selector))]


def rule_heights(svg) -> list[float]:
    paths = [rule.get_attribute("d") for rule in svg.locator(".rule").all()]
    return [float(re.match(r"M\S+ (\S+)H", path)[1]) for path in paths]


def move_width(widget, D: int, way: str):
    """Point at the place of a width on the slider."""
    slider = widget.get_by_role("slider", name="width D")
    slider.scroll_into_view_if_needed()
    box, thumb = slider.bounding_box(), 16
    share = WIDTHS.index(D) / (len(WIDTHS) - 1)
    spot = {"x": thumb / 2 + share * (box["width"] - thumb), "y": box["height"] / 2}
    (slider.tap if way == "touch" else slider.click)(position=spot)


def choose(widget, name: str, text: str, way: str):
    """Choose a radio button of a group."""
    act(widget.get_by_role("group", name=name).get_by_label(text, exact=True), way, "Space")


def drive(widget, way: str):
    for D, scale, query in ((1024, "none", 0), (512, "1/√D", 3), (4, "1/D", 5)):
        move_width(widget, D, way)
        choose(widget, "scale", scale, way)
        choose(widget, "query", str(query), way)
        assert_shows(widget, D, scale, query)


def test_the_book_has_a_scaling_explorer():
    assert [place.chapter for place in PLACES] == ["scaling"]


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_mouse(show, place, address):
    widget = show(place, address)
    assert_shows(widget, 64, "none", 0)
    drive(widget, "mouse")


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_touch_on_a_narrow_screen(show, place, address):
    widget = show(place, address, has_touch=True, viewport={"width": 390, "height": 800})
    drive(widget, "touch")


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_keys(show, place, disk):
    widget = show(place, disk)
    slider = widget.get_by_role("slider", name="width D")
    slider.focus()
    for press, D in (("ArrowRight", 128), ("End", 1024), ("ArrowLeft", 512), ("Home", 4)):
        slider.press(press)
        assert slider.get_attribute("aria-valuetext") == str(D)
        assert_shows(widget, D, "none", 0)
    slider.press("ArrowUp")
    status = widget.locator(".spoken")
    expect(status).to_contain_text("D = 8, scale none: sigma 2.83.")
    slider.press("Tab")  # the radio group: arrows choose
    for press, scale in (("ArrowRight", "1/√D"), ("ArrowRight", "1/D"), ("ArrowLeft", "1/√D")):
        widget.page.keyboard.press(press)
        assert_shows(widget, 8, scale, 0)
    widget.page.keyboard.press("Tab")
    for query in (1, 2):
        widget.page.keyboard.press("ArrowRight")
        assert_shows(widget, 8, "1/√D", query)
    expect(status).to_contain_text("D = 8, scale 1/√D: sigma 1.00. Query 2: largest weight ")


@pytest.mark.parametrize("place", PLACES, ids=str, scope="module")
def test_nothing_is_wider_than_a_narrow_page(show, place, address):
    widget = show(place, address, viewport={"width": 390, "height": 800})
    box = widget.bounding_box()
    for part in widget.locator(".controls > *, svg, table.numbers, svg text").all():
        inner = part.bounding_box()
        assert inner["x"] >= box["x"] - 1
        assert inner["x"] + inner["width"] <= box["x"] + box["width"] + 1
