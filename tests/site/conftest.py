"""What the tests of the built site share: a browser, the served book, and readers of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from visits import PHONE, SITE, Reader, launched, served

HERE = Path(__file__).parent
ONCE = {"test_lab", "test_slides"}  # start a server, or write slides, once for all their tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put tests side by side that share a chapter's run, a server or slides; the others last.

    ``--dist=worksteal`` gives each process a stretch of this order. (``loadgroup`` would say it
    more directly, but xdist 3.8 finds no groups under pytest 9.2.)
    """
    at = [i for i, item in enumerate(items) if HERE in item.path.parents]
    for i, item in zip(at, sorted((items[i] for i in at), key=shared), strict=True):
        items[i] = item


def shared(item: pytest.Item) -> tuple[int, str]:
    """Return a sort key: equal for tests that share something, last for single ones."""
    place = item.callspec.params.get("place") if hasattr(item, "callspec") else None
    if item.path.stem in ONCE:
        return 0, item.path.stem
    return (1, f"{place.chapter} {place.index}") if place else (2, "")


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One Chromium for all pages, which finds no address but this machine's."""
    with launched() as browser:
        yield browser


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """The address of the built book, served while the tests run."""
    with served() as home:
        yield home


@pytest.fixture(scope="session")
def disk() -> str:
    """The address of the built book as files."""
    return SITE.as_uri() + "/"


@pytest.fixture(scope="session")
def online(chromium, address) -> Iterator[Reader]:
    """A reader of the served book who prefers light colours."""
    reader = Reader(chromium, address, color_scheme="light")
    yield reader
    reader.close()


@pytest.fixture(scope="session")
def offline(chromium, disk) -> Iterator[Reader]:
    """A reader of the book on disk who prefers dark colours."""
    reader = Reader(chromium, disk, color_scheme="dark")
    yield reader
    reader.close()


@pytest.fixture(scope="session")
def scriptless(chromium, disk) -> Iterator[Reader]:
    """A reader of the book on disk, on a phone, whose browser runs no script."""
    reader = Reader(chromium, disk, viewport=PHONE, java_script_enabled=False)
    yield reader
    reader.close()
