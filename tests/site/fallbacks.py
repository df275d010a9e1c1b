"""What a widget shows where no script runs, and how its page keeps that behind a key."""

from __future__ import annotations

import re
from collections.abc import Sequence

from playwright.sync_api import Page

CONTROLS = "input, select, button, summary, [role=slider]"

# Of each widget on a page: what is drawn, and what its fallback shows and hides.
WIDGETS = """(controls) => [...document.querySelectorAll(".attnlib-widget")].map((widget) => {
  const fallback = widget.querySelector(".attnlib-fallback");
  const all = (part) => [...fallback.querySelectorAll(part)];
  const isSeen = (element) => {
    const box = element.getBoundingClientRect();
    return element.checkVisibility({ visibilityProperty: true }) && box.width * box.height > 0;
  };
  return {
    name: widget.dataset.widget,
    figures: [...widget.querySelectorAll("figure")].map(isSeen),
    controls: widget.querySelectorAll(controls).length,
    seen: isSeen(fallback),
    title: fallback.querySelector("p").innerText.trim(),
    pictures: all("img, svg").map((one) => one.getAttribute("alt") ?? one.ariaLabel ?? ""),
    cells: all("td").map((cell) => cell.innerText),
    cellsSeen: all("td").slice(0, 3).every(isSeen),
  };
})"""


def looked_at(page: Page) -> list[dict]:
    """Return what each widget of a page shows, its fallback above all."""
    return page.evaluate(WIDGETS, CONTROLS)


def lacks(widget: dict) -> list[str]:
    """Return what a fallback lacks that is to say the same as its widget.

    It must be visible and have a title, and either numbers in a table or a picture with a
    description.
    """
    numbers = sum(bool(re.search(r"\d", text)) for text in widget["cells"])
    wanted = {
        "is not visible": widget["seen"],
        "has no title": widget["title"],
        "has a picture without description": all(widget["pictures"]),
        "has neither numbers nor a picture": numbers >= 3 or widget["pictures"],
        "has cells that are not visible": widget["cellsSeen"],
    }
    return [
        f"{widget['name']}: the fallback {fault}"
        for fault, is_sound in wanted.items()
        if not is_sound
    ]


def bare_tables(page: Page, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the widgets of a page whose scripts do not run.

    Args:
        page: that is open.
        names: of the widgets that it must have, in order.
    """
    widgets = looked_at(page)
    found = wrong_names(widgets, names)
    found += [fault for widget in widgets for fault in lacks(widget)]
    found += [f"{w['name']}: a dead control" for w in widgets if w["controls"]]
    return found + [f"{w['name']}: half a figure" for w in widgets if w["figures"]]


def wrong_names(widgets: list[dict], names: Sequence[str]) -> list[str]:
    """Return a line if the widgets of a page are not those that its chapter stores."""
    shown = [widget["name"] for widget in widgets]
    return [] if shown == list(names) else [f"widgets {shown}, not {list(names)}"]


def undrawn(widgets: list[dict], names: Sequence[str]) -> list[str]:
    """Return which widgets of a page are not those of its chapter, or draw not one figure."""
    found = wrong_names(widgets, names)
    return found + [f"{w['name']}: not one figure" for w in widgets if w["figures"] != [True]]


def hidden_tables(page: Page, names: Sequence[str]) -> list[str]:
    """Return what is wrong with the figures of a page, and with the tables that a key shows.

    Args:
        page: that is open; it is left as it was.
        names: of the widgets that it must have, in order.
    """
    closed = looked_at(page)
    found = undrawn(closed, names)
    found += [f"{w['name']}: the table lies open" for w in closed if w["seen"]]
    press_all(page)
    found += [fault for widget in looked_at(page) for fault in lacks(widget)]
    press_all(page)
    return found + [f"{w['name']}: the table stays open" for w in looked_at(page) if w["seen"]]


def press_all(page: Page) -> None:
    """Press Enter on what opens and closes the table of each widget of a page."""
    for summary in page.query_selector_all(".attnlib-widget details.as-table > summary"):
        summary.press("Enter")
