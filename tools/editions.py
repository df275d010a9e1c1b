"""Make what instructors need from the chapters: student notebooks, their own, and slides.

    python -m tools editions                     all chapters
    python -m tools editions chapters/scaling.*  these only
    python -m tools editions --keep-outputs      student notebooks show what cells printed

Nothing of this is stored: it is written to _build/editions, from the chapters as they are.

- ``student``: solutions, answers and verdicts are left out, with a note where they stood, and
  options have letters to vote by. Outputs are cleared, since they answer the questions above
  them. Invisible comments go as well: the one that holds a number sits behind the right one.
- ``instructor``: the chapter with the same letters, and all that is folded away unfolded.
- ``inventory.md``: the questions of the concept inventory on instructors.md, without its key.
- ``slides``: what is shown stays, what is said goes to the speaker's notes. reveal.js comes
  from an installed package and lies beside the slides, which ask no network.
"""

from __future__ import annotations

import html
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.dollarmath import dollarmath_plugin
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound

from tools import BUILD, ROOT, address, arguments, formulas, installed, publish
from tools.canonical import dumps, normalise
from tools.details import DETAILS, details

EDITIONS = BUILD / "editions"
DECK = Path(__file__).with_name("deck.html")

COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
QUESTION = "**Predict.**"
LETTERS = "ABCDEFGH"

LEFT_OUT = {
    "solution": "*The solution is left out of this edition.*",
    "recall": "*What belongs here is left out of this edition.*",
}
STUDENT_NOTE = (
    "*Student edition. Questions keep their options and lose their verdicts, exercises lose"
    " their solutions, and cells show nothing until you run them. Run the notebook from the"
    " top, cell by cell, and answer each question before you go on.*"
)

SHOWN_WHOLE = ("Exercises", "Summary", "Explain it back")

# What a slide shows as it is; of all other blocks it shows the first sentence.
KEPT = re.compile(r"#|[-*+] |\d+\. |\||```|>|!\[|<|\$\$|\*\*[^*]+\*\*$")

# reveal.js calls its arrows by the name that the controls of a widget have.
ARROWS = re.compile(r"(\.reveal(?:[.:\[][^\s{},>]*)?) \.controls\b(?!-)")

# A slide holds about so many lines; the next cell begins another one.
LINES = 19
WORDS_A_LINE, CODE_LINE = 14, 0.85
PICTURE_LINES, WIDGET_LINES, HEADING_LINES = 15, 17, 3


def lettered(source: str) -> str:
    """Return a question whose options have the letters A, B, C and so on."""
    letters = iter(LETTERS)

    def named(found: re.Match[str]) -> str:
        if found["kind"] != "option":
            return found[0]
        return found[0].replace("<summary>", f"<summary>{next(letters)}. ", 1)

    return DETAILS.sub(named, source)


# The student's edition.


def hidden(source: str) -> str:
    """Return a Markdown cell without solutions, answers, verdicts and comments."""

    def left_out(found: re.Match[str]) -> str:
        if found["kind"] == "option":
            letter, _, text = found["summary"].partition(". ")
            return f"- **{letter}.** {text}"
        if found["kind"] == "recall":
            return f"**{found['summary']}**\n\n{LEFT_OUT['recall']}\n"
        return LEFT_OUT["solution"]

    return COMMENT.sub("", DETAILS.sub(left_out, lettered(source)))


def student(notebook: NotebookNode, chapter: str, *, keep_outputs: bool) -> NotebookNode:
    """Return a chapter for students; the one given is left as it was.

    Args:
        notebook: the chapter.
        chapter: its name without suffix.
        keep_outputs: whether cells show what they printed when the chapter was last run. What
            graded cells and timings showed goes in any case: it was not the student's.
    """
    home = address.find()
    copy = publish.published(notebook, chapter, home) if home else normalise(notebook, chapter)
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            cell.source = hidden(cell.source)
            continue
        own = "exercise" in cell.metadata.get("attnlib", {})
        timing = "nbval-ignore-output" in cell.metadata.get("tags", [])
        if own or timing or not keep_outputs:
            cell.outputs, cell.execution_count = [], None
    copy.cells.insert(1, new_markdown_cell(STUDENT_NOTE))
    return normalise(copy, chapter)


