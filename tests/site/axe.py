"""Axe on a page that is open: light and dark, wide and on a phone, with its folds opened."""

from __future__ import annotations

from collections.abc import Sequence
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
        "th:has(math)",
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

# Each scheme and each window once. What is no colour is judged where there is least room.
_, DARK, _, NARROW = STATES
IN_BRIEF = (DARK._replace(is_judged_whole=False), NARROW)

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

# Axe takes its time for every element, and a page repeats itself: rows of tables, spans of
# listings, entries of the API. Two of each shape stay: equal elements, with equal classes and
# styles, within equal ones. A span that goes leaves its text. All of a widget stays.
TWO_OF_EACH = """() => {
  const own = (element) =>
    `${element.localName} ${element.getAttribute("class")} ${element.getAttribute("style")}`;
  const text = (node) => (node.nodeType === 3 && node.data.trim() ? "text" : "");
  const shapes = new Map();
  const shape = (element) => {
    if (!shapes.has(element)) {
      const within = [...element.childNodes].map((node) =>
        node.nodeType === 1 ? shape(node) : text(node));
      shapes.set(element, `<${own(element)}>${within.join("").replace(/(text)+/g, "text")}</>`);
    }
    return shapes.get(element);
  };
  const places = new Map();
  const place = (element) => {
    if (element?.matches("section, body") !== false) return "";
    if (!places.has(element)) {
      places.set(element, `${place(element.parentElement)} ${own(element)}`);
    }
    return places.get(element);
  };
  const repeated = (selector, name, remove) => {
    const seen = new Map();
    for (const element of [...document.body.querySelectorAll(selector)]) {
      if (!element.isConnected || element.closest(".attnlib-widget figure")) continue;
      const key = `${place(element.parentElement)} ${name(element)}`;
      seen.set(key, (seen.get(key) ?? 0) + 1);
      if (seen.get(key) > 2) remove(element);
    }
  };
  repeated("pre span, dt span, code span", own, (span) => span.replaceWith(...span.childNodes));
  document.body.normalize();
  repeated("tr, li, dl, dt > *, dd > *, details, section > p", shape, (one) => one.remove());
}"""

# The contrast of an element with text takes some 7 ms, and a chapter has such elements in some
# fifty kinds: equal letters on equal grounds, within equal elements. One of
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


def violations(page: Page, states: Sequence[State] = STATES) -> list[str]:
    """Return what axe finds on a page in each state: rule, element and remedy, line by line.

    Args:
        page: that has settled; its folds are open afterwards, and it has lost what it repeats.
        states: in this order.
    """
    found: list[str] = []
    page.evaluate(TWO_OF_EACH)
    page.evaluate(Axe().axe_script)
    for state in states:
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
