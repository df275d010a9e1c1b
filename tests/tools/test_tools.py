"""The tools: listings that cut docstrings only, and notebooks in canonical form."""

from __future__ import annotations

import ast
import base64
import inspect
import io

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image, ImageChops, ImageDraw

import attnlib
from attnlib.book.listings import changed_lines, cut_docstrings
from tools import browser, canonical, execute, listings

SOURCE = '''\
def f(x):
    """Summary of f.

    More about f.
    """
    # A comment stays.
    text = """not a docstring

    at all"""

    class Inner:
        r"""
        Summary of Inner, µ before it: \\d.

        More.
        """

        def method(self):
            """One line stays."""
            return text

    async def g():
        "Short quotes\\
        over two lines."

    return Inner
'''

CUT = '''\
def f(x):
    """Summary of f."""
    # A comment stays.
    text = """not a docstring

    at all"""

    class Inner:
        r"""Summary of Inner, µ before it: \\d."""

        def method(self):
            """One line stays."""
            return text

    async def g():
        "Short quotes"

    return Inner'''


def test_docstrings_are_cut_and_nothing_else():
    assert cut_docstrings(SOURCE).replace('quotes\\"', 'quotes"') == CUT


def test_changed_lines_shows_what_goes_and_what_comes():
    shown = changed_lines(
        attnlib.MultiHeadAttention, attnlib.GroupedQueryAttention
    ).splitlines()
    assert "+        self.n_kv_heads = check_kv_heads(n_heads, n_kv_heads)" in shown
    assert "-            k, v = cache.update(k, v)  # (B, H, S, D)" in shown
    assert not any(line.startswith(("+", "-")) and "q_proj" in line for line in shown)
    assert changed_lines(attnlib.KVCache, attnlib.KVCache) == ""


def without_docstrings(source: str) -> str:
    """Return a dump of the code in which every docstring is the same."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(node, ast.FunctionDef | ast.ClassDef):
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                first.value.value = "docstring"
    return ast.dump(tree)


def public_names() -> list[str]:
    """Return the names of attnlib that are listed."""
    return [name for name in attnlib.__all__ if name not in listings.NOT_LISTED]


@pytest.mark.parametrize("name", public_names())
def test_a_listing_is_the_same_code(name):
    source = inspect.getsource(listings.resolve(name))
    assert without_docstrings(listings.listing(name)) == without_docstrings(source)


def test_a_listing_of_nothing_is_refused():
    with pytest.raises(listings.ListingError, match="no function or class 'nothing'"):
        listings.resolve("nothing")


def test_a_name_means_the_object_even_behind_a_module():
    assert listings.identity("masks.causal_mask") == listings.identity("causal_mask")


def test_a_long_or_wide_listing_is_refused(monkeypatch):
    monkeypatch.setattr(listings, "MAX_LINES", 3)
    with pytest.raises(listings.ListingError, match="lines, at most 3: split it"):
        listings.listing("causal_mask")
    monkeypatch.undo()
    monkeypatch.setattr(listings, "MAX_COLUMNS", 20)
    with pytest.raises(listings.ListingError, match="columns wide, at most 20"):
        listings.listing("causal_mask")


def untidy_notebook() -> nbformat.NotebookNode:
    """Return a notebook as an editor leaves it."""
    widget = {canonical.WIDGET_VIEW: {"model_id": "random"}, "text/html": "<b>x</b>"}
    return new_notebook(
        metadata={"kernelspec": {"name": "mine", "display_name": "Mine"}, "authors": ["me"]},
        cells=[
            new_markdown_cell("# Title\n\n"),
            new_code_cell(
                "f()\n",
                execution_count=7,
                metadata={"execution": {"iopub.busy": "then"}, "tags": ["hide-input"]},
                outputs=[
                    new_output("stream", name="stdout", text="a\n"),
                    new_output("stream", name="stdout", text="b\n"),
                    new_output("stream", name="stderr", text="c\n"),
                    new_output("execute_result", data=widget, execution_count=7),
                ],
            ),
            new_code_cell("  \n"),
            new_code_cell("f()", execution_count=9),
            new_code_cell(
                "g()",
                execution_count=11,
                outputs=[new_output("error", ename="E", evalue="v", traceback=["a", "b"])],
            ),
            new_code_cell("never_run()"),
        ],
    )


def test_canonical_form():
    result = canonical.normalise(untidy_notebook(), "00-sample")
    title, first, second, failing, never = result.cells
    assert result.metadata == canonical.METADATA
    assert title.source == "# Title"
    assert first.metadata == {
        "tags": ["hide-input"],
        "jupyter": {"source_hidden": True},
        "cellView": "form",
    }
    streams = [output.get("text") for output in first.outputs]
    assert streams == ["a\nb\n", "c\n", None]
    assert first.outputs[-1].data == {"text/html": "<b>x</b>"}
    assert first.outputs[-1].execution_count == 1
    counts = [first.execution_count, second.execution_count, failing.execution_count]
    assert counts == [1, 2, 3]
    assert never.execution_count is None, "a cell that never ran must not look as if it had"
    assert first.id != second.id, "equal cells need ids of their own"
    assert failing.outputs[0].traceback == ["E: v"]


def test_canonical_form_is_a_fixed_point():
    once = canonical.canonical_text(nbformat.writes(untidy_notebook()), "00-sample")
    assert canonical.canonical_text(once, "00-sample") == once
    assert once.endswith("}\n")


def drawn(mode: str) -> Image.Image:
    """Return a picture with thousands of colours: black bars on white, discs that overlap."""
    large = Image.new("RGB", (1024, 1024), "white")
    draw = ImageDraw.Draw(large, "RGBA")
    for x in range(512, 1024, 32):
        draw.rectangle((x, 0, x + 15, 1024), "black")
    for i in range(40):
        x, y = 97 * i % 380, 61 * i % 900
        color = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")[i % 4] + "80"
        draw.ellipse((x, y, x + 100, y + 100), color)
    return large.resize((256, 256), Image.Resampling.BOX).convert(mode)


def as_png(picture: Image.Image) -> bytes:
    """Return a picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, "PNG", dpi=(200, 200))
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_picture_is_stored_small_and_looks_the_same(mode):
    before = as_png(drawn(mode))
    after = canonical.small_png(before)
    assert len(after) < len(before) / 2
    with Image.open(io.BytesIO(after)) as picture:
        assert (picture.mode, picture.size) == ("P", (256, 256))
        assert round(picture.info["dpi"][0]) == 200
        off = ImageChops.difference(picture.convert("RGB"), drawn("RGB"))
    assert max(high for _, high in off.getextrema()) < 24
    assert off.crop((128, 0, 256, 256)).getbbox() is None, "black and white must stay so"


