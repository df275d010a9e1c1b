"""The museum: the right layers are right, every bug is caught, and the labels tell the truth.

Catches a plain layer that is wrong itself, a bug that the checks do not see or that does not
run, and a check that nothing needs.
"""

import re

import pytest
import torch
from helpers import (
    D_MODEL,
    LATENT,
    Q_LATENT,
    B,
    D,
    H,
    T,
    close,
    hidden,
    left_padding,
    randomise,
)
from torch import nn

import attnlib
from attnlib import Rope
from attnlib.book import museum as bugs
from attnlib.book.museum import (
    BUGS,
    PlainAttention,
    PlainLatentAttention,
    matrix,
    smallest_sets,
)
from attnlib.book.plots import bugs_and_checks
from attnlib.testing import CHECKS, FAILS, HOLDS, check_layer

PAIRS = {
    **{
        f"{n_kv_heads} KV heads, {name}": (
            lambda n=n_kv_heads, r=rope: PlainAttention(D_MODEL, H, n, head_dim=D, rope=r),
            lambda n=n_kv_heads, r=rope: attnlib.GroupedQueryAttention(
                D_MODEL, H, n, head_dim=D, rope=r
            ),
        )
        for n_kv_heads in (H, 3, 1)
        for name, rope in (
            ("no positions", None),
            ("half-split", Rope(base=500.0)),
            ("interleaved", Rope(interleaved=True)),
        )
    },
    "latent": (
        lambda: PlainLatentAttention(D_MODEL, H, **LATENT),
        lambda: attnlib.MultiHeadLatentAttention(D_MODEL, H, **LATENT),
    ),
    "latent of queries too, interleaved": (
        lambda: PlainLatentAttention(D_MODEL, H, **Q_LATENT, rope=Rope(interleaved=True)),
        lambda: attnlib.MultiHeadLatentAttention(
            D_MODEL, H, **Q_LATENT, rope=Rope(interleaved=True)
        ),
    ),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    """A plain layer and the library's, with the same weights."""
    plain, library = (randomise(build()) for build in PAIRS[request.param])
    library.load_state_dict(plain.state_dict())
    return plain, library


def test_plain_layers_equal_the_library(pair):
    """Catches a right layer that is wrong: all diffs of the museum would lie."""
    plain, library = pair
    x = hidden()
    key_mask = left_padding([0, 1, 2, 3, T], T)  # the last sequence is padding only
    for options in ({}, {"causal": False}, {"key_mask": key_mask}):
        out, weights = plain(x, return_weights=True, **options)
        want, want_weights = library(x, return_weights=True, **options)
        close(out, want)
        close(weights, want_weights)
        close(plain(x, **options), want)


def test_plain_caches_equal_the_library(pair):
    """Catches a plain cache that keeps the wrong rows, at each split and with padding."""
    plain, library = pair
    x, key_mask = hidden(), left_padding([0, 1, 2, 3, 4], T)
    for sizes in ([3, 4], [1] * T, [5, 1, 1]):
        caches, end = [layer.new_cache(B, T + 2) for layer in pair], 0
        for step in x.split(sizes, dim=1):
            end += step.shape[1]
            options = {"key_mask": key_mask[:, :end]}
            out, want = (
                layer(step, cache, **options) for layer, cache in zip(pair, caches, strict=True)
            )
            close(out, want)
        assert caches[0].nbytes == caches[1].nbytes
        assert caches[0].length == caches[1].length == T


def test_plain_layers_pass_every_check(pair):
    """Catches a check that takes a right layer for a wrong one."""
    plain, library = pair
    assert {report.verdict for report in check_layer(plain, library)} == {HOLDS}


def test_plain_heads_may_be_left_out():
    layer = PlainAttention(12, 3)
    assert (layer.n_kv_heads, layer.head_dim) == (3, 4)
    assert layer(torch.zeros(2, 5, 12)).shape == (2, 5, 12)


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_runs_and_its_shapes_are_right(name):
    """Catches an exhibit that anybody would notice: an error, or a wrong shape."""
    wrong, right = BUGS[name].pair()
    x = torch.randn(B, T, wrong.o_proj.out_features, dtype=torch.float64)
    out, weights = wrong(x, return_weights=True)
    want, want_weights = right(x, return_weights=True)
    assert (out.shape, weights.shape) == (want.shape, want_weights.shape)
    assert out.isfinite().all()
    cache = wrong.new_cache(B, T)
    for step in x.split([4, 1, 2], dim=1):
        assert wrong(step, cache).isfinite().all()
    assert cache.length == T


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_is_caught_by_a_check_that_the_right_layer_passes(name):
    """Catches a bug that all checks miss, and a check that fails for another reason."""
    reports, bug = matrix()[name], BUGS[name]
    assert reports.failed, name
    assert {r.verdict for r in check_layer(bug.build_right(), bug.build_right())} == {HOLDS}
    stopped = [r.found for r in reports if r.verdict == FAILS and "Error" in r.found]
    assert not stopped, "the check failed because the layer stopped, not because of its answer"


def test_each_check_earns_its_place():
    """Catches a check that notices no bug, and one that would make the others superfluous."""
    for check in CHECKS:
        assert 0 < len(bugs.caught_by((check,))) < len(BUGS), check


# What a reader would expect of some pairs; a change of a check has to be meant.
TELLING = {
    "split and merged by view": ({"reach", "permutation"}, {"no future leak"}),
    "repeat for repeat_interleave": ({"head grouping"}, {"reach", "cached = uncached"}),
    "values from the keys' weights": ({"gradients"}, {"reach", "cached = uncached"}),
    "scale by the model's width": ({"scale"}, {"rows sum to one", "no future leak"}),
    "mask after the softmax": ({"rows sum to one", "no future leak"}, {"reach"}),
    "padding mask inverted": ({"padding"}, {"equals the reference"}),
    "RoPE restarts at decode": ({"cached = uncached"}, {"equals the reference"}),
    "RoPE along the heads": ({"permutation"}, {"reach", "cached = uncached"}),
    "RoPE in the other layout": (
        {"equals the reference"},
        set(CHECKS) - {"equals the reference"},
    ),
    "cache of expanded heads": ({"cache bytes"}, set(CHECKS) - {"cache bytes"}),
    "one memory for all sequences": ({"batch = its rows"}, {"equals the reference"}),
    "latent cached before its norm": ({"cached = uncached"}, {"equals the reference"}),
}


@pytest.mark.parametrize("name", TELLING)
def test_checks_catch_and_miss_what_the_page_says(name):
    """Catches prose about a bug that its reports do not bear out."""
    caught, missed = TELLING[name]
    verdicts = {report.check: report.verdict for report in matrix()[name]}
    assert {verdicts[check] for check in caught} == {FAILS}
    assert {verdicts[check] for check in missed} == {HOLDS}


def test_the_smallest_set_catches_all_and_none_smaller_does():
    """Catches a search that stops too early or too late."""
    found = smallest_sets()
    assert found
    for checks in found:
        assert bugs.caught_by(checks) == list(BUGS)
        for left_out in checks:
            rest = tuple(check for check in checks if check != left_out)
            assert len(bugs.caught_by(rest)) < len(BUGS)


@pytest.mark.parametrize("name", BUGS)
def test_the_label_shows_a_difference(name):
    """Catches a diff that is empty, or too wide for a page."""
    bug = BUGS[name]
    lines = bug.diff().splitlines()
    assert any(line.startswith("+") for line in lines), bug.diff()
    assert max(map(len, lines)) <= 96
    assert set(bug.methods) <= set(vars(bug.right)) | set(vars(bugs.PlainSteps))
    text = repr(bug)
    assert f"caught by  {matrix()[name].failed[0]}" in text
    assert bug.cause.split()[0] in text


def test_bugs_differ():
    """Catches an exhibit that stands twice."""
    assert len({bug.layer for bug in BUGS.values()}) == len(BUGS) >= 14
    assert all(name == bug.name for name, bug in BUGS.items())
    assert all(issubclass(bug.layer, nn.Module) for bug in BUGS.values())


def test_threads_are_addresses():
    for bug in BUGS.values():
        for thread in bug.threads:
            assert re.fullmatch(
                r"https://github\.com/[\w.-]+/[\w.-]+/(issues|pull)/\d+", thread
            )


def test_the_table_fits_a_phone():
    """Catches a name that pushes the marks out of their columns."""
    lines = bugs.table().splitlines()
    assert max(map(len, lines)) <= 42
    for name, reports in matrix().items():
        row = next(line for line in lines if line.startswith(f"{name} "))
        for i, report in enumerate(reports):
            assert (row.ljust(42)[30 + i] == "X") == (report.verdict == FAILS)


def test_the_picture_has_a_cross_for_each_catch():
    """Catches a picture that drops a bug or a check."""
    figure = bugs_and_checks(bugs.rooms(), CHECKS)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert texts.count("\N{MULTIPLICATION SIGN}") == sum(
        len(reports.failed) for reports in matrix().values()
    )
    assert {*BUGS, *CHECKS} <= set(texts)


def test_training_goes_down_and_does_not_beat_the_least_loss():
    """Catches a model that learns nothing, and a task whose least loss is wrong."""
    right = bugs.train_with(PlainAttention)
    assert bugs.LEAST_LOSS < right.trained < 1.2  # from ln 16 = 2.8
    assert abs(right.trained - right.decoded) < 1e-4
    leaky = bugs.train_with(BUGS["mask added as 0 and 1"].layer)
    assert leaky.trained < bugs.LEAST_LOSS - 0.2
    assert leaky.decoded > right.decoded + 0.5
    assert bugs.train_with(PlainAttention) == right


@pytest.mark.parametrize(
    ("loss", "words"), [(0.1, "too good"), (0.7, "as right"), (1.0, "as right"), (1.5, "worse")]
)
def test_losses_in_words(loss, words):
    assert bugs.beside_right(loss, right=0.8) == words
