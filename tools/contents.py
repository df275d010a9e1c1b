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

from tools import ROOT, arguments, toc

TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
QUESTION = re.compile(r"^\*\*The question: (.+?)\*\*", re.MULTILINE)
TABLE = re.compile(
    r"(?P<begin><!-- table of the part (?P<part>[^:]+): .*? -->\n).*?"
    r"(?P<end><!-- end of table -->)",
    re.DOTALL,
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

    def table(mark: re.Match) -> str:
        if mark["part"] not in parts:
            raise ContentsError(f"_toc.yml has no part {mark['part']!r}")
        lines = ["| chapter | the question it answers |", "|---|---|"]
        for page in parts[mark["part"]]:
            title, question = title_and_question(root / f"{page}.ipynb")
            lines.append(f"| [{title}]({page}.ipynb) | {question} |")
        return f"{mark['begin']}\n{chr(10).join(lines)}\n\n{mark['end']}"

    return TABLE.sub(table, text)


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
