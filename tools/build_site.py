"""Build the book into _build/html, only if something changed since the last good build.

python -m tools build          what changed; everything if the book's look changed
python -m tools build --fresh  everything, from nothing
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from tools import BUILD, ROOT, address, arguments
from tools.kernel import without_colours

STAMP = BUILD / "site.stamp"  # what the last good build was made from
LOCK = ROOT / "_build.lock"  # held while a build writes

PAGES = (
    "*.md",
    "appendix/*.md",
    "chapters/*.ipynb",
    "images/**/*",
    "attnlib/**/*.py",
)  # with docstrings
LOOK = ("_config.yml", "_toc.yml", "_ext/*.py", "_static/**/*", "_templates/**/*")
TOOLS = ("tools/address.py", "tools/formulas.py")
KNOWN = ("BOOK_REPOSITORY", "BOOK_SITE", "BOOK_DOWNLOADS", "BOOK_CHECKED")  # from make publish


def digest(*patterns: str) -> str:
    """Return a hash of the names and the bytes of the files that match."""
    total = hashlib.sha256()
    for path in sorted({p for pattern in patterns for p in ROOT.glob(pattern) if p.is_file()}):
        total.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


def fingerprint() -> list[str]:
    """Return what a build is made from: requirements, look and tools, then pages."""
    known = [address.find(), *(os.environ.get(name) for name in KNOWN)]
    home = hashlib.sha256(repr(known).encode()).hexdigest()
    return [digest("requirements.txt", *LOOK, *TOOLS) + home, digest(*PAGES)]


def built_from() -> list[str]:
    """Return the fingerprint of the last good build; empty if there is none."""
    if not (STAMP.exists() and (BUILD / "html" / "index.html").exists()):
        return []
    return STAMP.read_text(encoding="utf-8").split()


def is_current() -> bool:
    """Whether _build/html is what the sources say now."""
    return built_from() == fingerprint()


@contextmanager
def alone() -> Iterator[None]:
    """Let one build at a time write into this folder."""
    lock = FileLock(LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("another build of this folder is running: waiting for its end", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def build(*, fresh: bool) -> int:
    """Build the book, warnings being errors; return the exit status of jupyter-book.

    A build that finds another one at work waits, and then builds what has changed since.
    """
    with alone():
        return build_alone(fresh=fresh)


def build_alone(*, fresh: bool) -> int:
    """Build the book while no other build of this folder runs; return the exit status."""
    wanted, found = fingerprint(), built_from()
    if found == wanted and not fresh:
        print("nothing changed since the last build: _build/html")
        return 0
    STAMP.unlink(missing_ok=True)
    if fresh or not found or found[0] != wanted[0]:
        shutil.rmtree(BUILD, ignore_errors=True)
    start = time.perf_counter()
    status, warnings = run_jupyter_book()
    if status != 0:
        # Sphinx does not repeat a warning for a page it has read: the next build reads all.
        shutil.rmtree(BUILD / ".doctrees", ignore_errors=True)
        print("\nThe book was not built. Correct these, then run this again:")
        print(*warnings, sep="\n")
        return status
    STAMP.write_text("\n".join(wanted), encoding="utf-8")
    print(f"built in {time.perf_counter() - start:.1f} s: _build/html/index.html")
    return 0


def run_jupyter_book() -> tuple[int, list[str]]:
    """Run the build and show its lines; return its exit status and what it warned of."""
    # Not `-m`: jupyter-book has no __main__, and its script's first line holds a path.
    program = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"
    command = [sys.executable, "-u", "-c", program, "build", ".", "-n", "-W", "--keep-going"]
    # Sphinx reads every page again if a list made from a set comes in another order.
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    warnings = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    ) as process:
        for line in process.stdout:
            text = without_colours(line.rstrip()).replace(f"{ROOT}/", "")
            if any(word in text for word in ("WARNING:", "ERROR:", "CRITICAL:", "Error:")):
                warnings.append(text)
            if text and not text.startswith(("myst v", "myst-nb v", "====")):
                print(text, flush=True)
    return process.returncode, warnings


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--fresh", action="store_true", help="build everything from nothing")
    return build(fresh=parser.parse_args(argv).fresh)
