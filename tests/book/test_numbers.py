"""Numbers of the prose: computed, printed by a cell or sourced, and the tool that looks."""

from __future__ import annotations

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from attnlib import MODELS, kv_cache_bytes
from tools import check_numbers

V3 = 'kv_cache_bytes(MODELS["DeepSeek-V3 / R1"].geometry, 1)'
PAPER = "[Vaswani et al.](https://arxiv.org/abs/1706.03762)"


@pytest.mark.parametrize("path", check_numbers.pages(), ids=lambda path: path.stem)
def test_every_number_of_the_book_is_verified(path):
    """Catches a number that nothing verifies, and one that the library no longer gives."""
    complaints = check_numbers.findings(check_numbers.load(path))
    assert not complaints, "\n".join(complaints)


def test_the_pages_are_the_books():
    names = {path.name for path in check_numbers.pages()}
    assert {"intro.md", "kv-cache.ipynb"} <= names


def printing(text: str, *, source: str = "run()", **metadata):
    """Return a code cell that prints a text."""
    output = new_output("stream", name="stdout", text=text)
    return new_code_cell(source, outputs=[output], metadata=metadata)


def complaints(*cells) -> list[str]:
    """Return what is wrong with a page of these cells, prose given as text."""
    made = [new_markdown_cell(cell) if isinstance(cell, str) else cell for cell in cells]
    return check_numbers.findings(check_numbers.of_notebook("page", new_notebook(cells=made)))


SOUND = {
    "an expression": f"It keeps 70,272 bytes<!-- = {V3} --> a token.",
    "rounded to what is printed": f"It keeps 68.6 KiB<!-- = {V3} / KiB --> of them.",
    "a whole number from a fraction": "At about 171<!-- = 512 * 256 / 768 --> tokens.",
    "a percentage": "It saves 82 %<!-- = 100 * (1 - 34560 / 194560) --> of it.",
    "behind bold, code and formulas": "**12.5**<!-- = 25 / 2 -->, $2.25$<!-- = 9 / 4 -->.",
    "an expression over two lines": "It is 1,024<!-- = 2 **\n10 --> wide.",
    "a number named": "![bars: 32,768](a.png)<!-- 32,768 = 2 * 128 * 128 -->",
    "a choice": "Take 80 GB<!-- assumed --> of memory.",
    "a source in the paragraph": f"The base has 65 million parameters ({PAPER}).",
    "a source in the row": f"| {PAPER} | 25.8 |\n|---|---|\n| {PAPER} | 24.9 |",
    "a source in the caption": f"See {PAPER}:\n\n| heads | BLEU |\n|---|---|\n| 8 | 25.8 |",
    "a source below": f"| heads | BLEU |\n|---|---|\n| 8 | 25.8 |\n\nFrom {PAPER}.",
    "a source in the head": f"| {PAPER} |\n|---|\n| 25.8 |",
    "a source above a list": f"As {PAPER} has it:\n\n- 25.8 BLEU\n- 65 million",
    "years": "In 2017 and in 2024.",
    "references": "(Table 3, section 3.21, figures 4.1 and 4.2, chapter 4 of the book by Ng)",
    "names": "Llama-3.1 405B, Qwen2.5-72B, GQA-8, H100, bfloat16 and gpt-oss-120b",
    "small counts": "Take 8 heads of width 64, and 2 of them share.",
    "code": "Write `x * 3.75` or\n\n```\n1,234\n```\n",
    "sizes in formulas": "With $D = 128$ and $$T = 4096$$ it is easy.",
    "addresses": "[here](chapters/04.ipynb#a-1234) and ![](images/512.png)",
    "a version": "Since PyTorch 2.5 and transformers 5.23.",
}


@pytest.mark.parametrize("text", SOUND.values(), ids=SOUND)
def test_sound_prose_is_left_in_peace(text):
    assert complaints(text) == []


