"""What has to hold in a chapter and nbval cannot see, as functions over a chapter.

Each guard takes a `Chapter` and returns complaints, each naming the cell; no complaint, no
output. `test_notebooks.py` applies them to the book and proves what each of them catches.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

import nbformat
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

from tools import canonical, listings, toc

MAX_BYTES = 1_000_000
MAX_CELL_LINES = 15

# Tags that mean something here. Any other is a slip of the pen that would silently do nothing.
PLUMBING_TAGS = {"hide-cell", "hide-input", "remove-cell", "remove-input"}
KNOWN_TAGS = PLUMBING_TAGS | {"hide-output", "nbval-ignore-output", "raises-exception"}
NBVAL_COMMENT = re.compile(r"#\s*(NBVAL_|PYTEST_VALIDATE_)")

# A chapter imports what Colab has, and attnlib.
IMPORTABLE = {"IPython", "attnlib", "matplotlib", "numpy", "torch", *sys.stdlib_module_names}

ADDRESS = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")
MACHINE_PATH = re.compile(
    rf"(?<![\w.])/(?:{'|'.join(('Users', 'content', 'home', 'opt', 'root', 'tmp', 'work'))})/\w"
    r"|site-packages|dist-packages|\b[A-Z]:\\\w"
)
DATE = re.compile(r"\b(?:19|20)\d\d-[01]\d-[0-3]\d\b|\b[0-2]?\d:[0-5]\d:[0-5]\d\b")
TIMING = re.compile(
    r"\d\s?(?:ns|[uµμ]s|ms|s|secs?|seconds?|minutes?)(?![\w²^*/-])"
    r"|\d\s?(?:it|tok|tokens?|[KMGT]i?B|[MGT]?FLOPs?)/s\b|\bWall time\b"
)
PACKED = re.compile(r'"(?:u16|u8|f16):[A-Za-z0-9+/=]*"')  # a widget's numbers, in base64

# MyST that Colab, JupyterLab and GitHub show as raw text.
MYST = {
    "a directive": re.compile(r"^\s*(?:`{3,}|~{3,}|:{3,})\s*\{", re.MULTILINE),
    "a colon fence": re.compile(r"^\s*:{3,}", re.MULTILINE),
    "a role": re.compile(r"\{[A-Za-z][\w:.+-]*\}`"),
    "a label on a formula": re.compile(r"\$\$\s*\([\w:.-]+\)"),
    "a link target": re.compile(r"^\([\w:.-]+\)=\s*$", re.MULTILINE),
    "a comment": re.compile(r"^%", re.MULTILINE),
    "a substitution": re.compile(r"\{\{.*?\}\}"),
    "a formula without dollars": re.compile(r"^\s*\\begin\{\w+\*?\}", re.MULTILINE),
}
FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})(?!\s*\{).*?^\1\2`*\s*$", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"(?<![`}])(`+)(?!`).+?(?<!`)\1(?!`)")
DISPLAY_MATHS = re.compile(r"\$\$.+?\$\$", re.DOTALL)

LINK = re.compile(r"\]\(\s*<?([^)\s>]+)|<(?:a|img)\b[^>]*?\b(?:href|src)=[\"']([^\"']+)")
ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)", re.IGNORECASE)


class Chapter(NamedTuple):
    """A chapter.

    Attributes:
        path: of its notebook.
        text: the notebook as it is stored.
        notebook: the same, parsed.
        earlier: names of the chapters that come before it in the book.
    """

    path: Path
    text: str
    notebook: NotebookNode
    earlier: tuple[str, ...] = ()


def load(path: Path) -> Chapter:
    """Return the chapter stored at a path."""
    text = path.read_text(encoding="utf-8")
    return Chapter(path, text, nbformat.reads(text, as_version=4), tuple(toc.earlier(path)))


def tags(cell: NotebookNode) -> set[str]:
    """Return a cell's tags."""
    return set(cell.metadata.get("tags", []))


def cells(chapter: Chapter, kind: str) -> Iterator[tuple[str, NotebookNode]]:
    """Yield the cells of a kind, each with what a complaint calls it."""
    for number, cell in enumerate(chapter.notebook.cells, start=1):
        if cell.cell_type == kind:
            line = cell.source.strip().partition("\n")[0]
            yield f"cell {number} ({line[:40]})", cell


