"""Check the numbers in the prose: each is computed, printed by a cell, sourced or assumed.

    python -m tools numbers             every page of the book
    python -m tools numbers intro.md    these pages only

A number counts if it has a decimal point, a thousands comma, three or more digits, a percent
sign or a unit. Years, references such as "Table 3", code spans, formulas without decimals and
small counts do not. A number that counts is verified in one of four ways:

- A comment right after it gives an expression: ``7 bytes<!-- = kv_cache_bytes(V3, 1) -->``. Its
  value must be the number as printed, without the unit. A comment may also name the number,
  ``<!-- 7 = ... -->``, and then verifies it in the whole paragraph.
- A code cell of the same chapter contains it, in its source or its output, or a block of code
  in a solution does, or the output below that block.
- A link to a source is in the same paragraph, item or row, or in the caption of the table.
- ``<!-- assumed -->`` right after it says that the author chose it, so it is not a result.

Readers do not see the comments: the book, JupyterLab, Colab and GitHub all drop them.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import nbformat

from tools import ROOT, arguments, minutes, solutions

COMMENT = re.compile(r"<!--(.*?)-->", re.DOTALL)
EXPRESSION = re.compile(r"\s*(?P<number>\d[\d,]*(?:\.\d+)?)?\s*=\s*(?P<code>.+?)\s*", re.DOTALL)
ASSUMED = re.compile(r"\s*assumed\s*")
MARK = re.compile(r"^<!-- (?:table of .*|end of table) -->$", re.MULTILINE)  # tools/notation.py

FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,}).*?^\1\2`*\s*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)", re.DOTALL)
MATHS = re.compile(r"\$\$.+?\$\$|(?<![\\$])\$(?![\s$])[^$]+?(?<!\s)\$", re.DOTALL)
ADDRESS = re.compile(r"\]\([^)]*\)|<https?:[^>]*>")
TAG = re.compile(r"</?[A-Za-z][^>]*>")
NAMED = (
    "appendi(?:x|ces)|arxiv|chapters?|cuda|doi|equations?|exercises?|fig(?:ure|ures)?|footnotes?"
    r"|issues?|no\.|pages?|python|pytorch|rows?|sections?|tables?|torch|transformers|versions?"
)
NUMERAL = r"\d[\d,]*(?:\.\d+)*"
REFERENCE = re.compile(rf"\b(?:{NAMED})\s+{NUMERAL}(?:(?:,| and| to)\s+{NUMERAL})*", re.I)

NUMBER = re.compile(
    r"(?<![\w.,/^])(?<![A-Za-z]-)(?P<digits>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)"
    r"(?P<suffix>[kKMT]?x|[kKMT])?(?!\w|[.,]\d)"
)
YEAR = re.compile(r"19[5-9]\d|20[0-3]\d")
UNIT = re.compile(
    r"\s?(?:%|×(?!\s*\d))|\s(?:(?:[KMGT]i?B|[KMGTP]?FLOPs?)(?:/s)?|bytes?|[mµn]?s|seconds?"
    r"|minutes?|hours?|per cent|times|x|[mbtr]+illion)\b"
)
LINK = re.compile(r"\]\(\s*<?https?:|<https?:|<a\b[^>]*\bhref=[\"']https?:")

ITEM = re.compile(r"\s*(?:[-*+]|\d+[.)])\s+")
RULE = re.compile(r"\|[\s:|-]+$")

# Numbers in a cell, as Python writes them: 1,024 or 1_024 or 1024.
IN_CELL = re.compile(r"(?<![\w.])\d[\d,_]*(?:\.\d+)?")
HIDDEN = re.compile(r"<(script|style)\b.*?</\1>", re.DOTALL)
SPECIFIC = 3  # so many digits tell a number from others in a whole chapter

UNITS = {
    **{f"{prefix}iB": 2 ** (10 * i) for i, prefix in enumerate("KMGT", start=1)},
    **{f"{prefix}B": 10 ** (3 * i) for i, prefix in enumerate("KMGT", start=1)},
}


class Block(NamedTuple):
    """A paragraph, an item of a list, a heading or a row of a table."""

    kind: str
    text: str
    section: int
    sourced: bool


class Cell(NamedTuple):
    """What a code cell has: the numbers that it is made of and prints."""

    section: int
    numbers: frozenset[Decimal]


class Page(NamedTuple):
    """A page's prose, and the code cells that may contain its numbers."""

    name: str
    blocks: list[Block]
    cells: list[Cell]


class NoCellError(Exception):
    """A number that an expression refers to and that no cell contains."""


