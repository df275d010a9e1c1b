"""What the tests of the built site share: a browser and the served book."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import pytest

from tools import SITE, browser, serve


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """One Chromium for all pages, which can look up no address but this machine's."""
    from playwright.sync_api import sync_playwright

    arguments = [
        *browser.LAUNCH_ARGUMENTS,
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=browser.executable(), args=arguments
        )
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of the built book, served while the tests run."""
    with serve.server(SITE) as book:
        Thread(target=book.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{book.server_port}/"
        book.shutdown()