def test_a_picture_that_is_small_or_translucent_is_left_alone():
    small = canonical.small_png(as_png(drawn("RGB")))
    assert canonical.small_png(small) == small
    glass = drawn("RGBA")
    glass.putalpha(128)
    assert canonical.small_png(as_png(glass)) == as_png(glass)


def test_pictures_are_stored_small_once():
    picture = base64.b64encode(as_png(drawn("RGBA"))).decode()
    output = new_output("display_data", data={"image/png": picture})
    sample = new_notebook(cells=[new_code_cell("plot()", outputs=[output])])
    once = canonical.canonical_text(nbformat.writes(sample), "00-sample")
    stored = nbformat.reads(once, as_version=4).cells[0].outputs[0].data["image/png"]
    assert len(stored) < len(picture) / 2
    assert canonical.canonical_text(once, "00-sample") == once


def test_only_timings_may_differ_unnoticed():
    def text(timing: str, result: str) -> str:
        tagged = {"tags": ["nbval-ignore-output"]}
        outputs = [[new_output("stream", text=words)] for words in (timing, result)]
        cells = [
            new_code_cell("t()", id="a", metadata=tagged, outputs=outputs[0]),
            new_code_cell("r()", id="b", outputs=outputs[1]),
        ]
        return nbformat.writes(new_notebook(cells=cells))

    assert execute.equal_except_timings(text("1 ms", "4"), text("2 ms", "4"))
    assert not execute.equal_except_timings(text("1 ms", "4"), text("1 ms", "5"))


def test_a_failing_chapter_is_named_and_left_alone(tmp_path, capsys):
    path = tmp_path / "00-sample.ipynb"
    before = nbformat.writes(new_notebook(cells=[new_code_cell("1 / 0")]))
    path.write_text(before, encoding="utf-8")
    assert execute.main([str(path)]) == 1
    shown = capsys.readouterr()
    assert "00-sample.ipynb: FAILED" in shown.out
    assert "00-sample.ipynb, code cell 1:\n\n1 / 0" in shown.err
    assert "ZeroDivisionError: division by zero" in shown.err
    assert path.read_text(encoding="utf-8") == before


def test_a_chosen_browser_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("CHROMIUM", "no-such-browser")
    with pytest.raises(browser.BrowserNotFoundError, match="'no-such-browser'"):
        browser.find()