def prose(source: str) -> str:
    """Return Markdown without its code blocks and code spans."""
    return INLINE_CODE.sub("", FENCE.sub("", source))


def output_texts(cell: NotebookNode) -> Iterator[str]:
    """Yield all text that a cell's outputs hold."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        elif output.output_type == "error":
            yield "\n".join((output.ename, output.evalue, *output.traceback))
        else:
            for kind, data in output.data.items():
                if not kind.startswith("image/") or kind == "image/svg+xml":
                    yield data if isinstance(data, str) else repr(data)


def executed_in_order(chapter: Chapter) -> list[str]:
    """Counts run 1..n: nbval does not compare a cell without one."""
    return [
        f"{name}: execution count {cell.execution_count}, expected {wanted}"
        for wanted, (name, cell) in enumerate(cells(chapter, "code"), start=1)
        if cell.execution_count != wanted
    ]


def errors_are_announced(chapter: Chapter) -> list[str]:
    """An error is stored exactly where a cell is tagged for it, and is compared.

    nbval compares a stored error's name and message, so that a tagged cell which no longer
    raises fails. Without a stored error, or with its output ignored, it would pass.
    """
    complaints = []
    for name, cell in cells(chapter, "code"):
        raised = any(output.output_type == "error" for output in cell.outputs)
        announced = "raises-exception" in tags(cell)
        if raised and not announced:
            complaints.append(f"{name}: stores an error and is not tagged raises-exception")
        if announced and not raised:
            complaints.append(f"{name}: tagged raises-exception and stores no error")
        if announced and "nbval-ignore-output" in tags(cell):
            complaints.append(f"{name}: an expected error must be compared")
    return complaints


def nothing_on_stderr(chapter: Chapter) -> list[str]:
    """A warning on the page is the author's to deal with, not the reader's."""
    return [
        f"{name}: writes to stderr: {output.text.strip()[:80]}"
        for name, cell in cells(chapter, "code")
        for output in cell.outputs
        if output.get("name") == "stderr"
    ]


def outputs_are_stable(chapter: Chapter) -> list[str]:
    """No output holds what differs elsewhere or tomorrow; timings are tagged as such."""
    complaints = []
    for name, cell in cells(chapter, "code"):
        text = PACKED.sub("", "\n".join(output_texts(cell)))
        kinds = {"a memory address": ADDRESS, "a path of this machine": MACHINE_PATH}
        if "nbval-ignore-output" not in tags(cell):
            kinds |= {"a date or time of day": DATE, "a timing": TIMING}
        for what, pattern in kinds.items():
            if found := pattern.search(text):
                complaints.append(f"{name}: output holds {what}: {found[0]!r}")
    return complaints


def is_small(chapter: Chapter) -> list[str]:
    """A chapter stays under a megabyte."""
    size = len(chapter.text.encode())
    return [f"{size:,} bytes, at most {MAX_BYTES:,}"] if size > MAX_BYTES else []


def is_normal(chapter: Chapter) -> list[str]:
    """The file is in the form that `make normalise` writes."""
    if canonical.canonical_text(chapter.text, chapter.path.stem) == chapter.text:
        return []
    return ["not in canonical form: `make normalise`"]


def reads_well_everywhere(chapter: Chapter) -> list[str]:
    """Prose has nothing that Colab, JupyterLab or GitHub would show raw."""
    complaints = []
    for name, cell in cells(chapter, "markdown"):
        text = prose(cell.source)
        outside_maths = DISPLAY_MATHS.sub("", text)
        for what, pattern in MYST.items():
            # A formula's own lines may begin with \begin or %, and its label follows it.
            searched = text if what == "a label on a formula" else outside_maths
            if found := pattern.search(searched):
                complaints.append(f"{name}: {what}: {found[0].strip()!r}")
    return complaints


def pictures_have_words(chapter: Chapter) -> list[str]:
    """A cell shows at most one image and says in its metadata what can be seen on it."""
    complaints = []
    for name, cell in cells(chapter, "code"):
        data = [output.get("data", {}) for output in cell.outputs]
        images = sum(any(kind.startswith("image/") for kind in bundle) for bundle in data)
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        if images > 1:
            complaints.append(f"{name}: {images} images share one alternative text")
        if images and len(alt.split()) < 3:
            complaints.append(f"{name}: image without words in metadata mystnb.image.alt")
    return complaints


def cells_are_short(chapter: Chapter) -> list[str]:
    """A cell that a reader reads fits in a glance; listings and plumbing may be longer."""
    complaints = []
    for name, cell in cells(chapter, "code"):
        lines = len(cell.source.splitlines())
        exempt = listings.listed_names(cell) or tags(cell) & PLUMBING_TAGS
        if lines > MAX_CELL_LINES and not exempt:
            complaints.append(f"{name}: {lines} lines, at most {MAX_CELL_LINES}")
    return complaints


def imports_are_everywhere(chapter: Chapter) -> list[str]:
    """A chapter imports only attnlib and what Colab has."""
    complaints = []
    for name, cell in cells(chapter, "code"):
        for node in ast.walk(ast.parse(TransformerManager().transform_cell(cell.source))):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            else:
                continue
            for module in modules:
                if module.partition(".")[0] not in IMPORTABLE:
                    complaints.append(f"{name}: imports {module}, which Colab may lack")
    return complaints


def links_lead_somewhere(chapter: Chapter) -> list[str]:
    """A link to a file has a file at its end; an anchor in it is Sphinx's to check."""
    complaints = []
    for name, cell in cells(chapter, "markdown"):
        for match in LINK.finditer(prose(cell.source)):
            link = match[1] or match[2]
            target = unquote(link.partition("#")[0])
            if ELSEWHERE.match(link) or not target:
                continue
            if not (chapter.path.parent / target).exists():
                complaints.append(f"{name}: link to {link}, which is not there")
    return complaints