# The instructor's edition.


def unfolded(notebook: NotebookNode, chapter: str) -> NotebookNode:
    """Return a chapter in which all that is folded away lies open, and options have letters."""
    copy = normalise(notebook, chapter)
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            cell.source = lettered(cell.source).replace("<details ", "<details open ")
    return normalise(copy, chapter)


# Slides.


def parts(source: str) -> Iterator[str]:
    """Cut a Markdown cell at its headings; code and what is folded away have none."""
    quiet = [found.span() for found in DETAILS.finditer(source)]
    quiet += [f.span() for f in re.finditer(r"^```.*?^```", source, re.DOTALL | re.MULTILINE)]
    cuts = [
        found.start()
        for found in re.finditer(r"^#{1,3} ", source, re.MULTILINE)
        if not any(begin <= found.start() < end for begin, end in quiet)
    ]
    for begin, end in zip([0, *cuts], [*cuts, len(source)], strict=True):
        if text := source[begin:end].strip():
            yield text


def blocks(source: str) -> list[str]:
    """Cut Markdown at empty lines, but for those in code, formulas and what is folded away."""
    folds: list[str] = []

    def fold(found: re.Match[str]) -> str:
        folds.append(found[0])
        return f"\0{len(folds) - 1}\0"

    def unfold(text: str) -> str:
        while "\0" in text:
            text = re.sub(r"\0(\d+)\0", lambda found: folds[int(found[1])], text)
        return text

    text = re.sub(r"^```.*?^```|^\$\$.*?\$\$$", fold, source, flags=re.DOTALL | re.MULTILINE)
    found = re.split(r"\n{2,}", DETAILS.sub(fold, text).strip())
    return [unfold(block) for block in found if block]


def shown_and_said(source: str) -> tuple[str, str]:
    """Return what a slide shows of a part of prose, and what its speaker says.

    Headings, lists, tables, formulas, code and what is folded away are shown, and of each
    paragraph its first sentence. The whole paragraphs are for the speaker.
    """
    shown, said = [], []
    for block in blocks(source):
        if KEPT.match(block):
            shown.append(block)
        else:
            shown.append(first_sentence(block))
            said.append(block)
    return "\n\n".join(shown), "\n\n".join(said)


def fitting(source: str) -> Iterator[str]:
    """Cut Markdown between blocks into pieces that a slide has room for."""
    piece: list[str] = []
    for block in blocks(source):
        if piece and height_of_text("\n".join([*piece, block])) > LINES:
            yield "\n\n".join(piece)
            piece = []
        piece.append(block)
    if piece:
        yield "\n\n".join(piece)


def is_speech(source: str) -> bool:
    """Whether a part of prose has nothing but paragraphs."""
    return not any(KEPT.match(block) for block in blocks(source))


def first_sentence(paragraph: str) -> str:
    """Return a paragraph's first sentence, not ended by a stop within maths, code or quotes."""
    quiet = re.compile(r"\$[^$]+\$|`[^`]+`|\[[^\]]*\]\([^)]*\)|\"[^\"]*\"|\*\*[^*]+\*\*")
    masked = quiet.sub(lambda found: "x" * len(found[0]), COMMENT.sub("", paragraph))
    plain = COMMENT.sub("", paragraph)
    end = re.search(r"(?<!e\.g)(?<!i\.e)[.?!](?=\s+\S)", masked)
    return plain[: end.end()] if end else plain


