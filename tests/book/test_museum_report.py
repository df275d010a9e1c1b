"""All bugs against all checks: tables, marks and the smallest sets.

Catches a check that nothing needs, and a table in which a mark stands in the wrong place.
"""

import pytest
import torch
import torch.nn.functional as F

from attnlib import Rope
from attnlib.book import museum
from attnlib.book.museum import (
    BUGS,
    COLUMNS,
    GROUPED,
    LATENT,
    ReferenceAttention,
    ReferenceLatentAttention,
    caught_by,
    marks,
    matrix,
    smallest_sets,
)
from attnlib.book.plots import bugs_and_checks
from attnlib.testing import (
    CHECKS,
    FAILS,
    HOLDS,
    NOT_ASKED,
    Report,
    Reports,
    check_layer,
    hidden,
    in_steps,
)


def test_each_check_earns_its_place():
    """Catches a check that notices no bug, and one that would make the others superfluous."""
    for check in CHECKS:
        assert 0 < len(caught_by((check,))) < len(BUGS), check


def test_what_some_checks_catch_together():
    reach, gradients = caught_by(("reach",)), caught_by(("gradients",))
    assert reach == [
        "split and merged by view",
        "window of W + 1 keys",
        "chunks for a sliding window",
    ]
    assert set(caught_by(("reach", "gradients"))) == {*reach, *gradients}
    assert caught_by(()) == []


def test_the_smallest_set_catches_all_and_none_smaller_does():
    """Catches a search that stops too early or too late."""
    found = smallest_sets()
    assert found == [
        ("equals the reference", "cached = uncached", "rows without keys", "cache bytes")
    ]
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
            assert (row.ljust(COLUMNS)[29 + i] == "X") == (report.verdict == FAILS)


def test_rooms_have_all_bugs_in_their_order():
    assert [name for bugs in museum.rooms().values() for name in bugs] == list(BUGS)
    assert list(museum.rooms()) == [
        "Shapes that lie",
        "Scale and mask",
        "Positions",
        "Caches",
        "Latents",
        "Windows and sinks",
        "Pieces and devices",
    ]


def test_the_picture_has_a_cross_for_each_catch():
    """Catches a picture that drops a bug or a check."""
    figure = bugs_and_checks(museum.rooms(), CHECKS)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("\N{MULTIPLICATION SIGN}") == sum(
        len(reports.failed) for reports in matrix().values()
    )
    assert {*BUGS, *CHECKS} <= set(texts)


# Bugs that the page names without showing them.


class Shifted(ReferenceAttention):
    """A causal mask that is off by some keys."""

    off = 0

    def mask(self, start, T, causal, key_mask):
        """Say which keys each query may see."""
        keys, queries = torch.arange(start + T), torch.arange(start, start + T)[:, None]
        mask = keys <= queries + self.off if causal else keys >= 0
        return mask if key_mask is None else mask & key_mask[:, None, None, :]


class TooStrict(Shifted):
    off = -1


class TooGenerous(Shifted):
    off = 1


class OnlyQueries(ReferenceAttention):
    def rotate(self, q, k, start):
        """Turn the queries alone."""
        return super().rotate(q, k, start)[0], k


class OtherBase(ReferenceAttention):
    def __init__(self, *args, rope, **sizes):
        super().__init__(*args, rope=Rope(base=50 * rope.base), **sizes)


class Dropped(ReferenceAttention):
    def attention_weights(self, q, k, mask):
        """Drop weights in evaluation too."""
        return F.dropout(super().attention_weights(q, k, mask), 0.1)


class NopeScale(ReferenceLatentAttention):
    def attention_weights(self, q, k, mask):
        """Divide by the root of the part without position."""
        wider = (self.qk_head_dim / self.qk_nope_head_dim) ** 0.5
        return super().attention_weights(q * wider, k, mask)


ROTATED = {**GROUPED, "rope": Rope()}
NAMED = [
    (TooStrict, GROUPED, ["reach", "rows sum to one"]),
    (TooGenerous, GROUPED, ["no future leak", "cached = uncached", "rows without keys"]),
    (OnlyQueries, ROTATED, ["permutation", "padding"]),
    (NopeScale, LATENT, ["scale"]),
    (OtherBase, ROTATED, []),
]


@pytest.mark.parametrize(("layer", "sizes", "noticed"), NAMED)
def test_bugs_that_are_not_shown_are_noticed_as_the_page_says(layer, sizes, noticed):
    right = next(kind for kind in layer.__mro__ if kind.__module__.startswith("attnlib"))
    reports = check_layer(layer(**sizes), right(**sizes))
    assert reports.failed == ["equals the reference", *noticed]


def test_dropout_that_is_left_on_fails_eight_checks():
    reports = check_layer(Dropped(**GROUPED), ReferenceAttention(**GROUPED))
    assert len(reports.failed) == 8


def test_equality_in_every_use_misses_nothing_but_bytes():
    """Catches advice of the page that a new bug makes wrong."""
    real = torch.arange(7) >= torch.tensor([[0], [1], [2], [3], [5]])  # (B, T)
    missed = []
    for name, bug in BUGS.items():
        wrong, right = bug.pair()
        x = hidden(right)
        uses = (
            (layer(x), in_steps(layer, x, [3, 1, 1, 2]), layer(x, key_mask=real))
            for layer in (wrong, right)
        )
        if all(torch.allclose(a, b) for a, b in zip(*uses, strict=True)):
            missed.append(name)
    assert missed == ["cache of expanded heads", "cache of all ranks' heads"]
