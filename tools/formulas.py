"""Formulas as MathML Core, which browsers set by themselves, and the font they are set in.

The book and the slides take their formulas from here, so no page needs a script for them.
JupyterLab, Colab and GitHub set the same TeX in their own way.
"""

from __future__ import annotations

import base64
import html
import re
from functools import cache
from io import BytesIO
from string import ascii_letters, digits

from fontTools import subset
from fontTools.ttLib import TTFont
from math_core import LatexError, LatexToMathML

from tools import installed

FONT = "fonts", "STIXTwoMath-Regular.ttf"  # what ziamath ships

FORMULA = re.compile(r"<math\b.*?</math>", re.DOTALL)
TAG = re.compile(r"<[^>]*>")

# What a browser takes instead of a letter that stands alone in an element: the italic one.
# One letter of the block was there before Unicode had the block.
ITALIC = (("A", 0x1D434), ("a", 0x1D44E), ("Α", 0x1D6E2), ("α", 0x1D6FC))
PLANCK = {"h": "ℎ"}

# A radical is an element, not a character. With the rest most changes leave the font as it is.
ALWAYS = "√" + ascii_letters + digits + "()[]{}|+−=,."

STYLE = """\
@font-face {{
  font-family: Formulas;
  src: url(data:font/woff;base64,{font}) format("woff");
}}

math {{
  font-family: Formulas, math;
  font-size: 1.12em; /* its small letters are smaller than those of the text around it */
}}
"""


class FormulaError(ValueError):
    """A formula that is not TeX, or that uses what MathML has no word for."""


@cache
def converter() -> LatexToMathML:
    """Return the converter of TeX."""
    return LatexToMathML(fancy_error=False)


def mathml(tex: str, *, is_display: bool) -> str:
    """Return a formula as a ``<math>`` element.

    Args:
        tex: the formula, without dollars.
        is_display: whether it stands on a line of its own.

    Raises:
        FormulaError: if it cannot be read.
    """
    try:
        return converter().convert_with_local_state(tex.strip(), displaystyle=is_display)
    except LatexError as error:
        raise FormulaError(f"{tex.strip()}: {error}") from error


def characters(pages: str) -> set[str]:
    """Return the characters that the formulas of pages are set in."""
    found = set(ALWAYS)
    for formula in FORMULA.findall(pages):
        found.update(html.unescape(TAG.sub("", formula)))
    return found | {italic(letter) for letter in found}


def italic(letter: str) -> str:
    """Return the italic form of a letter, and any other character as it is."""
    if letter in PLANCK:
        return PLANCK[letter]
    for first, code in ITALIC:
        if 0 <= ord(letter) - ord(first) < (26 if first.isascii() else 25):
            return chr(code + ord(letter) - ord(first))
    return letter


def narrow_roots(whole: TTFont) -> None:
    """Make all sizes of the radical as wide as the first.

    Chromium leaves room beside a formula for the widest radical that the font has, whichever
    it draws.
    """
    radical = whole.getBestCmap()[ord("√")]
    variants = whole["MATH"].table.MathVariants
    place = variants.VertGlyphCoverage.glyphs.index(radical)
    sizes = variants.VertGlyphConstruction[place]
    sizes.ensureDecompiled()
    sizes.GlyphAssembly = None  # parts for a root of any height; they are the widest
    width, _ = whole["hmtx"][radical]
    for size in sizes.MathGlyphVariantRecord:
        advance, bearing = whole["hmtx"][size.VariantGlyph]
        whole["glyf"][size.VariantGlyph].coordinates.scale((width / advance, 1))
        whole["hmtx"][size.VariantGlyph] = (width, round(bearing * width / advance))


def style(pages: str) -> str:
    """Return a style sheet with a font that has what the formulas of pages need.

    The font stands in the style sheet: it is there when a page is first drawn, so no line moves
    when it comes, and it works for a page on disk.

    Args:
        pages: their HTML.
    """
    options = subset.Options()
    options.flavor = "woff"
    options.hinting = False
    options.layout_features = ["ssty", "dtls", "flac", "kern"]  # those that MathML uses
    options.name_IDs = [0, 1, 2, 13, 14]  # copyright, name and license
    whole = subset.load_font(str(installed("ziamath", *FONT)), options)
    whole.recalcTimestamp = False  # the same formulas give the same file
    narrow_roots(whole)
    chosen = subset.Subsetter(options)
    chosen.populate(text="".join(sorted(characters(pages))))
    chosen.subset(whole)
    file = BytesIO()
    whole.flavor = options.flavor
    whole.save(file)
    return STYLE.format(font=base64.b64encode(file.getvalue()).decode("ascii"))
