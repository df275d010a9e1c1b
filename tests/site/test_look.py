"""Proof that the checks of `look`, which test_pages.py applies to every widget, can fail."""

from __future__ import annotations

import pytest
from look import (
    faults_in_high_contrast,
    faults_on_paper,
    faults_on_the_way,
    faults_when_magnified,
    walk,
)
from pages import ALIVE
from visits import SETTLED, Reader

SAMPLE = """<!doctype html><html lang="en"><head><title>Sample</title><style>
@keyframes turn {{ to {{ opacity: 0.5; }} }}
{style}
</style></head><body><div class="attnlib-widget">
<label><input type="radio" name="a" checked><span>a</span></label>
<button>b</button><input type="range"><details><summary>c</summary></details>
</div><a href="#">after the widget</a></body></html>"""

FAULTS = {
    "focus does not show: <button": "button:focus { outline: none; }",
    "focus does not show: <input type=radio": "input { opacity: 0; }",
    "focus does not show: <summary": "summary { outline: 3px solid red !important; }",
    "moves at <input type=range": "input:focus { animation: turn 9s; }",
}


@pytest.fixture(scope="module")
def page(chromium, disk):
    """An empty page."""
    reader = Reader(chromium, disk)
    yield reader.page
    reader.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(page, fault):
    page.set_content(SAMPLE.format(style=FAULTS[fault]))
    stops, found = walk(page, 0)
    assert stops == 4
    assert any(problem.startswith(fault) for problem in found), found


def test_a_sound_widget_passes(page):
    style = "input:focus-visible + span { outline: 3px solid red; } input { opacity: 0; }"
    page.set_content(SAMPLE.format(style=style.replace("input {", "[type=radio] {")))
    assert walk(page, 0) == (4, [])


def test_motion_stops_for_a_reader_who_wants_none(page):
    motion = (
        "@media (prefers-reduced-motion: no-preference) { input:focus { animation: turn 9s; } }"
    )
    page.set_content(SAMPLE.format(style=motion))
    assert faults_on_the_way(page) == []
    _, found = walk(page, 0)
    assert len(found) == 2, found


def test_a_widget_that_nothing_reaches_is_noticed(page):
    page.set_content('<div class="attnlib-widget"></div>')
    assert faults_on_the_way(page) == ["widget 0 has 0 stops of the Tab key"]


def test_a_page_printed_dark_is_noticed(online):
    page = online.page
    page.route("**/book.js*", lambda route: route.abort())
    online.open(ALIVE[0])
    page.evaluate(SETTLED)
    found = faults_on_paper(page, is_whole=False)
    page.unroute("**/book.js*")
    assert any("in other colours than light" in fault for fault in found), found


SPOILED = """<!doctype html><html lang="en"><head><title>Sample</title><style>
@media (forced-colors: active) {{ .kept {{ forced-color-adjust: none; }} }}
</style></head><body style="margin: 0"><article><div class="attnlib-widget"><figure style="margin: 0">
{inner}</figure></div></article></body></html>"""  # noqa: E501

BAR = '<div class="{kind}" style="background: {background}; height: 9px"></div>'


@pytest.mark.parametrize("background", ["#0072b2", "linear-gradient(red, red)"])
def test_a_bar_that_high_contrast_takes_away_is_noticed(page, background):
    bars = [BAR.format(kind=kind, background=background) for kind in ("kept", "lost")]
    page.set_content(SPOILED.format(inner="".join(bars)))
    assert faults_in_high_contrast(page) == ['lost in high contrast: <div class="lost">']


def test_what_is_too_wide_when_magnified_is_noticed(page):
    for width, count in ((300, 0), (360, 1)):
        page.set_content(SPOILED.format(inner=f'<p style="width: {width}px">wide</p>'))
        found = faults_when_magnified(page)
        assert len([f for f in found if f.startswith("out of its widget")]) == count, found
        assert bool(found) == bool(count)