def for_slides(notebook: NotebookNode) -> NotebookNode:
    """Return a notebook cut into what stands together on slides, which its metadata says.

    ``slideshow.slide_type`` is Jupyter's: "slide" begins a column, "subslide" the next slide of
    it, "-" goes on with the slide, "notes" is for the speaker and "skip" is left out.
    """
    cells: list[NotebookNode] = []
    room, section = 0.0, ""

    def put(cell: NotebookNode, kind: str, lines: float) -> None:
        nonlocal room
        alone = room >= LINES - HEADING_LINES and lines > LINES  # too long for any slide
        if kind == "-" and lines > room and not alone:
            kind = "subslide"
        if kind in ("slide", "subslide"):
            room = LINES
        room -= lines
        cell.metadata["slideshow"] = {"slide_type": kind}
        cells.append(cell)

    for cell in notebook.cells:
        if cell.cell_type == "code":
            kind = "skip" if is_plumbing(cell) else "-"
            put(nbformat.from_dict(cell), kind, height(cell) if kind == "-" else 0)
            continue
        for part in parts(cell.source):
            heading = re.match(r"(#{1,3}) (.*)", part)
            level = len(heading[1]) if heading else 4
            section = heading[2] if level < 3 else section
            if section == "Further reading":
                continue
            asks = part.startswith(QUESTION)
            kind = "slide" if level < 3 else "subslide" if asks or level == 3 else "-"
            text = DETAILS.sub(lambda d: "" if d["kind"] == "solution" else d[0], part)
            if asks or section in SHOWN_WHOLE:
                shown = text
                said = "\n\n".join(f"{o.summary}: {o.text}" for o in details(lettered(text)))
            else:
                shown, said = shown_and_said(text)
            spoken = kind == "-" and is_speech(text) and height_of_text(shown) > room
            for piece in [] if spoken else [lettered(shown)] if asks else fitting(shown):
                put(new_markdown_cell(piece), kind, height_of_text(piece))
                kind = "-"
            if said:
                put(new_markdown_cell(said), "notes", 0)
            if asks:
                room = 0.0  # the answer comes on a slide of its own
    return new_notebook(cells=cells)


def is_plumbing(cell: NotebookNode) -> bool:
    """Whether a code cell has nothing for a class: it is hidden, or only imports."""
    if "remove-cell" in cell.metadata.get("tags", []):
        return True
    if cell.outputs:
        return False
    lines = (line.strip() for line in cell.source.splitlines())
    return all(not line or line.startswith(("import ", "from ", "#")) for line in lines)


