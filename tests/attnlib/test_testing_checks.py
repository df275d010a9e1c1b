"""Checks of layers: each holds for right layers, with windows too, and fails where it should.

Catches a check that cannot fail, one that fails for right code, and a report that blames the
wrong thing. What the checks find in the classic bugs: `tests/book/test_museum_catalogue.py`.
"""

import copy
import inspect

import pytest
import torch
from helpers import CASES, D_MODEL, H_KV, D, H, make, mha
from torch import nn

import attnlib
from attnlib import testing
from attnlib.rope import apply_rope, rope_angles
from attnlib.testing import CHECKS, FAILS, HOLDS, NOT_ASKED, TOKENS, check, check_layer

# Right layers.


@pytest.mark.parametrize("name", CASES)
def test_checks_change_nothing(name):
    """Catches a check that leaves its own weights, gradients or random numbers behind."""
    layer, reference = make(name, torch.float32), make(name, torch.float32)
    before = copy.deepcopy(layer.state_dict())
    attributes = set(vars(layer))
    torch.manual_seed(3)
    expected = torch.rand(())
    torch.manual_seed(3)
    check_layer(layer, reference, window=7)
    assert torch.rand(()) == expected
    assert all(torch.equal(before[key], value) for key, value in layer.state_dict().items())
    assert all(parameter.grad is None for parameter in layer.parameters())
    assert layer.rope == make(name).rope
    assert set(vars(layer)) == attributes


class RingCache:
    """Keys and values of the last W tokens: token i is entry i % W."""

    def __init__(self, batch_size, entries, width, dtype):
        self.k = torch.zeros(batch_size, entries, width, dtype=dtype)
        self.v = torch.zeros(batch_size, entries, width, dtype=dtype)
        self.seen = 0

    @property
    def nbytes(self):
        return self.k.nbytes + self.v.nbytes

    def update(self, k, v):
        """Return what is kept, then the new tokens, (B, S, width), and positions (S,)."""
        start, entries, T = self.seen, self.k.shape[1], k.shape[1]
        past = torch.arange(max(0, start - entries), start)
        all_k = torch.cat([self.k[:, past % entries], k], dim=1)
        all_v = torch.cat([self.v[:, past % entries], v], dim=1)
        self.seen += T
        kept = torch.arange(start, self.seen)[-entries:]
        self.k[:, kept % entries] = k[:, -entries:].detach()
        self.v[:, kept % entries] = v[:, -entries:].detach()
        return all_k, all_v, torch.cat([past, torch.arange(start, self.seen)])


class EagerRing(RingCache):
    """Overwrites entries that earlier queries of the same call still see."""

    def update(self, k, v):
        _, _, positions = super().update(k, v)
        kept = positions[-self.k.shape[1] :]
        return self.k[:, kept % self.k.shape[1]], self.v[:, kept % self.k.shape[1]], kept


