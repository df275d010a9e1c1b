"""Make the book for offline reading: a PDF for paper, and a zip that opens from disk.

    python -m tools downloads   both, in _build/html/downloads, from the book in _build/html

The PDF is printed by Chromium from the built pages, joined to one: chapters in the order of the
table of contents, a list of contents with page numbers, widgets as they look when a page opens,
formulas rendered, in light colours. On paper nothing can be opened, so a chapter ends with the
answers to its questions and its solutions.
"""

from __future__ import annotations

import os
import re
import time
import zipfile
from pathlib import Path
from threading import Thread

from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader

from tools import ROOT, SITE, arguments, browser, build_site, serve, toc

FOLDER = SITE / "downloads"
NAME = "attention-one-variant-at-a-time"
ZIP_LINK = re.compile(r'\s*<a[^>]* href="[^"]*\.zip"[^>]*>.*?</a>', re.DOTALL)
ONLY_ON_SCREEN = ("appendix/api",)  # a reference to look things up in; the PDF leaves it out
SCALE = 0.8
SIDE = 20  # mm of margin at the left and at the right
# In pixels, 96 to an inch: the width that text has on A4 at that scale.
SHEET = {"width": round((210 - 2 * SIDE) / 25.4 * 96 / SCALE), "height": 1200}
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same zip from the same pages

JOIN = Path(__file__).with_name("downloads.js").read_text(encoding="utf-8")
STYLE = Path(__file__).with_name("downloads.css").read_text(encoding="utf-8")
FOOT = """<div style="font: 8pt sans-serif; color: #555; width: 100%; text-align: center">
<span class="pageNumber"></span></div>"""


def pages() -> list[str]:
    """Return the book's pages in the order of the table of contents, relative to the site."""
    pages = (page for part in toc.parts() for page in part.pages)
    return [f"{name}.html" for name in ("intro", *pages)]


def print_book(target: Path) -> int:
    """Print the book; return the number of its pages on paper.

    Args:
        target: the PDF to write.
    """
    with serve.server(SITE) as book, sync_playwright() as playwright:
        Thread(target=book.serve_forever, daemon=True).start()
        chromium = playwright.chromium.launch(
            executable_path=browser.find(), args=list(browser.LAUNCH_ARGUMENTS)
        )
        # A page's policy knows its own scripts; here the widgets of all pages run in one.
        page = chromium.new_page(viewport=SHEET, color_scheme="light", bypass_csp=True)
        page.set_default_timeout(240_000)
        page.goto(f"http://127.0.0.1:{book.server_port}/{pages()[0]}", wait_until="load")
        page.add_style_tag(content=STYLE)
        page.evaluate(JOIN, [name for name in pages() if not name.startswith(ONLY_ON_SCREEN)])
        on_paper(page, target)
        page.evaluate(
            """(numbers) => document.querySelectorAll(".paper-contents .page").forEach(
              (place, i) => (place.textContent = numbers[i]))""",
            heading_pages(target, page),
        )
        on_paper(page, target)
        chromium.close()
        book.shutdown()
    return len(PdfReader(target).pages)


def on_paper(page: Page, target: Path) -> None:
    """Print a page to a PDF with page numbers, an outline and tags."""
    page.pdf(
        path=target,
        format="A4",
        margin={"top": "18mm", "bottom": "20mm", "left": f"{SIDE}mm", "right": f"{SIDE}mm"},
        display_header_footer=True,
        header_template="<span></span>",
        footer_template=FOOT,
        print_background=True,
        scale=SCALE,
        outline=True,
        tagged=True,
    )


def heading_pages(target: Path, page: Page) -> list[int]:
    """Return the page number of each entry in the list of contents.

    Raises:
        ValueError: if the PDF does not know where an entry leads.
    """
    reader = PdfReader(target)
    places = reader.named_destinations
    links = page.evaluate(
        """() => [...document.querySelectorAll(".paper-contents a")]
          .map((link) => link.getAttribute("href").slice(1))"""
    )
    numbers = []
    for name in links:
        place = places.get(name) or places.get(f"/{name}")
        if not name or place is None:
            raise ValueError(f"the PDF has no place named {name!r}")
        numbers.append(reader.get_destination_page_number(place) + 1)
    return numbers


def pack(target: Path) -> int:
    """Pack the built pages; return the number of files.

    The zip opens from disk without a network. It holds the PDF, and no link to itself.

    Args:
        target: the zip to write.
    """
    files = sorted(path for path in SITE.rglob("*") if path.is_file() and path != target)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in files:
            data = path.read_bytes()
            if path.suffix == ".html":
                data = ZIP_LINK.sub("", data.decode("utf-8")).encode("utf-8")
            name = f"{NAME}/{path.relative_to(SITE).as_posix()}"
            archive.writestr(zipfile.ZipInfo(name, EPOCH), data, zipfile.ZIP_DEFLATED)
    return len(files)


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.parse_args(argv)
    os.environ["BOOK_DOWNLOADS"] = NAME  # pages have links to what is made here
    if status := build_site.build(fresh=False):
        return status
    FOLDER.mkdir(exist_ok=True)
    pdf, archive = FOLDER / f"{NAME}.pdf", FOLDER / f"{NAME}.zip"
    archive.unlink(missing_ok=True)
    start = time.perf_counter()
    print(
        f"{pdf.name}: {print_book(pdf)} pages, {pdf.stat().st_size / 2**20:.1f} MiB", flush=True
    )
    print(f"{archive.name}: {pack(archive)} files, {archive.stat().st_size / 2**20:.1f} MiB")
    print(f"made in {time.perf_counter() - start:.0f} s: {FOLDER.relative_to(ROOT)}")
    return 0
