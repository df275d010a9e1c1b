"""Measure the built pages: what they weigh, when their widgets answer, how fast they do.

python tools/bench_site.py                              print three tables
python tools/bench_site.py --runs 9                     more loads of each page
python tools/bench_site.py --without "**/fontawesome*"  as if these files were empty

Prints each figure beside its bar and asserts nothing: times are those of this machine, now.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import statistics
import sys
from pathlib import Path
from threading import Thread

import browser
import serve

SITE = Path(__file__).resolve().parent.parent / "_build" / "html"

PAYLOAD_BAR_KB = 300  # of 1,000 bytes
ANSWER_BAR_S = 0.5
INTERACTION_BAR_MS = 16

IMAGE = re.compile(r'<img[^>]* src="(?:\.\./)?(_images/[^"]+)"')
WINDOW = {"width": 1280, "height": 900}

# Runs before anything of the page. For each widget: when its figure was laid out, when a key
# was first pressed in it, and when something in it changed after that, in ms since navigation.
CLOCK = """() => {
  const times = (window.attnlibTimes = []);
  let waiting = [];
  const look = (records) => {
    const now = performance.now();
    document.querySelectorAll(".attnlib-widget").forEach((root, i) => {
      const seen = (times[i] ??= { drawn: null, pressed: null, answered: null });
      const figure = seen.drawn === null && root.querySelector(".attnlib figure");
      if (figure && figure.getBoundingClientRect().height > 0) seen.drawn = performance.now();
      if (seen.pressed === null || seen.answered !== null || now < seen.pressed) return;
      if (!records.some((record) => root.contains(record.target))) return;
      root.getBoundingClientRect();
      seen.answered = performance.now();
    });
    waiting = waiting.filter((waits) => !waits());
  };
  const everything = { subtree: true, childList: true, attributes: true, characterData: true };
  new MutationObserver(look).observe(document, everything);
  // Resolves when a widget is drawn and its first control has the focus.
  window.attnlibDrawn = (i, controls) => new Promise((resolve) => {
    const done = () => {
      if (!times[i]?.drawn) return false;
      document.querySelectorAll(".attnlib-widget")[i].querySelector(controls).focus();
      resolve();
      return true;
    };
    if (!done()) waiting.push(done);
  });
  document.addEventListener("keydown", (event) => {
    const widgets = [...document.querySelectorAll(".attnlib-widget")];
    const seen = times[widgets.indexOf(event.target.closest?.(".attnlib-widget"))];
    if (seen) seen.pressed ??= performance.now();
  }, true);
}"""
CONTROLS = "input:not([disabled]), select, button, [tabindex='0']"
KEYS = ("ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp", "Space")

# Main-thread milliseconds of events that the script sends, style and layout forced within.
INTERACTIONS = """() => {
  const root = document.querySelector(".attnlib-widget");
  const map = root.querySelector(".map");
  const heads = [...root.querySelectorAll(".heads input")];
  const timed = (act) => {
    const begin = performance.now();
    act();
    root.getBoundingClientRect();
    return performance.now() - begin;
  };
  const many = (act) => Array.from({ length: 240 }, (_, i) => timed(() => act(i))).slice(24);
  const press = (key) =>
    map.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  const box = map.getBoundingClientRect();
  const move = (i) => map.dispatchEvent(new PointerEvent("pointermove", {
    bubbles: true,
    pointerType: "mouse",
    clientX: box.left + ((i * 37) % 64 + 0.5) / 64 * box.width,
    clientY: box.top + ((i * 23) % 64 + 0.5) / 64 * box.height,
  }));
  return {
    "key press, another query": many((i) => press(i % 120 < 60 ? "ArrowDown" : "ArrowUp")),
    "key press, another key": many((i) => press(i % 120 < 60 ? "ArrowRight" : "ArrowLeft")),
    "head change": many((i) => heads[i % heads.length].click()),
    "pointer move": many(move),
  };
}"""


def payload(page: Path) -> tuple[float, float]:
    """Return what a page brings of its own, in KB: its HTML in gzip, and its pictures."""
    text = page.read_bytes()
    pictures = {SITE / name for name in IMAGE.findall(text.decode("utf-8"))}
    return len(gzip.compress(text, 6)) / 1000, sum(p.stat().st_size for p in pictures) / 1000


def cold_load(chromium, address: str, index: int, without: str | None) -> dict:
    """Open a page in a new context and press a key in a widget as soon as it is there.

    Args:
        chromium: the browser.
        address: the page.
        index: which of its widgets.
        without: a pattern of files that are answered with nothing.

    Returns:
        The times ``drawn``, ``pressed`` and ``answered``, in ms; ``None`` if it never was.
    """
    context = chromium.new_context(viewport=WINDOW)
    page = context.new_page()
    page.add_init_script(f"({CLOCK})()")
    if without:
        page.route(without, lambda route: route.fulfill(body=""))
    page.goto(address, wait_until="commit")
    page.evaluate("([i, controls]) => attnlibDrawn(i, controls)", [index, CONTROLS])
    for key in KEYS:
        page.keyboard.press(key)
        if page.evaluate("(i) => attnlibTimes[i].answered", index):
            break
    times = page.evaluate("(i) => attnlibTimes[i]", index)
    context.close()
    return times


def heatmap_page() -> str:
    """Return a page with a heatmap of 12 heads over 64 tokens, seeded."""
    import torch

    from attnlib import causal_mask
    from attnlib.book.widgets import AttentionHeatmap

    generator = torch.Generator().manual_seed(0)
    mask = causal_mask(torch.arange(64), torch.arange(64))
    scores = 3 * torch.randn(12, 64, 64, generator=generator)
    weights = scores.masked_fill(~mask, float("-inf")).softmax(-1)
    tokens = [f"token{i}" for i in range(64)]
    shown = AttentionHeatmap(weights, tokens, mask=mask, label="12 heads, 64 tokens").html()
    return f'<!doctype html><html lang="en"><title>Heatmap</title><body>{shown}</body></html>'


def table(title: str, head: list[str], rows: list[list[str]]) -> None:
    """Print a table in plain text."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    print(f"\n{title}")
    for row in (head, *rows):
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join((row[0].ljust(len(first)), *rest)), flush=True)