class Windowed(nn.Module):
    """Grouped attention whose queries see the last W keys, their own included."""

    ring = RingCache

    def __init__(self, window, rope=None):
        super().__init__()
        self.window, self.rope = window, rope
        self.n_heads, self.n_kv_heads, self.head_dim = H, H_KV, D
        self.q_proj = nn.Linear(D_MODEL, H * D, bias=False)
        self.k_proj = nn.Linear(D_MODEL, H_KV * D, bias=False)
        self.v_proj = nn.Linear(D_MODEL, H_KV * D, bias=False)
        self.o_proj = nn.Linear(H * D, D_MODEL, bias=False)

    def visible(self, distance, cached):
        """Which keys each query sees, by how far away they are: (T, S)."""
        return distance < self.window

    def rotated(self, x, at):
        if self.rope is None:
            return x
        cos, sin = rope_angles(at, D, base=self.rope.base)
        heads = x.unflatten(-1, (-1, D)).transpose(1, 2)
        return apply_rope(heads, cos, sin).transpose(1, 2).flatten(2)

    def forward(self, x, cache=None, *, causal=True, key_mask=None, return_weights=False):
        start = 0 if cache is None else cache.seen
        q_at = k_at = torch.arange(start, start + x.shape[1])
        q, k, v = self.rotated(self.q_proj(x), q_at), self.k_proj(x), self.v_proj(x)
        k = self.rotated(k, q_at)
        if cache is not None:
            k, v, k_at = cache.update(k, v)  # (B, S, H_kv * D)
        q, k, v = (y.unflatten(-1, (-1, D)).transpose(1, 2) for y in (q, k, v))
        k, v = (y.repeat_interleave(H // H_KV, dim=1) for y in (k, v))
        distance = q_at[:, None] - k_at  # (T, S)
        mask = self.visible(distance.abs(), cache is not None)
        if causal:
            mask = mask & (distance >= 0)
        if key_mask is not None:
            mask = mask & key_mask[:, None, None, :]
        scores = (q @ k.mT * D**-0.5).masked_fill(~mask, -torch.inf)
        weights = scores.softmax(dim=-1).nan_to_num(0.0)  # (B, H, T, S)
        out = self.o_proj((weights @ v).transpose(1, 2).flatten(2))
        return (out, weights) if return_weights else out

    def entries(self, capacity):
        return min(capacity, self.window)

    def new_cache(self, batch_size, capacity):
        dtype = self.k_proj.weight.dtype
        return self.ring(batch_size, self.entries(capacity), H_KV * D, dtype)


class TooWide(Windowed):
    """Sees one key too many: the query's own was not counted."""

    def visible(self, distance, cached):
        return distance <= self.window

    def entries(self, capacity):
        return min(capacity, self.window + 1)


class TooNarrow(Windowed):
    """Sees one key too few."""

    def visible(self, distance, cached):
        return distance < self.window - 1


class ForgetfulDecode(Windowed):
    """Keeps all tokens, and leaves the window out as soon as there is a cache."""

    def visible(self, distance, cached):
        return distance < (TOKENS if cached else self.window)

    def entries(self, capacity):
        return capacity


class Overwritten(Windowed):
    ring = EagerRing


class FullCache(Windowed):
    """Right outputs, but all tokens are kept."""

    def entries(self, capacity):
        return capacity


ROPES = {"no positions": None, "RoPE": attnlib.Rope(base=500.0)}


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
@pytest.mark.parametrize("window", [1, 2, 3, 6, 9])
def test_a_windowed_layer_with_a_ring_buffer_passes(window, rope):
    """Catches a check that assumes that attention sees everything, or a cache that grows."""
    reports = check_layer(Windowed(window, rope), Windowed(window, rope))
    silent = {report.check for report in reports if report.verdict == NOT_ASKED}
    assert reports.hold, reports
    assert silent == {1: {"permutation", "scale", "gradients"}, 2: {"permutation"}}.get(
        window, set()
    )


def test_a_window_is_named_where_it_matters():
    """Catches a report on a windowed layer that speaks of all pairs."""
    found = {report.check: report.found for report in check_layer(Windowed(3), Windowed(3))}
    assert found["reach"] == "all 18 pairs within a window of 3, and none further apart"
    assert found["permutation"].startswith("earlier tokens in another order leave the last")
    assert found["cache bytes"] == "2,880 bytes for 5 sequences of 7 tokens in float64"
    wide = {report.check: report.found for report in check_layer(Windowed(9), Windowed(9))}
    assert wide["reach"].startswith("all 28 pairs: each token moves its own output")


WRONG_WINDOWS = [
    # The layer, what fails with a right reference, a check, and words of its report.
    (
        TooWide(3),
        {"equals the reference", "reach", "cache bytes"},
        "reach",
        "token 0 was changed, and the output of token 3 moved, although a window of 3 ends at"
        " token 1; so with 4 pairs",
    ),
    (
        TooNarrow(3),
        {"equals the reference", "reach", "permutation"},
        "reach",
        "token 0 was changed, and the output of token 2 did not move; so with 5 of 18 pairs",
    ),
    (
        ForgetfulDecode(3),
        {"cached = uncached", "cache bytes"},
        "cached = uncached",
        "7 of 7 ways differ; tokens in steps of 1, then 6: the output of token 3",
    ),
    (
        Overwritten(3),
        {"cached = uncached"},
        "cached = uncached",
        "6 of 7 ways differ; tokens in steps of 1, then 6: the output of token 1",
    ),
    (
        FullCache(3),
        {"cache bytes"},
        "cache bytes",
        "the cache holds 6,720 bytes, 2.33 times the 2,880 that are needed",
    ),
]


@pytest.mark.parametrize(
    ("layer", "failed", "name", "words"),
    WRONG_WINDOWS,
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_a_wrong_window_is_caught(layer, failed, name, words):
    """Catches windows off by one, forgotten in decode, or overwritten too early."""
    reports = check_layer(layer, Windowed(3))
    assert set(reports.failed) == failed
    report = next(report for report in reports if report.check == name)
    assert words in report.found
    assert report.hint


def test_no_window_fails_where_one_is_declared():
    """Catches the bug that a window is accepted, stored and never used."""
    layer = mha()
    layer.window = 3
    report = CHECKS["reach"](layer)
    assert report.verdict == FAILS
    assert "token 0 was changed, and the output of token 3 moved" in report.found
    assert "no window at all" in report.hint


def test_a_window_can_be_given_to_the_check():
    """Catches an override that is ignored, or that changes the layer itself."""

    class Undeclared(Windowed):
        def __init__(self):
            super().__init__(window=3)
            del self.window

        def visible(self, distance, cached):
            return distance < 3

        def entries(self, capacity):
            return 3

    assert check_layer(Undeclared()).failed == ["reach", "permutation"]
    assert check_layer(Undeclared(), Undeclared(), window=3).hold
    assert check_layer(Windowed(4), checks=["reach"], window=3).failed == ["reach"]
    assert check_layer(Windowed(3), checks=["reach"], window=4).failed == ["reach"]


@pytest.mark.parametrize("window", [(2, 0), "all", 0, -1, True, 2.0])
def test_a_window_that_is_no_number_is_not_guessed(window):
    layer = mha()
    layer.window = window
    report = CHECKS["reach"](layer)
    assert report.verdict == NOT_ASKED
    assert "pass window=" in report.found


# Wrong layers.


class FunctionLayer(nn.Module):
    """A layer around a function of q (B, H, T, D), k and v (B, H_kv, T, D) and a mask."""

    def __init__(self, function, n_kv_heads=H):
        super().__init__()
        self.function, self.rope = function, None
        self.n_heads, self.n_kv_heads, self.head_dim = H, n_kv_heads, D
        self.q_proj = nn.Linear(D_MODEL, H * D, bias=False)
        self.k_proj = nn.Linear(D_MODEL, n_kv_heads * D, bias=False)
        self.v_proj = nn.Linear(D_MODEL, n_kv_heads * D, bias=False)
        self.o_proj = nn.Linear(H * D, D_MODEL, bias=False)

    def forward(self, x, *, causal=True, key_mask=None, return_weights=False):
        q, k, v = (
            project(x).unflatten(-1, (-1, D)).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        mask = torch.ones(x.shape[1], x.shape[1]).bool()
        if causal:
            mask = mask.tril()
        if key_mask is not None:
            mask = mask & key_mask[:, None, None, :]
        out, weights = self.function(q, k, v, mask)
        out = self.o_proj(out.transpose(1, 2).flatten(2))
        return (out, weights) if return_weights else out


def right(q, k, v, mask):
    """Right attention; each wrong one below differs in one thing."""
    out, weights = unguarded(q, k, v, mask)
    return out.nan_to_num(0.0), weights.nan_to_num(0.0)


def unguarded(q, k, v, mask):
    """Attention that gives NaN where a query sees no key."""
    return filled(q, k, v, mask, -torch.inf)


def evenly(q, k, v, mask):
    """Attention that spreads over hidden keys where a query sees no key."""
    return filled(q, k, v, mask, -1e9)


def on_itself(q, k, v, mask):
    """Attention in which a query that sees no key sees its own."""
    own = torch.eye(q.shape[2], dtype=torch.bool)
    return right(q, k, v, mask | (own & ~mask.any(dim=-1, keepdim=True)))


def filled(q, k, v, mask, value):
    k, v = (x.repeat_interleave(H // x.shape[1], dim=1) for x in (k, v))
    weights = (q @ k.mT * D**-0.5).masked_fill(~mask, value).softmax(dim=-1)
    return weights @ v, weights


def unmasked(q, k, v, mask):
    return right(q, k, v, torch.ones_like(mask))


def short_sighted(q, k, v, mask):
    return right(q, k, v, mask & torch.ones_like(mask).triu(-1))


def placed(q, k, v, mask):
    """Keys are weighted by their place in memory."""
    return right(q, k * torch.linspace(1, 2, k.shape[2])[:, None], v, mask)


def doubled(q, k, v, mask):
    out, weights = right(q, k, v, mask)
    return 2 * out, 2 * weights


def unscaled(q, k, v, mask):
    return right(q * D**0.5, k, v, mask)


def without_padding(q, k, v, mask):
    """Every sequence gets the mask of the first, which has no padding."""
    return right(q, k, v, mask if mask.ndim < 3 else mask[:1])


def in_turns(q, k, v, mask):
    return right(q, k.repeat(1, H // H_KV, 1, 1), v.repeat(1, H // H_KV, 1, 1), mask)


def detached(q, k, v, mask):
    return right(q, k.detach(), v, mask)


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
    """A layer whose cache claims to take nothing."""

    def new_cache(self, batch_size, capacity):
        class Cache(attnlib.KVCache):
            nbytes = 0

        return Cache(batch_size, H, capacity, D, dtype=torch.float64)


class Sharing(attnlib.MultiHeadAttention):
    """A layer that is right alone, whose cache keeps one sequence for all."""

    def forward(self, x, cache=None, **options):
        if cache is not None:
            x = x + 0 * cache.seen
        out = super().forward(x, cache, **options)
        if cache is not None:
            cache._k[:], cache._v[:] = cache._k[-1:].clone(), cache._v[-1:].clone()
        return out


def layer_of(kind):
    return kind(D_MODEL, H, head_dim=D)


RIGHT = {H: FunctionLayer(right), H_KV: FunctionLayer(right, H_KV)}

# The check that must fail, the layer, and words that the report must have.
WRONG = [
    ("equals the reference", FunctionLayer(doubled), "tokens 0 to 6 differ"),
    ("equals the reference", FunctionLayer(unscaled), "tokens 1 to 6 differ"),
    ("no future leak", FunctionLayer(unmasked), "and the output of token"),
    ("reach", FunctionLayer(short_sighted), "token 0 was changed, and the output of token 6"),
    ("permutation", FunctionLayer(placed), "tokens in another order: outputs differ"),
    ("rows sum to one", FunctionLayer(doubled), "rows sum to between 2.000 and 2.000"),
    ("cached = uncached", layer_of(Forgetful), "7 of 7 ways differ"),
    (
        "head grouping",
        FunctionLayer(in_turns, H_KV),
        "query heads 0 and 3 changed instead of 0 and 1",
    ),
    (
        "scale",
        FunctionLayer(unscaled),
        "multiplied by 1.000 where 1 / sqrt(4) = 0.500 (no scale",
    ),
    ("padding", FunctionLayer(without_padding), "a row with"),
    (
        "rows without keys",
        FunctionLayer(unguarded),
        "outputs of 11 of 11 queries without keys are NaN or infinite; after a second layer,"
        " those of 17 of 24 real tokens too",
    ),
    (
        "rows without keys",
        FunctionLayer(evenly),
        "the query of token 1 sees no key, and its output moved by",
    ),
    ("batch = its rows", layer_of(Chatty), "in one pass, sequences differ by"),
    ("batch = its rows", layer_of(Sharing), "with a cache, sequences differ by"),
    ("gradients", FunctionLayer(detached), "none reaches k_proj.weight"),
    ("cache bytes", layer_of(Wasteful), "2 times the 13,440 that are needed"),
    ("cache bytes", layer_of(Untruthful), "nbytes says 0"),
]


@pytest.mark.parametrize(("name", "layer", "words"), WRONG)
def test_a_check_fails_and_gives_the_reason(name, layer, words):
    cached = isinstance(layer, attnlib.MultiHeadAttention)
    reference = mha() if cached else RIGHT[layer.n_kv_heads]
    report = CHECKS[name](layer, reference)
    assert (report.check, report.verdict) == (name, FAILS), report
    assert words in report.found, report.found
    assert report.hint
    assert not report


def test_every_check_was_seen_to_fail():
    assert {name for name, _, _ in WRONG} == set(CHECKS)


@pytest.mark.parametrize("n_kv_heads", RIGHT)
def test_the_right_function_passes(n_kv_heads):
    """Catches a wrong layer above that fails for what it has in common with the right one."""
    reports = check_layer(RIGHT[n_kv_heads], RIGHT[n_kv_heads])
    assert not reports.failed, reports
    silent = {report.check for report in reports if report.verdict == NOT_ASKED}
    assert silent == {"cached = uncached", "cache bytes"}


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


def test_order_inside_a_window_counts():
    """Catches a permutation that a windowed layer passes because nothing was exchanged."""
    wrong = Windowed(4)
    wrong.register_forward_pre_hook(
        lambda _, args: (args[0] * torch.linspace(1, 2, args[0].shape[1])[:, None],)
    )
    assert CHECKS["permutation"](wrong).verdict == FAILS
    still = Windowed(4, attnlib.Rope())
    still.rotated = lambda x, at: x
    report = CHECKS["permutation"](still)
    assert report.verdict == FAILS
    assert "in spite of RoPE" in report.found


def test_a_bias_of_keys_needs_no_gradient_and_any_other_does():
    """Catches a bias that nothing uses, and a right layer that fails because of its keys."""
    layer = mha(bias=True)
    assert CHECKS["gradients"](layer).found == "all 7 tensors of weights"
    layer.extra = nn.Module()
    layer.extra.bias = nn.Parameter(torch.zeros(4))
    assert "none reaches extra.bias" in CHECKS["gradients"](layer).found


def test_nan_is_a_failure_with_a_hint_of_its_own():
    """Catches NaN that passes a check because no comparison with it is true."""
    flipped_and_unguarded = FunctionLayer(lambda q, k, v, mask: unguarded(q, k, v, ~mask))
    reports = check_layer(flipped_and_unguarded, RIGHT[H])
    for report in reports:
        if report.check in ("no future leak", "batch = its rows", "head grouping"):
            assert report.verdict == FAILS, report
            assert "the output of token 6 is NaN" in report.found
            assert "wrong way round" in report.hint


def test_rows_of_padding_may_be_nan():
    """Catches a check of real tokens that requires what only the next check asks."""
    for function in (unguarded, evenly):
        assert CHECKS["padding"](FunctionLayer(function), RIGHT[H]).verdict == HOLDS


def test_a_query_without_keys_may_see_itself():
    """Catches a check that allows only one way to avoid NaN."""
    report = CHECKS["rows without keys"](FunctionLayer(on_itself))
    assert report.verdict == HOLDS
    assert report.found == "11 queries that see no key, and the tokens of a second layer"


def test_an_infinity_that_appears_in_the_second_layer_is_seen():
    """Catches a check that looks at one layer only."""

    class Overflowing(attnlib.MultiHeadAttention):
        def forward(self, x, cache=None, **options):
            out = super().forward(x, cache, **options)
            return out.masked_fill(out.abs().sum(dim=-1, keepdim=True) == 0, 1e200) ** 2

    report = CHECKS["rows without keys"](layer_of(Overflowing))
    assert report.verdict == FAILS
    assert "after a second layer" in report.found


# What is not asked, and errors.


def test_what_a_layer_cannot_do_is_not_asked():
    """Catches a check that fails a learner's layer for what was not required of it."""

    class Small(attnlib.MultiHeadAttention):
        def forward(self, x):
            return super().forward(x)

    layer = Small(D_MODEL, H, head_dim=D)
    reports = {report.check: report for report in check_layer(layer, mha())}
    silent = {name for name, report in reports.items() if report.verdict == NOT_ASKED}
    assert silent == {
        "rows sum to one", "cached = uncached", "scale", "padding", "rows without keys",
        "cache bytes",
    }  # fmt: skip
    assert reports["padding"].found == "forward takes no key_mask"
    assert testing.Reports(reports.values()).hold


def test_weights_that_are_not_returned_are_not_asked_for():
    class Mute(attnlib.MultiHeadAttention):
        def forward(self, x, return_weights=False):
            return super().forward(x)

    report = CHECKS["rows sum to one"](layer_of(Mute))
    assert (report.verdict, report.found) == (NOT_ASKED, testing.NO_WEIGHTS)


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


@pytest.mark.parametrize("argument", ["window", "d_model"])
def test_a_size_below_one_is_refused(argument):
    with pytest.raises(ValueError, match=f"{argument} must be at least 1, got 0"):
        check_layer(mha(), **{argument: 0})


# The list of checks.


def test_checks_are_the_functions_of_the_module_in_their_order():
    """Catches a check that is written and not run, and an order that depends on imports."""
    source = inspect.getsource(testing.checks)
    at = [source.index(f'@check("{name}")') for name in CHECKS]
    assert at == sorted(at)
    assert source.count("\n@check(") == len(CHECKS)
    assert all(one.check_name == name for name, one in CHECKS.items())
    assert {one.__name__ for one in CHECKS.values()} <= set(testing.__all__)


def test_a_check_of_ones_own_runs_beside_the_others():
    """Catches one that enters the list of checks for everybody who has imported it."""
    before = list(CHECKS)

    @check("reach")
    def reads_nothing(layer, reference=None):
        """Holds for any layer."""
        return "nothing was read"

    reports = check_layer(mha(), checks=["no future leak", reads_nothing])
    assert [report.check for report in reports] == ["no future leak", "reach"]
    assert reports[1].found == "nothing was read"
    assert list(CHECKS) == before
    assert CHECKS["reach"] is testing.reach


def test_windows_are_read_in_tokens_that_the_checks_have():
    assert TOKENS == 7, "the windows of this file are chosen for seven tokens"