def height_of_text(source: str) -> float:
    """Return about how many lines a Markdown cell takes, what is folded away left aside."""
    lines = DETAILS.sub(lambda found: found["summary"], source).splitlines()
    return sum(1 + len(line.split()) // WORDS_A_LINE for line in lines if line.strip())


def height(cell: NotebookNode) -> float:
    """Return about how many lines a code cell takes, with what it shows."""
    shown = [] if "hide-input" in cell.metadata.get("tags", []) else [cell.source]
    total = 0
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            total += PICTURE_LINES
        elif "text/html" in data:
            total += WIDGET_LINES
        else:
            shown.append(output.get("text") or data.get("text/plain", ""))
    return total + sum(1 + CODE_LINE * len(text.splitlines()) for text in shown)


def coloured(code: str, language: str = "python") -> str:
    """Return code as HTML."""
    try:
        lexer = get_lexer_by_name(language)
    except ClassNotFound:
        lexer = get_lexer_by_name("text")
    return highlight(code, lexer, HtmlFormatter(cssclass="code"))


def maths(formula: str, options: dict[str, Any]) -> str:
    """Return a formula as MathML."""
    return formulas.mathml(formula, is_display=options["display_mode"])


def markdown() -> MarkdownIt:
    """Return a reader of Markdown that reads it as the book does."""
    reader = MarkdownIt("commonmark", {"html": True}).enable("table")
    reader.use(dollarmath_plugin, renderer=maths)
    reader.add_render_rule("fence", lambda _, tokens, i, *rest: coloured(*code_of(tokens[i])))
    return reader


def code_of(token: Token) -> tuple[str, str]:
    """Return a block of code and its language."""
    return token.content, token.info or "text"


def as_html(cell: NotebookNode, reader: MarkdownIt) -> str:
    """Return a cell as HTML."""
    if cell.cell_type == "markdown":
        source = re.sub(r"\]\(([\w-]+)\.ipynb", r"](\1.html", COMMENT.sub("", cell.source))
        return reader.render(source)
    folded = "hide-input" in cell.metadata.get("tags", [])
    found = [] if folded else [coloured(cell.source)]
    alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            picture = data["image/png"].replace("\n", "")
            found.append(
                f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{picture}">'
            )
        elif "text/html" in data:
            found.append(data["text/html"])
        elif text := output.get("text") or data.get("text/plain", ""):
            found.append(f'<pre class="printed">{html.escape(text.rstrip())}</pre>')
    return "\n".join(found)


def deck(notebook: NotebookNode, title: str) -> str:
    """Return the page of slides of a chapter."""
    reader = markdown()
    columns: list[list[list[str]]] = []
    for cell in for_slides(notebook).cells:
        kind, body = cell.metadata.slideshow.slide_type, as_html(cell, reader)
        if kind == "skip":
            continue
        if kind == "slide" or not columns:
            columns.append([[]])
        elif kind == "subslide":
            columns[-1].append([])
        columns[-1][-1].append(
            f'<aside class="notes">{body}</aside>' * (kind == "notes") or body
        )
    slides = "\n".join(
        "<section>\n" + "\n".join(f"<section>\n{''.join(s)}\n</section>" for s in column)
        + "\n</section>"
        for column in columns
    )  # fmt: skip
    style = HtmlFormatter(style="a11y-high-contrast-light", cssclass="code").get_style_defs()
    page = DECK.read_text(encoding="utf-8")
    for mark, text in (("TITLE", html.escape(title)), ("CODE", style), ("SLIDES", slides)):
        page = page.replace(f"<!-- {mark} -->", text).replace(f"/* {mark} */", text)
    return page


def copy_scripts(folder: Path) -> None:
    """Copy reveal.js beside the slides."""
    reveal = installed("sphinx_revealjs", "_static", "revealjs")
    for part in ("LICENSE", "dist/reset.css", "dist/reveal.css", "dist/reveal.js"):
        target = folder / "reveal" / Path(part).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(reveal / part, target)
    style = folder / "reveal" / "reveal.css"
    style.write_text(ARROWS.sub(r"\1>.controls", style.read_text("utf-8")), encoding="utf-8")
    shutil.copy(reveal / "plugin" / "notes" / "notes.js", folder / "reveal")


# The concept inventory.

SHEET = "One answer to each. If you do not know, do not guess: write a question mark."


def inventory(page: str) -> str:
    """Return the questions of the concept inventory, without the key."""
    questions = page.split("### The twelve questions\n", 1)[1].split("\n### ", 1)[0]
    plain = COMMENT.sub("", DETAILS.sub("", questions))
    spaced = re.sub(r"\n{3,}", "\n\n", plain).strip()
    return f"# Twelve questions\n\n{SHEET}\n\n{spaced}\n"


# All of them.


def title_of(notebook: NotebookNode) -> str:
    """Return a chapter's title."""
    return notebook.cells[0].source.splitlines()[0].removeprefix("# ")


def build(
    paths: list[Path], folder: Path = EDITIONS, *, keep_outputs: bool = False
) -> list[Path]:
    """Write all editions of the chapters; return what was written."""
    written = []
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("student", "instructor", "slides"):
        (folder / name).mkdir(parents=True)
    copy_scripts(folder / "slides")
    decks = []
    page = (ROOT / "appendix" / "instructors.md").read_text(encoding="utf-8")
    (folder / "inventory.md").write_text(inventory(page), encoding="utf-8", newline="\n")
    for path in paths:
        chapter = nbformat.read(path, as_version=4)
        decks.append(deck(chapter, title_of(chapter)))
        editions = {
            f"student/{path.name}": dumps(
                student(chapter, path.stem, keep_outputs=keep_outputs)
            ),
            f"instructor/{path.name}": dumps(unfolded(chapter, path.stem)),
            f"slides/{path.stem}.html": decks[-1],
        }
        for name, text in editions.items():
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
            written.append(folder / name)
    style = formulas.style("".join(decks))
    (folder / "slides" / "formulas.css").write_text(style, encoding="utf-8", newline="\n")
    return written


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    arguments.add_chapters(parser)
    parser.add_argument("--keep-outputs", action="store_true", help="students see outputs")
    options = parser.parse_args(argv)
    paths = options.chapters
    build(paths, keep_outputs=options.keep_outputs)
    print(f"{len(paths)} chapters as student and instructor notebooks and as slides: "
          f"{EDITIONS.relative_to(ROOT)}")  # fmt: skip
    return 0
