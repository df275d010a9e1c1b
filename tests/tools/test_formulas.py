"""Formulas: TeX becomes MathML, and the font has every character that is drawn."""

import base64
import io
import re

import pytest
from fontTools.ttLib import TTFont

from tools import formulas


def font_of(style: str) -> TTFont:
    """Return the font that stands in a style sheet."""
    data = re.search(r"base64,([^)]*)\)", style)[1]
    return TTFont(io.BytesIO(base64.b64decode(data)))


def test_a_formula_is_mathml_of_its_kind():
    inline = formulas.mathml(r" \frac{q^\top k}{\sqrt{D}} ", is_display=False)
    assert inline.startswith("<math><mfrac>")
    assert "<msqrt>" in inline
    assert formulas.mathml("x < y", is_display=True).startswith('<math display="block">')
    assert "<mo>&lt;</mo>" in formulas.mathml("x < y", is_display=True)


@pytest.mark.parametrize("tex", [r"\frac{1", r"\nosuchcommand x", "x^1^2"])
def test_a_formula_that_cannot_be_read_is_named(tex):
    with pytest.raises(formulas.FormulaError, match=re.escape(tex)):
        formulas.mathml(tex, is_display=False)


def test_the_font_has_what_is_drawn_and_little_else():
    page = formulas.mathml(r"\alpha_h \le \sqrt{D} \cdot \mathbf{W}", is_display=False)
    has = font_of(formulas.style(page)).getBestCmap()
    for drawn in "√𝛼ℎ≤𝐷⋅𝐖":
        assert ord(drawn) in has, drawn
    assert ord("∮") not in has
    assert ord("∮") in font_of(formulas.style("<math><mo>∮</mo></math>")).getBestCmap()


def test_the_same_formulas_give_the_same_style():
    page = formulas.mathml("x + y", is_display=False)
    assert formulas.style(page) == formulas.style(page + page)


def test_roots_of_all_sizes_are_as_wide_as_the_first():
    """A browser leaves a gap beside each root as wide as the widest radical."""
    font = font_of(formulas.style(""))
    variants = font["MATH"].table.MathVariants
    radical = font.getBestCmap()[ord("√")]
    sizes = variants.VertGlyphConstruction[variants.VertGlyphCoverage.glyphs.index(radical)]
    records = sizes.MathGlyphVariantRecord
    widths = {font["hmtx"][size.VariantGlyph][0] for size in records}
    assert (len(records), len(widths), sizes.GlyphAssembly) == (4, 1, None)
    heights = [size.AdvanceMeasurement for size in records]
    assert heights == sorted(heights)
    assert heights[-1] > 2 * heights[0]
