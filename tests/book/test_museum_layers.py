"""The reference layers equal the library's, with and without a cache, and pass every check.

Catches a reference that is wrong itself: every difference that the museum shows would lie.
"""

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
)
from attnlib.testing import HOLDS, check_layer

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
    for sizes in ([3, 4], [1] * T, [5, 1, 1]):
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
    assert {report.verdict for report in check_layer(reference, library)} == {HOLDS}


def test_reference_layers_declare_what_the_library_declares(pair):
    """Catches a size that the checks would have to guess."""
    reference, library = pair
    for name in ("n_heads", "n_kv_heads", "rope"):
        assert getattr(reference, name) == getattr(library, name), name


def test_kv_heads_and_the_width_of_heads_may_be_left_out():
    layer = ReferenceAttention(12, 3)
    assert (layer.n_kv_heads, layer.head_dim) == (3, 4)
    assert layer(torch.zeros(2, 5, 12)).shape == (2, 5, 12)


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
