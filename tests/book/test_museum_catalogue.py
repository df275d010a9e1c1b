"""The bugs: each runs, each is caught, each label shows a difference.

Catches a bug that the checks do not see, one that anybody would see, and a label that does not
fit its layer.
"""

import re

import pytest
import torch
from helpers import B, T
from torch import nn

from attnlib.book.museum import (
    BUGS,
    COLUMNS,
    SIZES,
    ReferenceAttention,
    ReferenceLatentAttention,
    ReferenceSplitAttention,
    ReferenceSteps,
    ReferenceWindowAttention,
    matrix,
)
from attnlib.book.museum.bug import named
from attnlib.testing import CHECKS, FAILS, HOLDS, NOT_ASKED, Report, Reports, check_layer

EVERY_BUG = pytest.mark.parametrize("name", BUGS)


@EVERY_BUG
def test_a_bug_runs_and_its_shapes_are_right(name):
    """Catches an exhibit that anybody would notice: an error, or a wrong shape."""
    wrong, right = BUGS[name].pair()
    x = torch.randn(B, T, wrong.o_proj.out_features, dtype=torch.float64)
    out, weights = wrong(x, return_weights=True)
    expected, expected_weights = right(x, return_weights=True)
    assert (out.shape, weights.shape) == (expected.shape, expected_weights.shape)
    assert out.isfinite().all()
    cache = wrong.new_cache(B, T)
    for step in x.split([4, 1, 2], dim=1):
        assert wrong(step, cache).isfinite().all()
    assert cache.seen == T


VERDICTS = {}


def reference_verdicts(bug):
    """Verdicts on the layer without the bug, computed once for bugs that share it."""
    key = bug.reference, repr(bug.arguments)
    if key not in VERDICTS:
        reports = check_layer(bug.build_reference(), bug.build_reference())
        not_asked = [report.check for report in reports if report.verdict == NOT_ASKED]
        assert not_asked == (["padding"] if "first" in bug.arguments else [])
        VERDICTS[key] = {report.verdict for report in reports} - {NOT_ASKED}
    return VERDICTS[key]


@EVERY_BUG
def test_a_bug_is_caught_by_a_check_that_the_right_layer_passes(name):
    """Catches a bug that all checks miss, and a check that fails for another reason."""
    reports, bug = BUGS[name].reports, BUGS[name]
    assert reports.failed, name
    assert reference_verdicts(bug) == {HOLDS}
    stopped = [r.found for r in reports if r.verdict == FAILS and "Error" in r.found]
    assert not stopped, "the check failed because the layer stopped, not because of its answer"


# What a reader would expect of some pairs; a change of a check has to be meant.
TELLING = {
    "split and merged by view": ({"reach", "permutation"}, {"no future leak"}),
    "repeat for repeat_interleave": ({"head grouping"}, {"reach", "cached = uncached"}),
    "values from keys' weights": ({"gradients"}, {"reach", "cached = uncached"}),
    "scale by the model's width": ({"scale"}, {"rows sum to one", "no future leak"}),
    "mask after the softmax": ({"rows sum to one", "no future leak"}, {"reach"}),
    "padding mask inverted": ({"padding"}, {"equals the reference"}),
    "NaN where no key is seen": ({"rows without keys"}, set(CHECKS) - {"rows without keys"}),
    "masked with -1e9": ({"rows without keys"}, set(CHECKS) - {"rows without keys"}),
    "RoPE restarts at decode": ({"cached = uncached"}, {"equals the reference"}),
    "RoPE along the heads": ({"permutation"}, {"reach", "cached = uncached"}),
    "RoPE in the other layout": (
        {"equals the reference"},
        set(CHECKS) - {"equals the reference"},
    ),
    "cache of expanded heads": ({"cache bytes"}, set(CHECKS) - {"cache bytes"}),
    "one memory for all sequences": ({"batch = its rows"}, {"equals the reference"}),
    "latent cached before norm": ({"cached = uncached"}, {"equals the reference"}),
    "window of W + 1 keys": ({"reach"}, {"cached = uncached", "padding"}),
    "chunks for a sliding window": ({"reach", "padding"}, {"cached = uncached"}),
    "another layer's window": (
        {"equals the reference", "cache bytes"},
        {"reach", "cached = uncached"},
    ),
    "chunk overwrites the ring": ({"cached = uncached"}, {"reach", "equals the reference"}),
    "RoPE by rows, not tokens": ({"cached = uncached"}, {"permutation", "padding"}),
    "first tokens overwritten": ({"cached = uncached"}, {"reach", "cache bytes"}),
    "sink lost in the fused path": ({"gradients"}, {"rows sum to one", "cached = uncached"}),
    "sink of 0 for no sink": ({"rows sum to one"}, {"scale", "cached = uncached"}),
    "mean of the parts": (
        {"equals the reference", "rows sum to one"},
        {"reach", "cached = uncached"},
    ),
    "n_heads left undivided": ({"head grouping"}, {"cached = uncached", "gradients"}),
    "cache of all ranks' heads": ({"cache bytes"}, set(CHECKS) - {"cache bytes"}),
}


