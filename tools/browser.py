"""Find a Chromium for the tests; as root on Debian, install one if there is none.

python -m tools browser               print its path; install it if necessary
python -m tools browser --no-install  only look
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tools import arguments

NAMES = (
    "chromium-headless-shell",  # Chromium without windows, which starts in half the time
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
)
MAC_APPS = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
DEBIAN_PACKAGES = ("chromium-headless-shell", "chromium")  # the first that there is
DEBIAN_FONTS = ("fonts-dejavu-core", "fonts-liberation")

# A browser for tests makes no requests of its own. (Playwright itself starts it without a
# sandbox, which root and containers need.)
LAUNCH_ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",  # letters as wide as their font says
    "--no-first-run",
)

ADVICE = """\
The tests open the book in Chromium, and none was found. Any one of these provides it:

    sudo apt-get install chromium           Debian; on Ubuntu, chromium-browser or Chrome
    python -m playwright install chromium   with the interpreter of .venv
    CHROMIUM=/path/to/chrome make test      a Chromium, Chrome or Edge of yours
"""


class BrowserNotFoundError(Exception):
    """No Chromium on this machine; the message says how to get one."""


def find() -> str | None:
    """Return the path of a Chromium: ``$CHROMIUM``, the usual names, Playwright's own.

    Raises:
        BrowserNotFoundError: if ``$CHROMIUM`` names no program.
    """
    wanted = os.environ.get("CHROMIUM")
    if wanted:
        path = shutil.which(wanted)
        if path is None:
            raise BrowserNotFoundError(f"CHROMIUM is {wanted!r}, which is not a program")
        return path
    on_path = (shutil.which(name) for name in NAMES)
    apps = (app for app in MAC_APPS if os.access(app, os.X_OK))
    return next(filter(None, (*on_path, *apps)), None) or playwrights_own()


def playwrights_own() -> str | None:
    """Return the Chromium that `playwright install` downloaded, if there is one."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = Path(playwright.chromium.executable_path)
    return str(path) if path.exists() else None


def install() -> bool:
    """As root on Debian, install Chromium; return whether this was tried."""
    if not (shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0):
        return False
    print("installing Debian's chromium", file=sys.stderr, flush=True)
    apt_get("update")
    for package in DEBIAN_PACKAGES:
        if apt_get("install", "-y", "--no-install-recommends", package, *DEBIAN_FONTS):
            break
    return True


def apt_get(*command: str) -> bool:
    """Run apt-get without questions; return whether it did what it was asked."""
    done = subprocess.run(
        ["apt-get", "-q", *command],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        check=False,
    )
    return done.returncode == 0


def executable(*, may_install: bool = False) -> str:
    """Return the path of a Chromium.

    Raises:
        BrowserNotFoundError: if there is none, with advice on how to get one.
    """
    path = find()
    if path is None and may_install and install():
        path = find()
    if path is None:
        raise BrowserNotFoundError(ADVICE)
    return path


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--no-install", action="store_true", help="only look")
    options = parser.parse_args(argv)
    try:
        print(executable(may_install=not options.no_install))
    except BrowserNotFoundError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
