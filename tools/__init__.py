"""Commands that write, check, build and publish the book: ``python -m tools`` lists them."""

from __future__ import annotations

import importlib.util
import subprocess
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CHAPTERS = ROOT / "chapters"
BUILD = ROOT / "_build"
SITE = BUILD / "html"  # the built book


def installed(package: str, *path: str) -> Path:
    """Return a file or folder of an installed package, without importing that.

    Args:
        package: its name.
        *path: where the file is in it.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no package {package}: `make setup` installs it")
    return Path(spec.origin).parent.joinpath(*path)


def sources(*patterns: str, root: Path = ROOT) -> list[Path]:
    """Return the project's own files: those that git tracks or is about to.

    An archive has no git. There all files count but those that .gitignore names.

    Args:
        *patterns: folders, files or patterns such as ``*.py``, which match in any folder; all
            files if there are none.
        root: the project's folder.
    """
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others"]
    listed = subprocess.run(
        [*command, "--exclude-standard", "--", *patterns], capture_output=True, text=True
    )
    if listed.returncode == 0:
        names = [name for name in listed.stdout.split("\0") if name]
    else:
        lines = (root / ".gitignore").read_text(encoding="utf-8").split()
        ignored = [line.strip("/") for line in lines]
        names = [
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if not any(fnmatch(p, i) for p in path.relative_to(root).parts for i in ignored)
        ]
        names = [n for n in names if not patterns or any(matches(n, p) for p in patterns)]
    return [root / name for name in sorted(names) if (root / name).is_file()]


def matches(name: str, pattern: str) -> bool:
    """Return whether a file is, or lies in, what a pattern names."""
    return name.startswith(pattern.rstrip("/") + "/") or fnmatch(name, pattern)
