"""Bring notebooks to their canonical form, which is what git stores.

    python -m tools normalise                     every chapter, without executing it
    python -m tools normalise chapters/scaling.*  these only
    python -m tools normalise --check             write nothing; fail if one is not canonical

The form depends on nothing but what a chapter says and prints, so executing a chapter twice
changes no byte, and a diff shows what changed. Pictures become palette PNGs, a third of the
size.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
from collections import Counter
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from PIL import Image

from tools import arguments

# A chapter says what it needs to run and nothing about the machine on which it ran.
# `accelerator` and `colab` are read by Colab: ask for a GPU, keep no link to a user's drive.
METADATA = {
    "accelerator": "GPU",
    "colab": {"provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
KEPT_CELL_METADATA = ("attnlib", "mystnb", "tags")
PNG = "image/png"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WIDGET_CODE = re.compile(r'<(style|script) data-attnlib="(\w+)">.*?</\1>', re.DOTALL)


def normalise(notebook: NotebookNode, chapter: str) -> NotebookNode:
    """Return the canonical form of a chapter; the notebook itself is not changed.

    Args:
        notebook: a notebook in format 4.
        chapter: its name without suffix, part of the cell ids.
    """
    result = nbformat.v4.new_notebook(metadata=METADATA)
    seen: Counter[tuple[str, str]] = Counter()
    count = 0
    for cell in notebook.cells:
        source = cell.source.rstrip()
        if not source:
            continue
        occurrence = seen[cell.cell_type, source]
        seen[cell.cell_type, source] += 1
        cell_id = cell_id_of(chapter, cell.cell_type, source, occurrence)
        metadata = canonical_metadata(cell)
        if cell.cell_type == "code":
            executed = cell.execution_count is not None
            count += executed
            number = count if executed else None
            new = nbformat.v4.new_code_cell(
                source,
                id=cell_id,
                metadata=metadata,
                execution_count=number,
                outputs=canonical_outputs(cell.outputs, number),
            )
        else:
            make = getattr(nbformat.v4, f"new_{cell.cell_type}_cell")
            new = make(source, id=cell_id, metadata=metadata)
            if cell.get("attachments"):
                new.attachments = cell.attachments
        result.cells.append(new)
    result.nbformat_minor = 5
    return result


def cell_id_of(chapter: str, cell_type: str, source: str, occurrence: int) -> str:
    """Return an id that depends only on the cell's source and its place among equal cells."""
    text = "\0".join((chapter, cell_type, source, str(occurrence)))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def canonical_metadata(cell: NotebookNode) -> dict:
    """Return the metadata that chapters use; timings, scroll states and the like are dropped.

    The tag ``hide-input`` hides the input in the book. JupyterLab and Colab each have their own
    key for that, which is derived from the tag.
    """
    kept = {key: cell.metadata[key] for key in KEPT_CELL_METADATA if cell.metadata.get(key)}
    if cell.cell_type == "code" and "hide-input" in kept.get("tags", []):
        kept["jupyter"] = {"source_hidden": True}
        kept["cellView"] = "form"
    return kept


def canonical_outputs(outputs: list[NotebookNode], number: int | None) -> list[NotebookNode]:
    """Return outputs without what changes from run to run.

    Consecutive pieces of one stream are joined. A traceback is cut to its last line, because
    its frames contain paths. A widget's view, whose id is random, is dropped in favour of its
    HTML, which gets attnlib's current code. Pictures are compressed.
    """
    result: list[NotebookNode] = []
    for output in outputs:
        new = nbformat.from_dict(output)
        if new.output_type == "stream":
            if result and result[-1].get("name") == new.name:
                result[-1].text += new.text
                continue
        elif new.output_type == "error":
            new.traceback = [f"{new.ename}: {new.evalue}"]
        else:
            new.pop("transient", None)
            if "text/html" in new.data:
                new.data.pop(WIDGET_VIEW, None)
                new.data["text/html"] = WIDGET_CODE.sub(current_code, new.data["text/html"])
            if PNG in new.data:
                picture = small_png(base64.b64decode(new.data[PNG]))
                new.data[PNG] = base64.b64encode(picture).decode("ascii")
            if new.output_type == "execute_result":
                new.execution_count = number
        result.append(new)
    return result


def current_code(element: re.Match) -> str:
    """Return attnlib's current code for a style or script element of a widget's HTML."""
    from attnlib.book.widgets import base  # only where a chapter has a widget

    make = {"style": base.style_element, "script": base.script_element}[element[1]]
    return make(element[2])


def small_png(picture: bytes) -> bytes:
    """Return a PNG with a palette of 256 colours that looks the same.

    A figure has few colours, plus their shades at the edges of its letters. Without dithering,
    flat areas stay flat. A picture that has a palette, is translucent or would not shrink is
    returned unchanged, so applying this twice is the same as applying it once.

    Args:
        picture: the bytes of a PNG file.

    Returns:
        The bytes of the smaller of the two files.
    """
    with Image.open(io.BytesIO(picture)) as image:
        opaque = image.convert("RGB")
        translucent = "A" in image.mode and image.getchannel("A").getextrema()[0] < 255
        if image.mode == "P" or translucent:
            return picture
        dpi = {"dpi": image.info["dpi"]} if "dpi" in image.info else {}
    few = opaque.quantize(
        256, method=Image.Quantize.MEDIANCUT, kmeans=1, dither=Image.Dither.NONE
    )
    file = io.BytesIO()
    few.save(file, "PNG", optimize=True, **dpi)
    return min(picture, file.getvalue(), key=len)


def dumps(notebook: NotebookNode) -> str:
    """Return the text of a notebook file: sorted keys, indent 1, one newline at the end."""
    nbformat.validate(notebook)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def canonical_text(text: str, chapter: str) -> str:
    """Return the canonical form of the text of a notebook file."""
    return dumps(normalise(nbformat.reads(text, as_version=4), chapter))


def write_if_changed(path: Path, text: str) -> bool:
    """Write the file if its text differs; return whether it did."""
    if path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8", newline="\n")
    return True


def main(argv: list[str]) -> int:
    """Run the tool; return its exit status."""
    parser = arguments.parser(__doc__)
    arguments.add_chapters(parser)
    parser.add_argument("--check", action="store_true", help="write nothing")
    options = parser.parse_args(argv)
    paths = options.chapters
    texts = {path: path.read_text(encoding="utf-8") for path in paths}
    changed = [p for p, text in texts.items() if canonical_text(text, p.stem) != text]
    for path in changed:
        print(f"{path.name}: {'not canonical' if options.check else 'normalised'}")
        if not options.check:
            write_if_changed(path, canonical_text(texts[path], path.stem))
    if options.check and changed:
        print("`make normalise` brings them to canonical form.", file=sys.stderr)
        return 1
    print(f"{len(paths)} chapters in canonical form")
    return 0