def load(path: Path) -> Page:
    """Return a page of the book: a notebook or a Markdown file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return Page(path.name, list(blocks(MARK.sub("", text))), [])
    return of_notebook(path.name, nbformat.reads(text, as_version=4))


def of_notebook(name: str, notebook: nbformat.NotebookNode) -> Page:
    """Return the page that a notebook is; a section begins at each heading of level two."""
    page, section = Page(name, [], []), 0
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            page.blocks.extend(blocks(cell.source, section))
            section = page.blocks[-1].section if page.blocks else section
            run = [text for block in solutions.blocks(cell.source) for text in block if text]
            page.cells.append(Cell(section, frozenset(numbers_in(run))))
        elif cell.cell_type == "code":
            page.cells.append(Cell(section, frozenset(cell_numbers(cell))))
    return page


def cell_numbers(cell: nbformat.NotebookNode) -> Iterator[Decimal]:
    """Yield the numbers of a code cell's source and of what it prints and shows as text."""
    texts = [cell.source]
    # Timings differ from run to run: prose that quoted one would drift.
    outputs = cell.outputs if "nbval-ignore-output" not in cell.metadata.get("tags", []) else []
    for output in outputs:
        data = output.get("data", {})
        shown = html.unescape(TAG.sub(" ", HIDDEN.sub("", data.get("text/html", ""))))
        texts += [output.get("text", ""), output.get("evalue", ""), shown]
        if not any(kind.startswith(("image/", "text/html")) for kind in data):
            texts.append(data.get("text/plain", ""))
    yield from numbers_in(texts)


def numbers_in(texts: list[str]) -> Iterator[Decimal]:
    """Yield the numbers of code or of what it prints."""
    for text in texts:
        for found in IN_CELL.findall(text):
            yield Decimal(found.strip(",_").replace(",", "").replace("_", "")).normalize()


def blank(match: re.Match[str]) -> str:
    """Return as many spaces as a match is long, so that places stay."""
    return re.sub(r"[^\n]", " ", match[0])


def blocks(source: str, section: int = 0) -> Iterator[Block]:
    """Cut Markdown into paragraphs, items, headings and rows, each with its section."""
    found: list[tuple[str, list[str]]] = []
    for line in [*FENCE.sub(blank, source).split("\n"), ""]:
        stripped = line.strip()
        if not stripped:
            kind = ""
        elif stripped.startswith("#"):
            kind = "heading"
        elif stripped.startswith("|"):
            kind = "rule" if RULE.fullmatch(stripped) else "row"
        elif ITEM.match(line):
            kind, line = "item", ITEM.sub("", line, count=1)
        elif found and found[-1][0] in ("text", "item"):
            found[-1][1].append(line)
            continue
        else:
            kind = "text"
        found.append((kind, [line]))
    pieces = [(kind, "\n".join(lines)) for kind, lines in found]
    linked = [has_link(text) for _, text in pieces]
    for place, (kind, text) in enumerate(pieces):
        if kind == "heading" and text.lstrip().startswith("## "):
            section += 1
        if kind not in ("", "rule"):
            yield Block(kind, text, section, linked[place] or inherits(pieces, linked, place))


def has_link(text: str) -> bool:
    """Whether a block links to a page outside the book."""
    return LINK.search(COMMENT.sub("", text)) is not None


def inherits(pieces: list[tuple[str, str]], linked: list[bool], place: int) -> bool:
    """Whether a block's source is in its table's caption or head, or above its list."""
    kind = pieces[place][0]
    same = {"row": ("row", "rule"), "item": ("item",)}.get(kind)
    if same is None:
        return False
    first = last = place
    while first and pieces[first - 1][0] in (*same, "" if kind == "item" else None):
        first -= 1
    while kind == "row" and pieces[last + 1][0] in same:
        last += 1
    above = [i for i in range(first) if pieces[i][0]][-1:]
    below = [i for i in range(last + 1, len(pieces)) if pieces[i][0]][:1] * (kind == "row")
    if kind == "row" and linked[first]:  # the head of a column
        return True
    if kind == "item":
        above = [i for i in above if pieces[i][1].rstrip().endswith(":")]
    return any(linked[i] for i in above + below if pieces[i][0] == "text")


def masked(text: str) -> str:
    """Return a block in which all that is not prose is blanked."""
    for pattern in (COMMENT, CODE, minutes.LINE):  # a tool counts the minutes
        text = pattern.sub(blank, text)
    text = MATHS.sub(only_decimals, text)
    for pattern in (ADDRESS, TAG, REFERENCE):
        text = pattern.sub(blank, text)
    return text


def only_decimals(maths: re.Match[str]) -> str:
    """Blank a formula except its decimal numbers, which are results; the others define."""
    kept = [" "] * len(maths[0])
    for number in re.finditer(r"(?<![\w.])\d+\.\d+(?![\w.])", maths[0]):
        kept[number.start() : number.end()] = number[0]
    return "".join(kept)


def counts(number: re.Match[str]) -> bool:
    """Whether a number must be verified."""
    digits, rest = number["digits"], number.string[number.end() :]
    if UNIT.match(rest) or number["suffix"] or "." in digits or "," in digits:
        return True
    return len(digits) > 2 and not YEAR.fullmatch(digits)


