"""Find habits of wording that the style guide replaces, in code and in pages for developers.

    python -m tools wording          all files that are checked
    python -m tools wording FILE...  these only

codespell corrects single words; these are phrases. Each pattern has what to write instead.
Pages for readers (chapters, appendix, the front page) are checked for more of them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from tools import ROOT, arguments, sources

FOLDERS = ("attnlib", "tools", "_ext", "tests", ".github")
READ = ("chapters", "appendix", "intro.md")  # by readers
PAGES = ("CONTRIBUTING.md", "README.md", "DESIGN.md", "STYLE.md", "CHANGELOG.md", "Makefile")
SUFFIXES = {".py", ".js", ".css", ".md", ".yml", ".toml", ".cfg", ".sh", ".ipynb", ""}
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
# On pages for readers these count, too.
HABITS_OF_PROSE = {
    rf"\b(?:tokens|{COUNTED}|costs?|keeps?|kept) an? (?:{EACH})\b": "per, for each",
    rf"\bkept of an? (?:{EACH})\b": "per",
    r"\bof (?:its|their|one's|his|her) own\b": "its own ...",
    r"\bmind (?:the|that|what|how)\b": "note that",
    r"\bfor (?:it|they|he|she|this|that|there) (?:is|are|was|were|has|have)\b": "because",
    r"\bbehind (?:the|it|them|each|others|that|this|chunk|every)\b": "after",
    r"\bst(?:ands?|ood) (?:at|in|beside|there|above|below|where|under|on|with|before|between)\b"
    r"": "is, was",
    r"\b(?:deaf|lottery|hesitates?)\b|\b(?:listens?|objects) (?:to|at)\b": "what happens",
    r"\bthe (?:more|fewer|longer|larger|smaller)\b[^.:;|]{0,60},"
    r" the (?:more|fewer|longer|larger|smaller|less)\b": "with more ...",
    r"\bwhoever\b": "anyone who",
    r"\b(?:key/value|K/V) heads?\b(?! \(KV)": "KV head",
    r"\bthe (?:balance|ridge)\b(?! point)": "ridge point",
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


def findings(text: str, *, is_read: bool = False) -> list[Finding]:
    """Return the phrases of a text that the style guide replaces, in order.

    Args:
        text: of a file. A phrase may go on in the next line, after the mark of a comment.
        is_read: whether it is a page for readers.
    """
    joined = re.sub(r"\n[ \t]*(?:#|//|\*)?[ \t]*", lambda m: "\n" + " " * (len(m[0]) - 1), text)
    found = []
    habits = HABITS | HABITS_OF_PROSE if is_read else HABITS
    for pattern, instead in habits.items():
        spaced = pattern.replace(" ", r"\s+")
        for match in re.finditer(spaced, joined, re.IGNORECASE):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Finding(line, " ".join(match[0].split()), instead))
    return sorted(found)


def findings_of(path: Path) -> list[Finding]:
    """Return the phrases to replace in a file; lines of a notebook are those of its source.

    Args:
        path: of the file.
    """
    text = path.read_text(encoding="utf-8")
    is_read = path.parent.name in READ or path.name in READ
    if path.suffix == ".ipynb":
        text = "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    return findings(text, is_read=is_read)


def files(root: Path = ROOT) -> list[Path]:
    """Return the files that are checked.

    Args:
        root: the repository's folder.
    """
    found = sources(*FOLDERS, *PAGES, *READ, root=root)
    exempt = {root / name for name in EXEMPT}
    return [path for path in found if path.suffix in SUFFIXES and path not in exempt]


def main(argv: list[str]) -> int:
    """Print the phrases to replace; return 1 if there are any."""
    parser = arguments.parser(__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="files to check (default: all)")
    status = 0
    for path in parser.parse_args(argv).files or files():
        for finding in findings_of(path):
            print(f"{path}:{finding.line}: {finding.phrase!r}; write {finding.instead}")
            status = 1
    return status
