"""Find habits of wording that the style guide replaces, in code and in pages for developers.

    python -m tools wording          all files that are checked
    python -m tools wording FILE...  these only

codespell corrects single words; these are phrases. Each pattern has what to write instead.
The chapters and the appendix are not checked.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from tools import ROOT, arguments, sources

FOLDERS = ("attnlib", "tools", "_ext", "tests", ".github")
PAGES = ("CONTRIBUTING.md", "README.md", "DESIGN.md", "STYLE.md", "CHANGELOG.md", "Makefile")
SUFFIXES = {".py", ".js", ".css", ".md", ".yml", ".toml", ".cfg", ".sh", ""}
# These two name the habits.
EXEMPT = {"tools/wording.py", "tests/tools/test_wording.py", "STYLE.md"}

COUNTED = (
    "bits|bytes|dots|elements|entries|FLOPs|GiB|head|heads|KiB|lines|MACs|MiB|ms|multiply-adds"
    "|numbers|operations|products|rows?|scores|seconds|values"
)
EACH = (
    "batch|byte|chapter|device|file|group|head|key|layer|model|page|pair|query|row|run|second"
    "|seed|sequence|step|token|user|variant"
)
HABITS = {
    rf"\b(?:{COUNTED}) an? (?:{EACH})s?\b": "per: 'bytes per token'",
    r"\b(?:a|one) (?:dot|line|module|row|file|number|mark|panel|column|bar) a (?:\w+)\b": "per",
    r"\bin place of\b": "instead of",
    r"\blest\b": "so that ... not, or: to avoid",
    r"\b(?:nobody|somebody)\b": "the passive, we, or you",
    r"\bright behind\b": "right after",
    r"\bin peace\b": "say what happens: is accepted, passes",
    r"\banew\b": "again",
    r"\basks? of an?\b": "check, require",
    r"\bbut for (?:its|the|one|a|an|MLA)\b": "except",
}


class Finding(NamedTuple):
    """A phrase to replace.

    Attributes:
        line: where it is, counted from 1.
        phrase: as it is written.
        instead: what to write.
    """

    line: int
    phrase: str
    instead: str


def findings(text: str) -> list[Finding]:
    """Return the phrases of a text that the style guide replaces, in order.

    Args:
        text: of a file. A phrase may go on in the next line, after the mark of a comment.
    """
    joined = re.sub(r"\n[ \t]*(?:#|//|\*)?[ \t]*", lambda m: "\n" + " " * (len(m[0]) - 1), text)
    found = []
    for pattern, instead in HABITS.items():
        spaced = pattern.replace(" ", r"\s+")
        for match in re.finditer(spaced, joined, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Finding(line, " ".join(match[0].split()), instead))
    return sorted(found)


def area(path: Path, root: Path = ROOT) -> str:
    """Return the part of the repository that a file belongs to: a floor, a folder or the pages.

    Args:
        path: of the file.
        root: the repository's folder.
    """
    folders = path.relative_to(root).parts[:-1]
    if not folders:
        return "pages"
    if folders[0] == "attnlib" and folders[1:2] not in ((), ("variants",)):
        return "/".join(folders[:3])
    return folders[0]


def files(root: Path = ROOT) -> list[Path]:
    """Return the files that are checked.

    Args:
        root: the repository's folder.
    """
    found = sources(*FOLDERS, *PAGES, root=root)
    exempt = {root / name for name in EXEMPT}
    return [path for path in found if path.suffix in SUFFIXES and path not in exempt]


def main(argv: list[str]) -> int:
    """Print the phrases to replace; return 1 if there are any."""
    parser = arguments.parser(__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="files to check (default: all)")
    status = 0
    for path in parser.parse_args(argv).files or files():
        for finding in findings(path.read_text(encoding="utf-8")):
            print(f"{path}:{finding.line}: {finding.phrase!r}; write {finding.instead}")
            status = 1
    return status
