"""Write the lists of chapters, in the order of `_toc.yml`, or check them.

    python -m tools contents           rewrite chapters/README.md and the front page's tables
    python -m tools contents --check   exit 1 if a list and the chapters differ

JupyterLab and GitHub sort files by name, so `chapters/README.md` has the chapters in the order
in which they are read. A chapter's title and its question are those of its first cell.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat

from tools import ROOT, arguments, minutes, toc

TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
QUESTION = re.compile(r"^\*\*The question: (.+?)\*\*", re.MULTILINE)
TABLE = re.compile(
    r"(?P<begin><!-- table of the part (?P<part>[^:]+): .*? -->\n).*?"
    r"(?P<end><!-- end of table -->)",
    re.DOTALL,
)
START = re.compile(
    r"(?P<begin><!-- table of starts: .*? -->\n).*?(?P<end><!-- end of table -->)", re.DOTALL
)
# Who reads, and the first and the last chapter of the way.
READERS = (
    ("Attention is new to you", "dot-product-attention", "multi-head-latent-attention"),
    ("You know multi-head attention", "kv-cache", "multi-head-latent-attention"),
    ("You choose or serve models", "choosing-a-variant", "measure-it-yourself"),
)
README = """\
# Chapters, in the order of reading

<!-- Written by `python -m tools contents` from `_toc.yml` and the first cells. -->
"""


class ContentsError(Exception):
    """A chapter without a title or a question, or a part that `_toc.yml` does not have."""


def title_and_question(path: Path) -> tuple[str, str]:
    """Return the title of a chapter and the question it asks, from its first cell.

    Args:
        path: of its notebook.

    Raises:
        ContentsError: if the first cell has no title or no question.
    """
    cell = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    text = "".join(cell["source"])
    title, question = TITLE.search(text), QUESTION.search(text)
    if title is None or question is None:
        raise ContentsError(f"{path.name}: no `# Title` and `**The question: ...**` at the top")
    return title[1], question[1][:1].upper() + question[1][1:]


def readme(root: Path = ROOT) -> str:
    """Return the page that lists all chapters.

    Args:
        root: the book's folder.
    """
    blocks, number = [README], 0
    for part in toc.parts(root):
        names = [Path(page).name for page in part.pages if page.startswith(toc.CHAPTERS)]
        lines = []
        for name in names:
            title, question = title_and_question(root / toc.CHAPTERS / f"{name}.ipynb")
            number += part.numbered
            marker = f"{number}." if part.numbered else "-"
            lines.append(f"{marker} [{title}]({name}.ipynb): {question}")
        if lines:
            blocks.append(f"## {part.caption}\n\n" + "\n".join(lines) + "\n")
    return "\n".join(blocks)


def front_page(text: str, root: Path = ROOT) -> str:
    """Return the front page with a table of chapters for each part that it marks.

    Args:
        text: of the page, with a pair of marks around each table.
        root: the book's folder.

    Raises:
        ContentsError: if a mark names a part that the table of contents does not have.
    """
    parts = {part.caption: part.pages for part in toc.parts(root)}

    def table(mark: re.Match[str]) -> str:
        if mark["part"] not in parts:
            raise ContentsError(f"_toc.yml has no part {mark['part']!r}")
        lines = ["| chapter | the question it answers | minutes |", "|---|---|---|"]
        for page in parts[mark["part"]]:
            path = root / f"{page}.ipynb"
            title, question = title_and_question(path)
            lines.append(f"| [{title}]({page}.ipynb) | {question} | {core_minutes(path)} |")
        return f"{mark['begin']}\n{chr(10).join(lines)}\n\n{mark['end']}"

    if START.search(text):
        text = START.sub(lambda m: f"{m['begin']}\n{start(root)}\n\n{m['end']}", text)
    return TABLE.sub(table, text)


def core_minutes(path: Path) -> int:
    """Return how long the core path of a chapter takes, in minutes.

    Args:
        path: of its notebook.
    """
    return minutes.counts(nbformat.read(path, as_version=4)).core


def hours(total: int) -> str:
    """Return a number of minutes in hours, to a quarter, such as "2¾".

    Args:
        total: minutes.
    """
    whole, quarters = divmod(round(total / 15), 4)
    return f"{whole or ''}{('', '¼', '½', '¾')[quarters]}"


def start(root: Path = ROOT) -> str:
    """Return the table that says where each reader starts, and how long the core paths take.

    Args:
        root: the book's folder.
    """
    names = toc.chapters(root)
    lines = ["| you | start with | go on to | hours |", "|---|---|---|---|"]
    for who, first, last in READERS:
        walk = names[names.index(first) : names.index(last) + 1]
        paths = [root / toc.CHAPTERS / f"{name}.ipynb" for name in walk]
        links = [
            f"[{title_and_question(path)[0]}]({toc.CHAPTERS}{path.name})"
            for path in (paths[0], paths[-1])
        ]
        time = hours(sum(core_minutes(path) for path in paths))
        lines.append(f"| {who} | {links[0]} | {links[1]} | {time} |")
    return "\n".join(lines)


def pages(root: Path = ROOT) -> dict[Path, str]:
    """Return what each page that lists chapters has to say.

    Args:
        root: the book's folder.
    """
    intro = root / "intro.md"
    return {
        root / toc.CHAPTERS / "README.md": readme(root),
        intro: front_page(intro.read_text(encoding="utf-8"), root),
    }


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    checking, status = parser.parse_args(argv).check, 0
    for path, wanted in pages().items():
        if not checking:
            path.write_text(wanted, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != wanted:
            print(f"{path.relative_to(ROOT)} is not current: run `make listings`")
            status = 1
    return status
