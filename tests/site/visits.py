"""The built book, and readers that open its pages; all that these tests take from `tools`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

from playwright.sync_api import Browser, Page, Request

from tools import SITE, browser, build_site, editions, serve

is_current = build_site.is_current
build_editions = editions.build
FRONT = SITE / "index.html"  # sends the reader on to the front page
PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for folder in (SITE, SITE / "appendix", SITE / "chapters")
    for path in folder.glob("*.html")
    if path != FRONT
)

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
RESIZED_MS = 400  # the theme waits 300 ms before it lets scrolling boxes take the focus
PATIENCE_MS = 30_000

# A browser for tests finds no address but this machine's.
ARGUMENTS = [
    *browser.LAUNCH_ARGUMENTS,
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]

# Resolves when the scripts that wait have run, and fonts and images are there.
SETTLED = """async () => {
  const end = performance.now() + 20_000;
  const until = async (what, holds) => {
    while (!holds()) {
      if (performance.now() > end) throw new Error(`still waiting for ${what}`);
      await new Promise((done) => setTimeout(done, 10));
    }
  };
  await until("scripts", () => !document.querySelector("script[data-defer]"));
  await document.fonts.ready;
  await Promise.all([...document.images].map((image) => image.decode().catch(() => {})));
}"""


@contextmanager
def launched() -> Iterator[Browser]:
    """Start Chromium; end it afterwards."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=browser.executable(), args=ARGUMENTS
        )
        yield chromium
        chromium.close()


@contextmanager
def served(folder=SITE) -> Iterator[str]:
    """Serve a folder; give its address, which ends with a slash."""
    with serve.server(folder) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Reader:
    """One tab of the browser, which goes from page to page and notes what goes wrong there.

    Starting a tab and compiling the theme's scripts cost more than most pages do, so the tests
    of a process share their readers. A page itself is always loaded again by :meth:`open`.

    Attributes:
        home: what the address of everything that a page may ask for begins with.
        page: the tab.
        problems: requests to elsewhere, failures, and errors of scripts since the last page
            was opened.
    """

    def __init__(self, chromium: Browser, home: str, **options):
        """Open a tab.

        Args:
            chromium: the browser.
            home: what the address of everything that a page may ask for begins with.
            **options: of Playwright's browser context, such as ``has_touch=True``.
        """
        self.home, self.problems = home, []
        self.context = chromium.new_context(**{"viewport": WIDE, **options})
        self.context.set_default_timeout(PATIENCE_MS)
        self.page = self.context.new_page()
        self.requests: set[Request] = set()  # of the page that is open now
        self.page.on("request", self.note_request)
        self.page.on("requestfailed", self.note_failure)
        self.page.on("response", self.note_response)
        self.page.on("websocket", lambda socket: self.problems.append(f"opens {socket.url}"))
        self.page.on("pageerror", lambda e: self.problems.append(f"script error: {e}"))
        self.page.on("console", self.note_console)

    def is_outside(self, url: str) -> bool:
        """Return whether an address is neither the book's nor within the page."""
        return not url.startswith((self.home, "data:", "blob:"))

    def note_request(self, request: Request) -> None:
        """Note a request to elsewhere."""
        self.requests.add(request)
        if self.is_outside(request.url):
            self.problems.append(f"asks for {request.url}")

    def note_failure(self, request: Request) -> None:
        """Note a request of this page that got no answer, unless the reader left the page."""
        left = request.failure == "net::ERR_ABORTED"
        if request in self.requests and not left and not self.is_outside(request.url):
            self.problems.append(f"failed: {request.url}")

    def note_response(self, response) -> None:
        """Note an answer that is an error."""
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.url}")

    def note_console(self, message) -> None:
        """Note an error on the console."""
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def open(self, name: str) -> Page:
        """Load a page again, and return it as soon as it has loaded.

        Args:
            name: where the page is, from ``home``.
        """
        self.requests.clear()
        self.problems.clear()
        self.page.goto(self.home + name, wait_until="load")
        return self.page

    def close(self) -> None:
        """Close the tab and forget what it stored."""
        self.context.close()


def resize(page: Page, window: dict[str, int]) -> None:
    """Give a page another window, and let the theme follow."""
    if page.viewport_size != window:
        page.set_viewport_size(window)
        page.wait_for_timeout(RESIZED_MS)
