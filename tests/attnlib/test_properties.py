"""The property checks: all hold for attnlib's layers, and each fails where it should.

Catches a check that cannot fail, one that fails for right code, and a report that says the
wrong thing. What the checks find in fourteen classic bugs is in `test_bugs.py`.
"""

import copy

import pytest
import torch
from helpers import VARIANTS, make, mha
from torch import nn

import attnlib
from attnlib import testing as properties
from attnlib.book.exercises.grading import SIZES, FunctionLayer
from attnlib.testing import CHECKS, FAILS, HOLDS, NOT_ASKED, Report, Reports, check_layer

D_MODEL, H, H_KV, D = SIZES


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_every_property(name):
    """Tests attnlib with the same checks that grade a reader's code."""
    reports = check_layer(VARIANTS[name](), VARIANTS[name]())
    assert reports.hold, reports
    assert {report.verdict for report in reports} == {HOLDS}, reports


@pytest.mark.parametrize("name", VARIANTS)
def test_checks_change_nothing(name):
    """Catches a check that leaves its own weights, gradients or random numbers behind."""
    layer, reference = make(name, torch.float32), make(name, torch.float32)
    before = copy.deepcopy(layer.state_dict())
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    check_layer(layer, reference)
    assert torch.rand(()) == expected
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert layer.rope == make(name).rope


def plain(q, k, v, mask=None):
    """Attention that is right; each wrong one below differs in one thing."""
    scores = q @ k.mT * D**-0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(dim=-1)
    return weights @ v, weights


def unmasked(q, k, v, mask=None):
    return plain(q, k, v)


def short_sighted(q, k, v, mask=None):
    return plain(q, k, v, mask=torch.ones(q.shape[2], q.shape[2]).triu(-1).tril().bool())


def placed(q, k, v, mask=None):
    """Keys are weighed by where they stand in memory."""
    return plain(q, k * torch.linspace(1, 2, k.shape[2])[:, None], v, mask)


def doubled(q, k, v, mask=None):
    out, weights = plain(q, k, v, mask)
    return 2 * out, 2 * weights


def unscaled(q, k, v, mask=None):
    return plain(q * D**0.5, k, v, mask)


def without_padding(q, k, v, mask=None):
    """Every sequence gets the mask of the first, which has no padding."""
    return plain(q, k, v, mask if mask is None or mask.ndim < 3 else mask[:1])


