"""Reports: what they count as solved, how they print, and the words they use.

Catches lines too wide for a page, a count that does not add up, and a layer that passes because
no check applied to it.
"""

import pytest
import torch
from torch import nn

from attnlib.testing import FAILS, HOLDS, NOT_ASKED, WIDTH, Report, Reports, kind_of, listed
from attnlib.testing.report import about_none, in_words

WORDS = " ".join(["words"] * 40)


def test_a_report_is_one_line_if_it_fits():
    assert repr(Report("reach", HOLDS, "all")) == "holds     reach                all"


def test_long_findings_and_hints_are_wrapped_below_their_start():
    lines = repr(Report("reach", FAILS, WORDS, WORDS)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith("FAILS     reach                words")
    assert lines[1].startswith(" " * 31 + "words")
    hint = [line for line in lines if line.startswith("          usually: words")]
    assert len(hint) == 1
    assert lines[-1].startswith(" " * 19 + "words")


def test_the_column_of_names_can_be_wider():
    assert Report("reach", HOLDS, "all").text(column=8) == "holds     reach    all"


def test_reports_are_counted():
    """Catches a count that leaves out a verdict, and one that names a verdict too many."""
    reports = Reports(
        [Report("a", HOLDS, ""), Report("b", FAILS, "", "hint"), Report("c", NOT_ASKED, "")]
    )
    assert repr(reports).splitlines()[-1] == "3 checks: 1 hold, 1 fail, 1 not asked"
    assert repr(Reports(reports[:1])).splitlines()[-1] == "1 check: 1 hold"
    assert reports.failed == ["b"]
    assert not reports.hold
    assert [bool(report) for report in reports] == [True, False, False]


def test_what_was_not_asked_is_not_solved():
    """Catches a layer that passes because no check applied to it."""
    assert not Reports([Report("reach", NOT_ASKED, "no")]).hold
    assert not Reports().hold
    assert Reports([Report("reach", NOT_ASKED, "no"), Report("scale", HOLDS, "")]).hold


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([], "none"),
        ([3], "3"),
        ([0, 2], "0 and 2"),
        ([1, 2], "1 and 2"),
        ([1, 2, 3], "1 to 3"),
        ([0, 2, 4], "0, 2 and 4"),
    ],
)
def test_lists_in_words(numbers, words):
    assert listed(numbers) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.zeros(2, 3), "a tensor of shape (2, 3)"),
        ((1, 2), "a tuple of 2"),
        ([1], "a list of 1"),
        (None, "None"),
        (3.5, "3.5"),
        (nn.Identity(), "Identity"),
    ],
)
def test_values_in_words(value, words):
    assert kind_of(value) == words


@pytest.mark.parametrize(
    ("error", "words", "more"),
    [
        (RuntimeError("shapes differ.\nsecond line"), "RuntimeError: shapes differ", "."),
        (KeyError(), "KeyError", "."),
        (
            TypeError("'NoneType' object is not iterable"),
            "TypeError: 'NoneType'",
            ". Something",
        ),
        (TypeError("'NoneType': did you return?"), "TypeError: 'NoneType'", "."),
    ],
)
def test_errors_in_words(error, words, more):
    """Catches an error that prints an address or a second line, and a hint that is missing."""
    assert in_words(error).startswith(words)
    assert "\n" not in in_words(error)
    assert about_none(error).startswith(more)
