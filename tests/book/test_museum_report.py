"""All bugs against all checks: tables, marks and the smallest sets.

Catches a check that nothing needs, and a table in which a mark stands in the wrong place.
"""

from attnlib.book import museum
from attnlib.book.museum import BUGS, COLUMNS, caught_by, marks, matrix, smallest_sets
from attnlib.book.plots import bugs_and_checks
from attnlib.testing import CHECKS, FAILS, HOLDS, NOT_ASKED, Report, Reports


def test_each_check_earns_its_place():
    """Catches a check that notices no bug, and one that would make the others superfluous."""
    for check in CHECKS:
        assert 0 < len(caught_by((check,))) < len(BUGS), check


def test_what_some_checks_catch_together():
    reach, gradients = caught_by(("reach",)), caught_by(("gradients",))
    assert reach == ["split and merged by view"]
    assert set(caught_by(("reach", "gradients"))) == {*reach, *gradients}
    assert caught_by(()) == []


def test_the_smallest_set_catches_all_and_none_smaller_does():
    """Catches a search that stops too early or too late."""
    found = smallest_sets()
    assert found == [("equals the reference", "cached = uncached", "padding", "cache bytes")]
    for checks in found:
        assert caught_by(checks) == list(BUGS)
        for left_out in checks:
            rest = tuple(check for check in checks if check != left_out)
            assert len(caught_by(rest)) < len(BUGS)


def test_no_set_is_found_if_a_bug_is_missed_by_all(monkeypatch):
    monkeypatch.setattr(museum.report, "caught_by", lambda checks: ["one"])
    assert smallest_sets() == []


def test_marks_are_one_character_per_check():
    reports = Reports(
        [Report("a", FAILS, ""), Report("b", HOLDS, ""), Report("c", NOT_ASKED, "")]
    )
    assert marks(reports) == "X. "
    assert all(len(marks(reports)) == len(CHECKS) for reports in matrix().values())


def test_the_table_fits_a_phone():
    """Catches a name that pushes the marks out of their columns."""
    lines = museum.table().splitlines()
    assert max(map(len, lines)) <= COLUMNS
    for name, reports in matrix().items():
        row = next(line for line in lines if line.startswith(f"{name} "))
        for i, report in enumerate(reports):
            assert (row.ljust(COLUMNS)[30 + i] == "X") == (report.verdict == FAILS)


def test_rooms_have_all_bugs_in_their_order():
    assert [name for bugs in museum.rooms().values() for name in bugs] == list(BUGS)
    assert list(museum.rooms()) == [
        "Shapes that lie",
        "Scale and mask",
        "Positions",
        "Caches",
        "Latents",
    ]


def test_the_picture_has_a_cross_for_each_catch():
    """Catches a picture that drops a bug or a check."""
    figure = bugs_and_checks(museum.rooms(), CHECKS)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("\N{MULTIPLICATION SIGN}") == sum(
        len(reports.failed) for reports in matrix().values()
    )
    assert {*BUGS, *CHECKS} <= set(texts)