def in_turns(q, k, v, mask=None):
    return plain(q, k.repeat(1, H // H_KV, 1, 1), v.repeat(1, H // H_KV, 1, 1), mask)


def detached(q, k, v, mask=None):
    return plain(q, k.detach(), v, mask)


class Forgetful(attnlib.MultiHeadAttention):
    """A layer that does not use its cache."""

    def forward(self, x, cache=None, **options):
        return super().forward(x, **options)


class Chatty(attnlib.MultiHeadAttention):
    """A layer whose sequences see each other."""

    def forward(self, x, cache=None, **options):
        return super().forward(x, cache, **options) + x.mean(dim=0)


class Wasteful(attnlib.MultiHeadAttention):
    """A layer whose cache is twice as long as it has to be."""

    def new_cache(self, batch_size, capacity):
        return super().new_cache(batch_size, 2 * capacity)


class Untruthful(attnlib.MultiHeadAttention):
    """A layer whose cache says it takes nothing."""

    def new_cache(self, batch_size, capacity):
        class Cache(attnlib.KVCache):
            nbytes = 0

        return Cache(batch_size, H, capacity, D, dtype=torch.float64)


def wrapped(function, n_kv_heads=H):
    return FunctionLayer(function, D_MODEL, H, n_kv_heads, D)


def layer_of(kind):
    return kind(D_MODEL, H, head_dim=D)


RIGHT = {H: wrapped(attnlib.attention), H_KV: wrapped(attnlib.attention, H_KV)}

# The check that must fail, the layer, and words that the report must have.
WRONG = [
    ("equals the reference", wrapped(doubled), "tokens 0 to 6 differ"),
    ("equals the reference", wrapped(unscaled), "tokens 1 to 6 differ"),
    ("no future leak", wrapped(unmasked), "and the output of token"),
    ("reach", wrapped(short_sighted), "token 0 was changed, and the output of token 6 did not"),
    ("permutation", wrapped(placed), "tokens in another order: outputs differ"),
    ("rows sum to one", wrapped(doubled), "rows sum to between 2.000 and 2.000"),
    ("cached = uncached", layer_of(Forgetful), "7 of 7 ways differ"),
    (
        "head grouping",
        wrapped(in_turns, H_KV),
        "query heads 0 and 3 changed instead of 0 and 1",
    ),
    ("scale", wrapped(unscaled), "multiplied by 1.000 where 1 / sqrt(4) = 0.500 (no scale"),
    ("padding", wrapped(without_padding), "a row with"),
    ("batch = its rows", layer_of(Chatty), "sequences differ by"),
    ("gradients", wrapped(detached), "none reaches k_proj.weight"),
    ("cache bytes", layer_of(Wasteful), "2 times the 13,440 that are needed"),
    ("cache bytes", layer_of(Untruthful), "nbytes says 0"),
]


@pytest.mark.parametrize(("check", "layer", "words"), WRONG)
def test_a_check_fails_and_says_why(check, layer, words):
    cached = isinstance(layer, attnlib.MultiHeadAttention)
    reference = mha() if cached else RIGHT[layer.n_kv_heads]
    report = CHECKS[check](layer, reference)
    assert (report.check, report.verdict) == (check, FAILS), report
    assert words in report.found, report.found
    assert report.hint
    assert not report


def test_every_check_was_seen_to_fail():
    assert {check for check, _, _ in WRONG} == set(CHECKS)


def test_rope_that_turns_nothing_is_noticed():
    """Catches positions that have no effect: without RoPE that would be right."""

    class Still(attnlib.MultiHeadAttention):
        def forward(self, x, **options):
            rope, self.rope = self.rope, None
            out = super().forward(x, **options)
            self.rope = rope
            return out

    report = CHECKS["permutation"](Still(D_MODEL, H, head_dim=D, rope=attnlib.Rope()))
    assert report.verdict == FAILS
    assert "in spite of RoPE" in report.found


def test_what_a_layer_cannot_do_is_not_asked():
    """Catches a check that fails a learner's layer for what was not asked of it."""

    class Small(attnlib.MultiHeadAttention):
        def forward(self, x):
            return super().forward(x)

    layer = Small(D_MODEL, H, head_dim=D)
    reports = {report.check: report for report in check_layer(layer, mha())}
    silent = {name for name, report in reports.items() if report.verdict == NOT_ASKED}
    assert silent == {"rows sum to one", "cached = uncached", "scale", "padding", "cache bytes"}
    assert reports["padding"].found == "forward takes no key_mask"
    assert Reports(reports.values()).hold


def test_without_a_reference_nothing_is_compared():
    reports = check_layer(mha())
    silent = {report.check for report in reports if report.verdict == NOT_ASKED}
    assert silent == {"equals the reference", "scale", "cache bytes"}


def test_an_error_is_a_failure_and_not_raised():
    class Broken(attnlib.MultiHeadAttention):
        def forward(self, x, **options):
            raise RuntimeError("shapes do not fit\nsecond line")

    for report in check_layer(Broken(D_MODEL, H, head_dim=D), mha()):
        assert report.verdict == FAILS
        assert "RuntimeError: shapes do not fit" in report.found


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (None, "nothing came back (None)"),
        (3.0, "expected a tensor, got 3.0"),
        (nn.Identity(), "expected a tensor, got Identity"),
        (torch.zeros(5, 7, 3), "shape (5, 7, 3), expected (5, 7, 22)"),
    ],
)
def test_an_output_of_the_wrong_kind_is_named(result, words):
    class Odd(attnlib.MultiHeadAttention):
        def forward(self, x, **options):
            return result

    report = CHECKS["no future leak"](Odd(D_MODEL, H, head_dim=D))
    assert report.verdict == FAILS
    assert words in report.found


def test_other_parameters_are_named():
    layer = mha()
    layer.k_proj = nn.Linear(D_MODEL, 8)
    report = CHECKS["equals the reference"](layer, mha())
    assert "parameter k_proj.bias: expected none, got (8,)" in report.found


def test_an_unknown_check_is_refused():
    with pytest.raises(ValueError, match="'no leak'"):
        check_layer(mha(), checks=["no leak"])


def test_reports_read_well():
    """Catches lines too wide for a page, and a count that does not add up."""
    text = repr(check_layer(wrapped(in_turns, H_KV), RIGHT[H_KV]))
    assert max(map(len, text.splitlines())) <= properties.WIDTH
    assert text.splitlines()[-1] == "12 checks: 7 hold, 2 fail, 3 not asked"
    assert "FAILS     head grouping        KV head 0 was zeroed" in text
    assert "\n          usually: " in text
    assert repr(Report("reach", HOLDS, "all")) == "holds     reach                all"


def test_nothing_held_is_not_solved():
    """Catches a layer that passes because nothing could be asked of it."""
    assert not Reports([Report("reach", NOT_ASKED, "no")]).hold
    assert not Reports().hold


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ([], "none"),
        ([3], "3"),
        ([0, 2], "0 and 2"),
        ([1, 2, 3], "1 to 3"),
        ([0, 2, 4], "0, 2 and 4"),
    ],
)
def test_lists_in_words(numbers, words):
    assert properties.listed(numbers) == words


def flipped(q, k, v, mask=None):
    return plain(q, k, v, None if mask is None else ~mask)


def test_nan_is_a_failure_with_a_hint_of_its_own():
    """Catches NaN that passes a check because no comparison with it is true."""
    reports = check_layer(wrapped(flipped), RIGHT[H])
    for report in reports:
        if report.check in ("no future leak", "batch = its rows", "head grouping"):
            assert report.verdict == FAILS, report
            assert "the output of token 6 is NaN" in report.found
            assert "wrong way round" in report.hint


def test_rows_of_padding_may_be_nan():
    """Catches a check that asks for what an exercise says need not be treated."""
    assert CHECKS["padding"](wrapped(plain), RIGHT[H]).verdict == HOLDS