@pytest.mark.parametrize("name", TELLING)
def test_checks_catch_and_miss_what_the_page_says(name):
    """Catches prose about a bug that its reports do not bear out."""
    caught, missed = TELLING[name]
    verdicts = {report.check: report.verdict for report in BUGS[name].reports}
    assert {verdicts[check] for check in caught} == {FAILS}
    assert {verdicts[check] for check in missed} == {HOLDS}


@EVERY_BUG
def test_the_label_shows_a_difference(name):
    """Catches a diff that is empty, too wide for a page, or without the name of its step."""
    bug = BUGS[name]
    lines = bug.diff().splitlines()
    assert any(line.startswith("+") for line in lines), bug.diff()
    assert max(map(len, lines)) <= 96
    assert set(bug.methods) <= set(vars(bug.reference)) | set(vars(ReferenceSteps))
    text = repr(bug)
    assert text.startswith(f"symptom    {bug.symptom.split()[0]}")
    assert all(f" def {method}(" in text for method in bug.methods)
    assert f"caught by  {bug.reports.failed[0]}" in text
    assert bug.cause.split()[0] in text
    label = text[: text.index("\n def ")] + text[text.index("\ncause") :]
    assert max(map(len, label.splitlines())) <= COLUMNS


def test_names_of_checks_do_not_break_at_the_end_of_a_line():
    """Catches a list on a phone in which "rows sum" ends one line and "to one" the next."""
    reports = Reports(
        [Report("rows sum to one", HOLDS, ""), Report("reach", HOLDS, ""),
         Report("scale", NOT_ASKED, "")]
    )  # fmt: skip
    assert named(reports, HOLDS).split(" ") == ["rows\xa0sum\xa0to\xa0one,", "reach"]
    assert named(reports, FAILS) == ""


def test_bugs_differ():
    """Catches an exhibit that stands twice."""
    assert len({bug.layer for bug in BUGS.values()}) == len(BUGS) == 34
    assert all(name == bug.name for name, bug in BUGS.items())
    assert all(issubclass(bug.layer, nn.Module) for bug in BUGS.values())
    assert {bug.reference for bug in BUGS.values()} == set(SIZES)


def test_every_wrong_layer_of_the_module_is_shown():
    """Catches a class that is written and not entered."""
    layers = {
        layer
        for reference in (
            ReferenceAttention,
            ReferenceLatentAttention,
            ReferenceWindowAttention,
            ReferenceSplitAttention,
        )
        for layer in reference.__subclasses__()
        if layer.__module__ == "attnlib.book.museum.catalogue"
    }
    assert layers == {bug.layer for bug in BUGS.values()}


@EVERY_BUG
def test_a_bug_has_its_reference_and_its_arguments(name):
    """Catches a pair whose layers differ in more than the bug."""
    bug = BUGS[name]
    wrong, right = bug.build(), bug.build_reference()
    assert type(wrong) is bug.layer
    assert type(right) is bug.reference
    assert isinstance(wrong, type(right))
    for argument, value in bug.arguments.items():
        for layer in (wrong, right):
            known = getattr(layer, argument)
            assert (known is not None if argument == "sinks" else known) == value


def test_labels_say_what_happens_and_why():
    for bug in BUGS.values():
        assert bug.symptom.endswith("."), bug.symptom
        assert not bug.cause.endswith("."), bug.cause
        assert bug.threads


def test_threads_are_addresses():
    for bug in BUGS.values():
        for thread in bug.threads:
            assert re.fullmatch(
                r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", thread
            )


def test_reports_are_computed_once():
    """Catches a chapter that trains and checks every bug again for each table."""
    first = matrix()
    assert list(first) == list(BUGS)
    assert all(first[name] is matrix()[name] is BUGS[name].reports for name in BUGS)
