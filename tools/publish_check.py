"""Prove on this machine that a published copy of the book works, with no address on the web.

A bare clone of this repository stands in for GitHub: git's own ``insteadOf`` sends every
request for github.com there. Then all that publishing does is done:

1. the book is built in a fresh clone, and each chapter's Colab button leads to its notebook;
2. the chapters are pushed to the branch that Colab opens them from, and read back from there;
3. each is run from an empty folder in an environment that has what Colab has, and no attnlib.
   Its first cell must install attnlib from the very commit, and leave all else as it was.

    python -m tools publish-check             all chapters
    python -m tools publish-check kv scaling  those whose names begin so
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import nbformat
from nbclient.exceptions import CellExecutionError

from attnlib.labs.checkpoint import NEEDS
from tools import CHAPTERS, ROOT, arguments
from tools.address import BRANCH, COLAB, Address, git, parts, site_of
from tools.kernel import client, without_colours

TRIAL = "some-reader/attention-fork"  # any name would do

# What Colab's runtime has of what a chapter needs, by googlecolab/backend-info in August 2026.
# It had torch 2.11; this is the version the book is tested with.
COLAB_HAS = (
    "torch==2.13.0",
    "numpy==2.1.3",
    "matplotlib==3.10.0",
    "ipywidgets==7.7.1",
    "anywidget==0.9.21",
    "ipython==7.34.0",
    "ipykernel==6.17.1",
    "transformers==5.23.0",  # and with it tokenizers, PyYAML, requests and tqdm
    "requests",
)
COLAB_LINK = re.compile(rf'href="({re.escape(COLAB)}[^"]*)"')


class CheckError(Exception):
    """Something that a reader of a published copy would stumble over."""


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run a command; return what it prints.

    Raises:
        CheckError: if it fails.
    """
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise CheckError(f"{' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def stand_in(folder: Path) -> Address:
    """Make a bare clone that git takes for the repository on GitHub; return its address."""
    host = folder / "host"
    owner, name = parts(TRIAL)
    home = Address(owner, name, git("rev-parse", "HEAD"), site_of(owner, name))
    run("git", "clone", "--quiet", "--bare", str(ROOT), str(host / owner / name))
    os.environ |= {
        "BOOK_REPOSITORY": TRIAL,
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # old ipykernel's remark on every start
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.{host.as_uri()}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "GIT_CONFIG_KEY_1": "protocol.file.allow",
        "GIT_CONFIG_VALUE_1": "always",
    }
    return home


def check_buttons(folder: Path, home: Address, chapters: list[Path]) -> None:
    """Build the book in a fresh clone; each chapter has one button, to its own notebook.

    Raises:
        CheckError: if a page has another link to Colab than the one to its notebook, or none,
            or if the sitemap or the page for what is not found has another address.
    """
    clone = folder / "clone"
    run("git", "clone", "--quiet", home.repository, str(clone))
    run(sys.executable, "-m", "tools", "build", "--fresh", cwd=clone)
    html = clone / "_build" / "html"
    listed = (html / "sitemap.xml").read_text(encoding="utf-8")
    for name in ("intro", *(f"chapters/{chapter.stem}" for chapter in chapters)):
        if f"<loc>{home.site}{name}.html</loc>" not in listed:
            raise CheckError(f"sitemap.xml does not name {home.site}{name}.html")
    if f'href="{urlsplit(home.site).path}_static/' not in (html / "404.html").read_text(
        "utf-8"
    ):
        raise CheckError("404.html does not look for its style below the site's path")
    for chapter in chapters:
        page = html / "chapters" / f"{chapter.stem}.html"
        links = set(COLAB_LINK.findall(page.read_text(encoding="utf-8")))
        if links != {home.colab(chapter.stem)}:
            raise CheckError(f"{page.name}: links to Colab are {links or 'none'}")
        if f'href="{home.site}chapters/{chapter.stem}.html"' not in page.read_text("utf-8"):
            raise CheckError(f"{page.name}: no canonical address below {home.site}")


def fetch_published(folder: Path, home: Address) -> list[Path]:
    """Push the chapters as the workflow does, and read them back as Colab does."""
    clone = folder / "clone"
    run(sys.executable, "-m", "tools", "publish-chapters", "--push", cwd=clone)
    run(
        sys.executable, "-m", "tools", "publish-chapters", "--push", cwd=clone
    )  # a second time does no harm
    branch = folder / "branch"
    run("git", "clone", "--quiet", "--branch", BRANCH, home.repository, str(branch))
    prefix = home.colab("").removeprefix(
        f"{COLAB}/github/{home.owner}/{home.name}/blob/{BRANCH}/"
    )
    return sorted((branch / prefix).parent.glob("*.ipynb"))


def like_colab(folder: Path) -> Path:
    """Make an environment with what Colab has, and a kernel in it; return its Python."""
    run(sys.executable, "-m", "venv", str(folder / "colab"))
    python = folder / "colab" / "bin" / "python"
    run(
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        *COLAB_HAS,
    )
    kernel = folder / "jupyter" / "kernels" / "like-colab"
    kernel.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "like Colab", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
    return python


def check_chapter(path: Path, python: Path, folder: Path, home: Address) -> float:
    """Run one published chapter from an empty folder; return its seconds.

    Raises:
        CheckError: if a cell fails, or if it installs another attnlib or anything else.
    """
    pip = (str(python), "-m", "pip", "--disable-pip-version-check")
    run(*pip, "uninstall", "--quiet", "--yes", "attnlib")
    before = run(*pip, "freeze").splitlines()
    empty = folder / "empty" / path.stem
    empty.mkdir(parents=True)
    notebook = nbformat.read(path, as_version=4)
    start = time.perf_counter()
    try:
        client(notebook, empty, kernel="like-colab", timeout_s=600).execute()
    except CellExecutionError as error:
        raise CheckError(f"{path.name}: {without_colours(str(error))}") from None
    seconds = time.perf_counter() - start
    after = run(*pip, "freeze").splitlines()
    new = [line for line in after if line not in before and line not in NEEDS]
    gone = [line for line in before if line not in after]
    if gone or len(new) != 1 or not new[0].endswith(f"@{home.commit}"):
        raise CheckError(f"{path.name}: installed {new}, removed {gone}")
    return seconds


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.add_argument("chapters", nargs="*", help="beginnings of names (default: all)")
    options = parser.parse_args(argv)
    if git("status", "--porcelain"):
        print("note: what is not committed is not published, and not checked")
    os.environ.pop("PYTHONPATH", None)
    with TemporaryDirectory() as name:
        folder = Path(name).resolve()
        try:
            home = stand_in(folder)
            print(
                f"commit {home.commit[:12]}, as if published from {home.repository}", flush=True
            )
            chapters = sorted(CHAPTERS.glob("*.ipynb"))
            check_buttons(folder, home, chapters)
            print(f"{len(chapters)} pages: each button leads to its notebook", flush=True)
            published = fetch_published(folder, home)
            if [path.name for path in published] != [path.name for path in chapters]:
                raise CheckError(f"published are {[path.name for path in published]}")
            python = like_colab(folder)
            for path in published:
                if not options.chapters or path.name.startswith(tuple(options.chapters)):
                    seconds = check_chapter(path, python, folder, home)
                    print(f"{path.name}: installs and runs, {seconds:.0f} s", flush=True)
        except CheckError as error:
            print(f"\nNOT READY TO PUBLISH\n{error}", file=sys.stderr)
            return 1
    print("ready to publish")
    return 0