def print_payloads(pages: list[Path]) -> None:
    """Print what each page weighs."""
    rows = []
    for page in pages:
        text, pictures = payload(page)
        sizes = [f"{size:.0f}" for size in (text, pictures, text + pictures, PAYLOAD_BAR_KB)]
        rows.append([page.stem, *sizes])
    title = "A page's own payload, KB: HTML in gzip and its pictures; the theme's files apart"
    table(title, ["page", "HTML", "pictures", "together", "bar"], rows)


def print_loads(chromium, home: str, pages: list[Path], runs: int, without: str | None) -> None:
    """Print when the widgets of each page are drawn and when they answer."""
    rows = []
    for page in pages:
        address = home + page.relative_to(SITE).as_posix()
        widgets = page.read_text(encoding="utf-8").count('<div class="attnlib-widget"')
        print(f"loading {page.stem} {widgets} x {runs} times", file=sys.stderr, flush=True)
        for index in range(widgets):
            loads = [cold_load(chromium, address, index, without) for _ in range(runs)]
            row = [f"{page.stem}, widget {index + 1}"]
            for moment in ("drawn", "answered"):
                times = [times[moment] for times in loads if times[moment] is not None]
                row.append(f"{statistics.median(times) / 1000:.2f}" if times else "never")
            rows.append([*row, f"{ANSWER_BAR_S:.2f}"])
    title = (
        f"Cold load over localhost, s since navigation, median of {runs}: figure laid out,\n"
        "and the change that a real key press made in its first control, a load for each"
    )
    table(title, ["widget", "drawn", "answered", "bar"], rows)


def print_interactions(chromium) -> None:
    """Print how long the main thread works on an interaction with a large heatmap."""
    page = chromium.new_page(viewport=WINDOW)
    page.set_content(heatmap_page())
    rows = []
    for name, times in page.evaluate(INTERACTIONS).items():
        high = statistics.quantiles(times, n=20)[-1]
        median = statistics.median(times)
        rows.append([name, f"{median:.1f}", f"{high:.1f}", f"{INTERACTION_BAR_MS}"])
    page.close()
    title = (
        "Heatmap of 12 x 64 x 64, main-thread ms of an event (performance.now() around a\n"
        "dispatched event, style and layout forced; painting apart)"
    )
    table(title, ["interaction", "median", "95 %", "bar"], rows)


def main(argv: list[str] | None = None) -> int:
    """Run the tool; return its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5, help="loads of a page (default: 5)")
    parser.add_argument("--without", metavar="PATTERN", help="files to leave out")
    options = parser.parse_args(argv)
    pages = sorted((SITE / "chapters").glob("*.html"))
    if not pages:
        print("There is no built book yet: `make site` builds it.", file=sys.stderr)
        return 1
    from playwright.sync_api import sync_playwright

    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(f"{os.cpu_count()} processors, load {load} when this began")
    print_payloads(pages)
    with serve.server(SITE) as book, sync_playwright() as playwright:
        Thread(target=book.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{book.server_port}/"
        chromium = playwright.chromium.launch(
            executable_path=browser.executable(), args=list(browser.LAUNCH_ARGUMENTS)
        )
        print_loads(chromium, home, pages, options.runs, options.without)
        print_interactions(chromium)
        chromium.close()
        book.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