WRONG = {
    "nothing verifies it": ("It keeps 70,272 bytes.", "70,272 has no cell, no source"),
    "three digits": ("It has 576 of them.", "576 has no"),
    "a decimal": ("It is 3.56 of it.", "3.56 has no"),
    "a percentage": ("It saves 93 % of it.", "93 has no"),
    "a ratio": ("It is 5x as fast, or 7 times.", "5x has no"),
    "a unit": ("It takes 4 GiB.", "4 has no"),
    "a word for a power of ten": ("It has 65 million.", "65 has no"),
    "a large suffix": ("It reads 128K tokens.", "128K has no"),
    "2048 is no year": ("It has 2048 tokens.", "2048 has no"),
    "a result in a formula": (r"So $e \approx 2.7$.", "2.7 has no"),
    "a wrong number": (f"70,000 bytes<!-- = {V3} -->", "70,000 is printed, `kv_cache"),
    "wrong in its last digit": ("It is 0.34<!-- = 1 / 3 -->.", "gives 0.33"),
    "an integer is exact": ("It is 1,024<!-- = 1025 -->.", "gives 1025"),
    "a broken expression": ("It is 2.0<!-- = 1 / 0 -->.", "ZeroDivisionError"),
    "an unknown name": ("It is 2.0<!-- = no_such(3) -->.", "NameError"),
    "an unknown model": ('It is 2.0<!-- = MODELS["X"] -->.', "UnknownModelError"),
    "no number": ("It is 2.0<!-- = True -->.", "expected a number, got True"),
    "nothing to verify": ("It is many<!-- = 3 -->.", "no number for `3` to verify"),
    "named and not there": ("It is 2.5.<!-- 3.5 = 7 / 2 -->", "no 3.5 for `7 / 2`"),
    "an unknown comment": ("It is<!-- TODO -->.", "is neither"),
    "at the start of a line": ("It is\n<!-- assumed -->2.5.", "ends the paragraph"),
    "not what a cell prints": ('It is 2.5<!-- = printed("2.5") -->.', "no cell of page has"),
    "a source elsewhere": (f"{PAPER} has more.\n\nIt takes 25.8 of it.", "25.8 has no"),
    "a link within the book": ("The chapter [on it](04.ipynb): 25.8 of it.", "25.8 has no"),
    "a row without its source": (
        f"| {PAPER} | 24.9 |\n|---|---|\n| {PAPER} | 25.8 |\n\n| x |\n|---|\n| 25.4 |",
        "25.4 has no",
    ),
    "the second of two": ("2.5<!-- = 5 / 2 --> and 3.5", "3.5 has no"),
}


@pytest.mark.parametrize(("text", "message"), WRONG.values(), ids=WRONG)
def test_unsound_prose_is_caught(text, message):
    found = complaints(text)
    assert any(message in complaint for complaint in found), found


def test_a_cell_verifies_the_numbers_in_its_source_and_output():
    cell = printing("cache 1,152 bytes, 3.56 x", source="S = 8_192")
    assert complaints(cell, "It is 1,152 bytes, 3.56 times less, at 8,192.") == []
    [complaint] = complaints(cell, "It is 1,153 bytes.")
    assert "1,153 has no cell" in complaint


def test_few_digits_are_verified_within_their_section_only():
    """Catches a 0.5 that is right somewhere else in the chapter."""
    cell = printing("0.5 and 3.56")
    assert complaints("## One", cell, "It is 0.5.") == []
    assert complaints("## One", cell, "## Two\n\nIt is 3.56.") == []
    [complaint] = complaints("## One", cell, "## Two\n\nIt is 0.5.")
    assert "0.5 has no cell" in complaint


def test_a_timing_verifies_nothing():
    cell = printing("took 3.56 ms", tags=["nbval-ignore-output"])
    assert len(complaints(cell, "It takes 3.56 ms.")) == 1


def test_a_widgets_table_verifies_numbers_and_its_code_does_not():
    shown = "<table><td title='9.87'>1,234</td></table><script>let a = 5678;</script>"
    cell = new_code_cell("W()", outputs=[new_output("display_data", {"text/html": shown})])
    assert complaints(cell, "It has 1,234 of them.") == []
    assert len(complaints(cell, "It has 5,678 of 9.87.")) == 2


def test_an_expression_may_use_what_a_cell_prints():
    text = 'It is about 27,000<!-- = round(printed("26,703"), -3) -->.'
    assert complaints(printing("from 26,703 tokens on"), text) == []
    assert len(complaints(printing("from 25,000 tokens on"), text)) == 1


def test_a_complaint_names_the_page_and_the_words(capsys, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# A page\n\nHere stand 1,234 words.\n", encoding="utf-8")
    assert check_numbers.main([str(page)]) == 1
    shown = capsys.readouterr().out
    assert 'page.md, "Here stand 1,234 words."' in shown
    assert "numbers not verified: 1" in shown


def test_the_expression_of_these_tests_is_the_librarys():
    geometry = MODELS["DeepSeek-V3 / R1"].geometry
    assert check_numbers.namespace()["kv_cache_bytes"](geometry, 1) == kv_cache_bytes(
        geometry, 1
    )
