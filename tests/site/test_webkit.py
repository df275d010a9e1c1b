"""The engine of every iPhone: pages in WebKit draw their formulas and widgets, and soon.

Runs where Debian's webkit2gtk-driver and xvfb are installed, and in the weekly workflow.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pages import ALIVE, WIDGETS
from selenium import webdriver

DRIVER, XVFB = shutil.which("WebKitWebDriver"), shutil.which("Xvfb")
BROWSERS = sorted(Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"))

pytestmark = pytest.mark.skipif(
    not (DRIVER and XVFB and BROWSERS),
    reason="needs WebKit: apt-get install webkit2gtk-driver xvfb",
)

# Of a page: formulas that are not drawn, and the names of the widgets that are.
SHOWN = """
const isSeen = (element) => {
  const box = element.getBoundingClientRect();
  return box.width * box.height > 0;
};
const shut = (element) => element.closest("details:not([open])");
return {
  formulas: document.querySelectorAll("article math").length,
  undrawn: [...document.querySelectorAll("article math")]
    .filter((formula) => !shut(formula) && !isSeen(formula)).map((one) => one.textContent),
  widgets: [...document.querySelectorAll(".attnlib-widget")]
    .filter((widget) => [...widget.querySelectorAll("figure")].some(isSeen))
    .map((widget) => widget.dataset.widget),
};"""


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """A screen without a monitor; its name."""
    read, write = os.pipe()  # the server chooses a free screen, and writes its number here
    server = subprocess.Popen(
        [XVFB, "-displayfd", str(write), "-screen", "0", "1400x1000x24"],
        pass_fds=[write],
        stderr=subprocess.DEVNULL,
    )
    yield ":" + os.read(read, 20).decode().strip()
    server.terminate()
    server.wait()
    os.close(read)
    os.close(write)


@pytest.fixture(scope="module")
def safari(screen) -> Iterator[webdriver.WebKitGTK]:
    """A WebKit that selenium drives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DISPLAY", screen)
        options = webdriver.WebKitGTKOptions()
        options.binary_location = str(BROWSERS[-1])
        options.add_argument("--automation")
        service = webdriver.WebKitGTKService(DRIVER, port=free_port())
        browser = webdriver.WebKitGTK(options=options, service=service)
        yield browser
        browser.quit()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("name", ALIVE)
def test_a_page_is_drawn(safari, address, name):
    """Catches a call that only Chromium has, and formulas that wait for a script."""
    safari.get(address + name)
    wanted = list(WIDGETS[Path(name).stem])
    end = time.monotonic() + 5
    while (shown := safari.execute_script(SHOWN))["widgets"] != wanted:
        assert time.monotonic() < end, shown
        time.sleep(0.05)
    assert shown["formulas"] > 0
    assert shown["undrawn"] == []
