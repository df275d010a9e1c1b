"""Axe on a page that is open: light and dark, wide and on a phone, with its folds opened."""

from __future__ import annotations

from typing import NamedTuple

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page
from visits import PHONE, WIDE, resize


class Allowance(NamedTuple):
    """A fault that may stay: the rule, the elements it may name, and why."""

    rule: str
    selector: str
    reason: str


ALLOWED = (
    Allowance(
        "empty-table-header",
        "th:has(mjx-container math)",
        "axe reads no MathML, so a column named by a formula has no name for it; a screen"
        " reader does, and the formula is there",
    ),
)


class State(NamedTuple):
    """A way to look at a page.

    Whether names, roles and sizes are judged in it as well as colours: they do not depend on
    the scheme, and a page with all its folds open shows all that it shows with them closed.
    """

    name: str
    window: dict[str, int]
    scheme: str
    opened: bool
    is_judged_whole: bool


# In this order, since an opened fold stays open.
STATES = (
    State("wide and light, as it opens", WIDE, "light", opened=False, is_judged_whole=False),
    State("wide and dark, folds open", WIDE, "dark", opened=True, is_judged_whole=True),
    State("phone and dark, folds open", PHONE, "dark", opened=True, is_judged_whole=False),
    State("phone and light, folds open", PHONE, "light", opened=True, is_judged_whole=True),
)

COLOUR_RULES = ["color-contrast", "link-in-text-block"]
COLOURS = {"resultTypes": ["violations"], "runOnly": COLOUR_RULES}
# All of axe's other default rules, best practices among them, and one that it leaves off.
REST = {
    "resultTypes": ["violations"],
    "rules": {
        "target-size": {"enabled": True},  # WCAG 2.2, 2.5.8
        **{rule: {"enabled": False} for rule in COLOUR_RULES},
    },
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

# Axe takes some 6 ms for the contrast of each element with text, of which a chapter has a
# thousand in some fifty kinds: equal letters on equal grounds, within equal elements. One of
# each kind is judged, and every one within a widget, where letters can stand on a ground that
# is no ancestor of theirs.
JUDGE = """async ({ colours, options }) => {
  if (!colours) return (await axe.run(document, options)).violations;
  const grounds = new Map(); // of an element: what lies behind it, up to the root
  const ground = (element) => {
    if (element === null) return "";
    if (!grounds.has(element)) {
      const style = getComputedStyle(element);
      const own = [style.backgroundColor, style.backgroundImage, style.opacity, style.filter];
      grounds.set(element, ground(element.parentElement) + own.join(" ")
        .replace(/^rgba\\(0, 0, 0, 0\\) none 1 none$/, ""));
    }
    return grounds.get(element);
  };
  const kinds = new Map();
  for (const element of document.body.querySelectorAll("*")) {
    const hasText = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    const isLink = element.matches("a[href]");
    if (!hasText && !isLink && !element.matches("input, select, textarea")) continue;
    if (!element.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue;
    const style = getComputedStyle(element);
    const kind = [
      element.localName, element.parentElement.localName, isLink && element.className,
      style.color, style.fontSize, style.fontWeight, style.textShadow, style.position,
      style.textDecorationLine, ground(element),
    ].join("|");
    const inWidget = element.closest(".attnlib-widget figure");
    kinds.set(inWidget ? element : kind, element);
  }
  return (await axe.run({ include: [...kinds.values()] }, options)).violations;
}"""

OPEN_FOLDS = (
    """() => document.querySelectorAll("details").forEach((fold) => (fold.open = true))"""
)

# The theme follows the colours that the reader prefers in a frame or two, and fades.
THEME_IS = """(scheme) => (document.documentElement.dataset.theme ?? scheme) === scheme
  && document.getAnimations().every((animation) => animation.playState !== "running")"""


def violations(page: Page) -> list[str]:
    """Return what axe finds on a page in each state: rule, element and remedy, line by line.

    Args:
        page: that has settled; its folds are open afterwards, and its listings lose colours.
    """
    found: list[str] = []
    page.evaluate(SPANS_ONCE)
    page.evaluate(Axe().axe_script)
    for state in STATES:
        bring_to(page, state)
        faults = page.evaluate(JUDGE, {"colours": True, "options": COLOURS})
        if state.is_judged_whole:
            faults += page.evaluate(JUDGE, {"colours": False, "options": REST})
        for violation in faults:
            for node in violation["nodes"]:
                if not is_allowed(page, violation["id"], node["target"]):
                    found.append(f"{state.name}: {described(violation, node)}")
    return found


def bring_to(page: Page, state: State) -> None:
    """Set window, colours and folds, and wait until the page has followed."""
    resize(page, state.window)
    page.emulate_media(color_scheme=state.scheme)
    if state.opened:
        page.evaluate(OPEN_FOLDS)
    page.wait_for_function(THEME_IS, arg=state.scheme, timeout=10_000)


def is_allowed(page: Page, rule: str, target: list) -> bool:
    """Return whether a fault is one of those that may stay."""
    selectors = [allowance.selector for allowance in ALLOWED if allowance.rule == rule]
    if not selectors or not isinstance(target[0], str):
        return False
    matches = "([target, selector]) => document.querySelector(target).matches(selector)"
    return any(page.evaluate(matches, [target[0], selector]) for selector in selectors)


def described(violation: dict, node: dict) -> str:
    """Return rule, element and remedy in a line."""
    remedy = " ".join(node["failureSummary"].split())
    return f"{violation['id']} at {node['target'][0]}: {node['html'][:120]}: {remedy}"
