"""Every page of the built book under axe: light and dark, wide and on a phone, folds opened.

`make site` builds the book; nothing is built here. `violations` is the one checker, and the
last tests prove that it catches a page broken on purpose and leaves a sound one in peace.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page
from test_site import PAGES, PHONE, SETTLED, WIDE


class Allowance(NamedTuple):
    """A fault that is let pass: the rule, the elements it may name, and why."""

    rule: str
    selector: str
    reason: str


ALLOWED = (
    Allowance(
        "empty-table-header",
        "th:has(mjx-container math)",
        "axe reads no MathML, so that a column named by a formula has no name for it; a screen"
        " reader does, and it is there",
    ),
)


class State(NamedTuple):
    """A way to look at a page."""

    name: str
    window: dict[str, int]
    scheme: str
    opened: bool


# In this order, since an opened fold stays open. What is shown with all folds open holds what
# is shown with all of them closed.
STATES = (
    State("wide and light, as it opens", WIDE, "light", opened=False),
    State("wide and dark, folds open", WIDE, "dark", opened=True),
    State("phone and dark, folds open", PHONE, "dark", opened=True),
    State("phone and light, folds open", PHONE, "light", opened=True),
)

# All of axe's default rules, best practices among them, and one that it leaves off.
OPTIONS = {
    "resultTypes": ["violations"],
    "rules": {"target-size": {"enabled": True}},  # WCAG 2.2, 2.5.8
}

# A listing has thousands of spans in a handful of colours. One of each kind stays to be judged,
# the others become text: axe takes its time for every element.
SPANS_ONCE = """() => {
  const seen = new Set();
  for (const span of document.querySelectorAll(".highlight pre span[class]")) {
    const kind = `${span.className} ${span.closest("details, .cell_output")?.className}`;
    if (seen.has(kind)) span.replaceWith(...span.childNodes);
    seen.add(kind);
  }
  document.body.normalize();
}"""

OPEN_FOLDS = (
    """() => document.querySelectorAll("details").forEach((fold) => (fold.open = true))"""
)

# The theme follows the colours that the reader prefers in a frame or two, and fades.
THEME_IS = """(scheme) => (document.documentElement.dataset.theme ?? scheme) === scheme
  && document.getAnimations().every((animation) => animation.playState !== "running")"""
RESIZED_MS = 400  # the theme waits 300 ms before it lets scrolling boxes take the focus


def violations(chromium: Browser, address: str) -> list[str]:
    """Open a page, look at it in each state, and return what axe finds.

    Args:
        chromium: the browser.
        address: the page.

    Returns:
        For each state, rule and element a line that says what is wrong.
    """
    found: list[str] = []
    context = chromium.new_context(viewport=WIDE, color_scheme="light")
    try:
        page = context.new_page()
        page.goto(address, wait_until="load")
        page.evaluate(SETTLED)
        page.evaluate(SPANS_ONCE)
        for state in STATES:
            bring_to(page, state)
            result = Axe().run(page, options=OPTIONS).response
            for violation in result["violations"]:
                for node in violation["nodes"]:
                    if not allowed(page, violation["id"], node["target"]):
                        found.append(f"{state.name}: {described(violation, node)}")
    finally:
        context.close()
    return found


def bring_to(page: Page, state: State) -> None:
    """Set window, colours and folds, and wait until the page has followed."""
    if page.viewport_size != state.window:
        page.set_viewport_size(state.window)
        page.wait_for_timeout(RESIZED_MS)
    page.emulate_media(color_scheme=state.scheme)
    if state.opened:
        page.evaluate(OPEN_FOLDS)
    page.wait_for_function(THEME_IS, arg=state.scheme, timeout=10_000)


def allowed(page: Page, rule: str, target: list) -> bool:
    """Whether a fault is one of those that are let pass."""
    selectors = [allowance.selector for allowance in ALLOWED if allowance.rule == rule]
    if not selectors or not isinstance(target[0], str):
        return False
    matches = "([target, selector]) => document.querySelector(target).matches(selector)"
    return any(page.evaluate(matches, [target[0], selector]) for selector in selectors)


def described(violation: dict, node: dict) -> str:
    """Return rule, element and remedy in a line."""
    remedy = " ".join(node["failureSummary"].split())
    return f"{violation['id']} at {node['target'][0]}: {node['html'][:120]}: {remedy}"


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing(chromium, address, name):
    assert violations(chromium, address + name) == []


# Proof that the checks above can fail.

HEAD = """<!doctype html><html lang="en"><head><title>Sample</title><style>
body { background: #fff; color: #222; }
@media (prefers-color-scheme: dark) {
  body { background: #111; color: #eee; }
  .dim { color: #333; }
}
button { height: 24px; }
.crowd { display: none; }
@media (max-width: 400px) { .crowd { display: block; } }
.crowd button { height: 12px; padding: 0; width: 12px; }
</style></head><body><main><h1>Sample</h1>"""

BROKEN = f"""{HEAD}
<p class="dim">Grey on black, in the dark only.</p>
<details><summary>more</summary><button id="folded"></button></details>
<div class="crowd"><button>a</button><button>b</button></div>
<div class="highlight"><pre><span class="k" style="color: #ddd">def</span> f</pre></div>
<table><tr><th></th><th>named</th></tr><tr><td>1</td><td>2</td></tr></table>
</main></body></html>"""

SOUND = f"""{HEAD}
<p>Black on white.</p>
<details><summary>more</summary><button>named</button></details>
<table><tr><th><mjx-container><math><mi>d</mi></math></mjx-container></th><th>n</th></tr>
<tr><td>1</td><td>2</td></tr></table>
</main></body></html>"""

# Each in the states in which it is to be seen, and in no other.
CAUGHT = {
    ("color-contrast", "Grey on black"): [1, 2],
    ("button-name", "folded"): [1, 2, 3],
    ("target-size", "<button>a<"): [2, 3],
    ("color-contrast", ">def<"): [0, 3],
    ("empty-table-header", "<th></th>"): [0, 1, 2, 3],
}


def test_a_broken_page_is_caught(chromium, tmp_path):
    page = tmp_path / "broken.html"
    page.write_text(BROKEN, encoding="utf-8")
    found = violations(chromium, page.as_uri())
    for (rule, element), states in CAUGHT.items():
        about = [line for line in found if f": {rule} at" in line and element in line]
        names = [line.partition(":")[0] for line in about]
        assert names == [STATES[i].name for i in states], (rule, found)


def test_a_sound_page_is_left_in_peace(chromium, tmp_path):
    page = tmp_path / "sound.html"
    page.write_text(SOUND, encoding="utf-8")
    assert violations(chromium, page.as_uri()) == []


def test_what_is_allowed_has_a_reason():
    assert all(len(allowance.reason) > 40 for allowance in ALLOWED)
