"""The reference layers equal the library's, with and without a cache, and pass every check.

Catches a reference that is wrong itself: every difference that the museum shows would lie.
"""

import math

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

import attnlib
from attnlib import Rope
from attnlib.book.museum import (
    ReferenceAttention,
    ReferenceCache,
    ReferenceLatentAttention,
    ReferenceRing,
    ReferenceSplitAttention,
    ReferenceWindowAttention,
)
from attnlib.testing import HOLDS, NOT_ASKED, check_layer
from attnlib.variants.swa import SlidingWindowAttention

PAIRS = {
    **{
        f"{n_kv_heads} KV heads, {name}": (
            lambda n=n_kv_heads, r=rope: ReferenceAttention(D_MODEL, H, n, head_dim=D, rope=r),
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
        lambda: ReferenceLatentAttention(D_MODEL, H, **LATENT),
        lambda: attnlib.MultiHeadLatentAttention(D_MODEL, H, **LATENT),
    ),
    "latent of queries too, interleaved": (
        lambda: ReferenceLatentAttention(D_MODEL, H, **Q_LATENT, rope=Rope(interleaved=True)),
        lambda: attnlib.MultiHeadLatentAttention(
            D_MODEL, H, **Q_LATENT, rope=Rope(interleaved=True)
        ),
    ),
    **{
        f"window of {window}, {options}": (
            lambda w=window, o=options: ReferenceWindowAttention(
                D_MODEL, H, 2, w, head_dim=D, **o
            ),
            lambda w=window, o=options: SlidingWindowAttention(
                D_MODEL, H, 2, w, head_dim=D, **o
            ),
        )
        for window, options in (
            (3, {}),
            (1, {"rope": Rope(base=500.0)}),
            (3, {"first": 2, "rope": Rope()}),
            (5, {"sinks": True}),
            (2, {"sinks": True, "first": 1, "rope": Rope(interleaved=True)}),
        )
    },
    **{
        f"{n_kv_heads} KV heads on two devices, {name}": (
            lambda n=n_kv_heads, r=rope: ReferenceSplitAttention(
                D_MODEL, 12, n, head_dim=D, rope=r
            ),
            lambda n=n_kv_heads, r=rope: attnlib.GroupedQueryAttention(
                D_MODEL, 12, n, head_dim=D, rope=r
            ),
        )
        for n_kv_heads in (12, 4, 2)
        for name, rope in (("no positions", None), ("interleaved", Rope(interleaved=True)))
    },
    "sixth layer, which has no window": (
        lambda: ReferenceWindowAttention(D_MODEL, H, 2, 3, head_dim=D, rope=Rope(), index=5),
        lambda: attnlib.GroupedQueryAttention(D_MODEL, H, 2, head_dim=D, rope=Rope()),
    ),
}


@pytest.fixture(params=PAIRS)
def pair(request):
    """A reference layer and the library's, with the same weights."""
    reference, library = (randomise(build()) for build in PAIRS[request.param])
    library.load_state_dict(reference.state_dict())
    return reference, library


def test_reference_layers_equal_the_library(pair):
    """Catches a wrong step, with each option."""
    reference, library = pair
    x = hidden()
    key_mask = left_padding([0, 1, 2, 3, T], T)  # the last sequence is padding only
    for options in ({}, {"causal": False}, {"key_mask": key_mask}):
        out, weights = reference(x, return_weights=True, **options)
        expected, expected_weights = library(x, return_weights=True, **options)
        close(out, expected)
        close(weights, expected_weights)
        close(reference(x, **options), expected)


def test_reference_caches_equal_the_library(pair):
    """Catches a cache that keeps the wrong rows, at each split and with padding."""
    x, key_mask = hidden(), left_padding([0, 1, 2, 3, 4], T)
    for sizes in ([3, 4], [1] * T, [5, 1, 1], [1, 1, 5]):
        caches, end = [layer.new_cache(B, T + 2) for layer in pair], 0
        for step in x.split(sizes, dim=1):
            end += step.shape[1]
            out, expected = (
                layer(step, cache, key_mask=key_mask[:, :end])
                for layer, cache in zip(pair, caches, strict=True)
            )
            close(out, expected)
        assert caches[0].nbytes == caches[1].nbytes
        assert caches[0].seen == caches[1].seen == T


def test_reference_layers_pass_every_check(pair):
    """Catches a check that takes a right layer for a wrong one."""
    reference, library = pair
    verdicts = {report.check: report.verdict for report in check_layer(reference, library)}
    if getattr(reference, "first", 0):  # of a row with padding, the first tokens are padding
        assert verdicts.pop("padding") == NOT_ASKED
    if getattr(reference, "window", None) in (1, 2):  # too few keys to ask about
        verdicts = {name: found for name, found in verdicts.items() if found != NOT_ASKED}
    assert {*verdicts.values()} == {HOLDS}


def test_reference_layers_declare_what_the_library_declares(pair):
    """Catches a size that the checks would have to guess."""
    reference, library = pair
    for name in ("n_heads", "n_kv_heads", "rope"):
        assert getattr(reference, name) == getattr(library, name), name
    for name, none in (("window", None), ("first", 0)):
        assert getattr(reference, name, none) == getattr(library, name, none), name


def test_kv_heads_and_the_width_of_heads_may_be_left_out():
    layer = ReferenceAttention(12, 3)
    assert (layer.n_kv_heads, layer.head_dim) == (3, 4)
    assert layer(torch.zeros(2, 5, 12)).shape == (2, 5, 12)


def test_a_rank_has_half_of_the_cache_and_the_heads_of_its_own_keys():
    """Catches ranks that all keep the same heads, which outputs of one process do not show."""
    layer = randomise(ReferenceSplitAttention(D_MODEL, 12, 4, head_dim=D))
    x, cache = hidden(), layer.new_cache(B, T)
    layer(x, cache)
    _, k, v = layer.project(x)
    kept = torch.stack(cache.rows)  # (B, 2, ranks, H_kv / ranks, T, D)
    assert kept.shape == (B, 2, 2, 2, T, D)
    close(kept[:, 0, 1], k[:, 2:])
    close(kept[:, 1, 0], v[:, :2])


def test_parts_are_joined_by_what_they_weigh():
    """Catches a part without keys that counts, and shares that do not sum to 1."""
    layer = ReferenceSplitAttention(D_MODEL, 12, 4, head_dim=D)
    parts = torch.tensor([[3.0], [7.0]]).view(2, 1, 1, 1, 1)  # (parts, B, H, T, D)
    for lses, expected in (
        ([0.0, math.log(3.0)], 6.0),
        ([2.0, -math.inf], 3.0),
        ([-math.inf, -math.inf], 0.0),
    ):
        joined = layer.join(parts, torch.tensor(lses).view(2, 1, 1, 1))
        assert joined.item() == pytest.approx(expected)


def test_a_cache_hands_back_what_was_stored():
    """Catches rows that are swapped between sequences, and a history that is kept."""
    cache = ReferenceCache([torch.zeros(2, 4, 3), torch.zeros(2, 4, 3)])
    new = torch.arange(24.0).reshape(2, 2, 2, 3).requires_grad_()
    assert torch.equal(cache.update(new), new)
    stored = cache.update(10 * new[:, :, :1])
    assert stored.shape == (2, 2, 3, 3)
    assert torch.equal(stored[:, :, 2], 10 * new[:, :, 0])
    assert not stored.requires_grad
    assert (cache.seen, cache.nbytes) == (3, 2 * 24 * 4)


def test_a_ring_hands_back_what_it_holds_and_where_it_stood():
    """Catches a row that is read before it is filled, or under its earlier position."""
    ring = ReferenceRing([torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)])
    assert ring.held()[0].shape == (2, 2, 0, 4)
    new = torch.arange(80.0).reshape(2, 2, 5, 4).requires_grad_()
    ring.store(new[:, :, :2], [0, 1])
    entries, at = ring.held()
    assert torch.equal(entries, new[:, :, :2]) and at.tolist() == [0, 1]
    ring.store(new[:, :, 2:], [2, 1, 2])
    entries, at = ring.held()
    assert torch.equal(entries, new[:, :, [0, 3, 4]]) and at.tolist() == [0, 3, 4]
    assert not entries.requires_grad
    assert (ring.seen, ring.nbytes) == (5, 2 * 24 * 4)


def test_checks_see_what_a_window_layer_declares():
    """Catches a check that ignores sinks, or the first tokens that every query sees."""
    reports = {
        name: {report.check: report for report in check_layer(layer)}
        for name, layer in {
            "sinks": ReferenceWindowAttention(D_MODEL, H, 2, 3, head_dim=D, sinks=True),
            "first": ReferenceWindowAttention(D_MODEL, H, 2, 3, head_dim=D, first=2),
        }.items()
    }
    assert "what the sinks take" in reports["sinks"]["rows sum to one"].found
    assert "or with the first 2" in reports["first"]["reach"].found


def test_a_sink_that_takes_no_weight_is_noticed():
    layer = ReferenceWindowAttention(D_MODEL, H, 2, 3, head_dim=D, sinks=True)
    layer.sink_logits = lambda: None
    (report,) = check_layer(layer, checks=["rows sum to one"])
    assert not report and "the layer has sinks" in report.hint
