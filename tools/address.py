"""Where the book is published, on GitHub and on the web.

    python -m tools address   print what is known

No address is written down anywhere. It is that of the repository from which the book is
published, so a fork points to itself. ``make publish`` looks in turn at

- ``BOOK_REPOSITORY``, ``owner/name`` or an address on GitHub, for a trial;
- ``GITHUB_REPOSITORY``, which GitHub sets where a workflow runs;
- the remote ``origin`` of this clone, if it is on GitHub.

It sets ``BOOK_REPOSITORY``, and pages get an address only if that is set. A book that is built
without being published has none, and no button that would lead nowhere.
"""

from __future__ import annotations

import os
import re
import subprocess
from typing import NamedTuple

from tools import ROOT

HOST = "https://github.com"
COLAB = "https://colab.research.google.com"
BRANCH = "notebooks"  # the chapters as they are published, one folder per commit

GITHUB = re.compile(
    r"^(?:https://(?:[^@/]+@)?github\.com/|(?:ssh://)?git@github\.com[:/])?"
    r"(?P<owner>[A-Za-z0-9][A-Za-z0-9-]*)/(?P<name>[\w.-]+?)(?:\.git)?/?$"
)


class Address(NamedTuple):
    """Where one commit of the book is published.

    Attributes:
        owner: the account on GitHub.
        name: of the repository.
        commit: the commit that the book is built from, 40 hexadecimal digits.
        site: address of its pages, ending in a slash.
    """

    owner: str
    name: str
    commit: str
    site: str

    @property
    def repository(self) -> str:
        """The repository's address."""
        return f"{HOST}/{self.owner}/{self.name}"

    @property
    def package(self) -> str:
        """What pip installs to get attnlib at this commit, with what the pages need."""
        return f"attnlib[book] @ git+{self.repository}@{self.commit}"

    def colab(self, chapter: str) -> str:
        """Return the address at which Colab opens a chapter, given without suffix."""
        path = f"{self.owner}/{self.name}/blob/{BRANCH}/{self.commit}/chapters/{chapter}.ipynb"
        return f"{COLAB}/github/{path}"


def parts(text: str) -> tuple[str, str] | None:
    """Return owner and name of a repository on GitHub, or None if it is elsewhere."""
    found = GITHUB.match(text.strip())
    return (found["owner"], found["name"]) if found else None


def site_of(owner: str, name: str) -> str:
    """Return where GitHub Pages serves a repository."""
    home = f"https://{owner.lower()}.github.io/"
    return home if name.lower() == f"{owner.lower()}.github.io" else f"{home}{name}/"


def git(*arguments: str) -> str:
    """Return what git prints; empty if there is no git, no repository or no answer."""
    command = ["git", "-C", str(ROOT), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def repository() -> str:
    """Return ``owner/name`` of the repository to publish from; empty if unknown."""
    name = os.environ.get("BOOK_REPOSITORY") or os.environ.get("GITHUB_REPOSITORY") or ""
    remote = git("remote", "get-url", "origin")
    if not name and "github.com" in remote:  # a path such as ../there has two parts as well
        name = remote
    return "/".join(parts(name) or ())


def find() -> Address | None:
    """Return where the book that is being built is published, or None.

    Raises:
        ValueError: if ``BOOK_REPOSITORY`` does not name a repository on GitHub.
    """
    wanted = os.environ.get("BOOK_REPOSITORY", "")
    if not wanted:
        return None
    found = parts(wanted)
    if found is None:
        raise ValueError(f"BOOK_REPOSITORY must be owner/name on GitHub, got {wanted!r}")
    commit = git("rev-parse", "HEAD")
    site = os.environ.get("BOOK_SITE", "") or site_of(*found)
    return Address(*found, commit, site.rstrip("/") + "/")


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    os.environ["BOOK_REPOSITORY"] = repository()
    address = find()
    if address is None:
        print("no address: no remote on GitHub, BOOK_REPOSITORY and GITHUB_REPOSITORY not set")
        return 0
    for name, value in (*address._asdict().items(), ("repository", address.repository)):
        print(f"{name:10} {value}")
    return 0
