"""What the tests of the built site share: a browser, the served book, and readers of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from visits import PHONE, SITE, Reader, launched, served

HERE = Path(__file__).parent
ONCE = {"test_lab", "test_slides"}  # start a server, or write slides, once for all their tests


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep tests together in one process that share a chapter's run, a server or slides.

    With ``--dist=loadgroup`` the largest groups start first, and single pages fill up the rest.
    """
    for item in items:
        if HERE not in item.path.parents:
            continue
        place = getattr(item, "callspec", None) and item.callspec.params.get("place")
        if place:
            item.add_marker(pytest.mark.xdist_group(place.chapter))
        elif item.path.stem in ONCE:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


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