def begins_with_title(chapter: Chapter) -> list[str]:
    """The first cell is the title, and the only heading of its level."""
    found = [
        line
        for _, cell in cells(chapter, "markdown")
        for line in FENCE.sub("", cell.source).splitlines()
        if line.startswith("# ")
    ]
    first = chapter.notebook.cells[0]
    if first.cell_type == "markdown" and first.source.startswith("# ") and len(found) == 1:
        return []
    return [f"a chapter begins with its one `# Title`; found {found}"]


def begins_with_check(chapter: Chapter) -> list[str]:
    """The first code cell looks for attnlib and says what to do without it."""
    name, cell = next(cells(chapter, "code"), ("no code cell", None))
    words = ("attnlib", "ModuleNotFoundError")
    if cell is not None and all(word in cell.source for word in words):
        return []
    return [f"{name}: the first code cell must look for attnlib and raise what to do"]


def every_cell_counts(chapter: Chapter) -> list[str]:
    """No cell is skipped, and no tag or comment does something unheard of."""
    complaints = []
    for name, cell in cells(chapter, "code"):
        for tag in sorted(tags(cell) - KNOWN_TAGS):
            complaints.append(f"{name}: tag {tag!r} is not one of {sorted(KNOWN_TAGS)}")
        if NBVAL_COMMENT.search(cell.source):
            complaints.append(f"{name}: steers nbval by a comment; use a tag")
    return complaints


def listings_are_true(chapter: Chapter) -> list[str]:
    """A listing cell shows the library's own source."""
    complaints, before = [], []
    for name, cell in cells(chapter, "code"):
        names = listings.listed_names(cell)
        try:
            if names and cell.source != listings.cell_source(names, before):
                complaints.append(f"{name}: differs from attnlib: `make listings`")
            before += names
        except listings.ListingError as error:
            complaints.append(f"{name}: {error}")
    return complaints


GUARDS: tuple[Callable[[Chapter], list[str]], ...] = (
    executed_in_order,
    errors_are_announced,
    nothing_on_stderr,
    outputs_are_stable,
    is_small,
    is_normal,
    reads_well_everywhere,
    pictures_have_words,
    cells_are_short,
    imports_are_everywhere,
    links_lead_somewhere,
    begins_with_title,
    begins_with_check,
    every_cell_counts,
    listings_are_true,
)