def agrees(printed: str, value: object) -> bool:
    """Whether a printed number is a value, rounded to the digits that are printed.

    An integer printed without decimals must be equal.

    Raises:
        TypeError: if the value is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise TypeError(f"expected a number, got {value!r}")
    shown, exact = Decimal(printed.replace(",", "")), Decimal(value)
    digits = len(printed.partition(".")[2])
    if isinstance(value, int) and not digits:
        return shown == exact
    return abs(shown - exact) <= Decimal("0.50000001").scaleb(-digits)


def namespace() -> dict[str, object]:
    """Return the names that expressions may use: attnlib's, its tables', and arithmetic."""
    import attnlib
    from attnlib import costs, layers, models

    names: dict[str, object] = {"math": math, **UNITS}
    for module in (costs, layers, models):
        names |= {name: value for name, value in vars(module).items() if name[0] != "_"}
    return names | {name: getattr(attnlib, name) for name in attnlib.__all__}


def in_cells(page: Page, digits: str, section: int) -> bool:
    """Whether a code cell has the number: a specific one anywhere, any other in its section."""
    value = Decimal(digits.replace(",", "")).normalize()
    specific = len(digits.replace(",", "").replace(".", "").strip("0")) >= SPECIFIC
    return any(
        value in cell.numbers for cell in page.cells if specific or cell.section == section
    )


def findings(page: Page) -> list[str]:
    """Return what is wrong with a page's numbers, each with its place and a remedy."""
    names = namespace()

    def printed(digits: str) -> float:
        """Return a number that a cell of the page prints, for an expression."""
        if any(Decimal(digits.replace(",", "")).normalize() in c.numbers for c in page.cells):
            return float(digits.replace(",", ""))
        raise NoCellError(f"no cell of {page.name} has {digits}")

    names["printed"] = printed
    return [
        f"{page.name}, {excerpt(block, place)}: {what}"
        for block in page.blocks
        for place, what in wrong_in(block, page, lambda code: eval(code, dict(names)))
    ]


def wrong_in(
    block: Block, page: Page, evaluate: Callable[[str], object]
) -> Iterator[tuple[int, str]]:
    """Yield what is wrong in one block, with its place."""
    prose, bare = masked(block.text), COMMENT.sub(blank, block.text)
    verified: set[int] = set()
    for comment in COMMENT.finditer(block.text):
        if not block.text[: comment.start()].rpartition("\n")[2].strip():
            yield comment.start(), "a comment at the start of a line ends the paragraph"
        before = [n for n in NUMBER.finditer(bare) if n.end() <= comment.start()]
        if expression := EXPRESSION.fullmatch(comment[1]):
            wanted = expression["number"]
            numbers = before[-1:]
            if wanted:
                numbers = [n for n in NUMBER.finditer(bare) if n["digits"] == wanted]
            verified |= {number.start("digits") for number in numbers}
            if finding := wrong_expression(numbers, expression, evaluate):
                yield comment.start(), finding
        elif ASSUMED.fullmatch(comment[1]) and before:
            verified.add(before[-1].start("digits"))
        else:
            text = f"<!--{comment[1]}--> is neither `= expression` nor `assumed`"
            yield comment.start(), text
    for number in NUMBER.finditer(prose):
        place, digits = number.start("digits"), number["digits"]
        if place in verified or not counts(number) or block.sourced:
            continue
        if not in_cells(page, digits, block.section):
            yield place, f"{number[0]} has no cell, no source and no comment that verifies it"


def wrong_expression(
    numbers: list[re.Match], expression: re.Match[str], evaluate: Callable[[str], object]
) -> str:
    """Return what is wrong with a comment's expression; nothing if it gives its numbers."""
    code = expression["code"]
    if not numbers:
        return f"no {expression['number'] or 'number'} for `{code}` to verify"
    digits = numbers[0]["digits"]
    try:
        value = evaluate(" ".join(code.split()))
        right = agrees(digits, value)
    except Exception as error:
        return f"`{code}` fails: {type(error).__name__}: {error}"
    return "" if right else f"{digits} is printed, `{code}` gives {value!r}"


def excerpt(block: Block, place: int) -> str:
    """Return a few words around a place, for a finding."""
    before = COMMENT.sub("", block.text[:place])[-30:]
    after = COMMENT.sub("", block.text[place:])[:30]
    return " ".join(f'"{before}{after}"'.split())


def pages() -> list[Path]:
    """Return the pages whose numbers are verified."""
    prose = (
        "intro.md",
        *(f"appendix/{page}.md" for page in ("instructors", "names", "notation")),
    )
    return [*(ROOT / name for name in prose), *sorted((ROOT / "chapters").glob("*.ipynb"))]


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    parser.add_argument("paths", nargs="*", type=Path, help="pages (default: all)")
    options = parser.parse_args(argv)
    paths = options.paths or pages()
    found = [finding for path in paths for finding in findings(load(path))]
    print(*found, f"numbers not verified: {len(found)}", sep="\n")
    return 1 if found else 0
