"""Conversions of rotated layers: exact where they claim to be, in prefill and in decode."""

import re

import pytest
import torch
from helpers import D_MODEL, H_KV, B, D, H, T, close, gqa, hidden, mha, randomise

from attnlib import GroupedQueryAttention, NtkScaling, Rope
from attnlib.labs.rotary import gqa_to_rebuilt, rotary_gqa_to_mla, to_half_split

ROPES = pytest.mark.parametrize("interleaved", [False, True])
WIDTH = 2 * H_KV * D
FULL = min(WIDTH, D_MODEL)  # a latent that loses nothing


def says(message):
    return pytest.raises(ValueError, match=re.escape(message))


def source(interleaved=True):
    return randomise(gqa(rope=Rope(100.0, interleaved=interleaved)))


def in_steps(layer, x, split):
    cache = layer.new_cache(len(x), x.shape[1], dtype=x.dtype)
    parts = [layer(x[:, :split], cache)]
    parts += [layer(x[:, t : t + 1], cache) for t in range(split, x.shape[1])]
    return torch.cat(parts, dim=1), cache


@ROPES
@pytest.mark.parametrize("absorb", [True, False])
def test_rotated_gqa_is_mla_exactly(interleaved, absorb):
    layer, x = source(interleaved), hidden()
    close(rotary_gqa_to_mla(layer)(x, absorb=absorb), layer(x))


@ROPES
@pytest.mark.parametrize(
    ("convert", "numbers"),
    [(rotary_gqa_to_mla, WIDTH), (lambda layer: gqa_to_rebuilt(layer, FULL), FULL)],
)
@pytest.mark.parametrize("split", [1, T - 1])
def test_decode_with_a_cache_as_large_as_promised(interleaved, convert, numbers, split):
    """Catches keys that are turned by another position than their own."""
    layer, x = source(interleaved), hidden()
    out, cache = in_steps(convert(layer), x, split)
    close(out, layer(x))
    assert cache.nbytes == B * T * numbers * x.element_size()


def test_each_sequence_at_its_own_positions():
    layer, x = source(), hidden()
    at = torch.arange(T).expand(len(x), -1) + 3 * torch.arange(len(x))[:, None] - 2
    want = layer(x, positions=at)
    close(rotary_gqa_to_mla(layer)(x, positions=at), want)
    rebuilt = gqa_to_rebuilt(layer, FULL, hidden=hidden(tokens=60))
    close(rebuilt(x, positions=at), want)
    cache = rebuilt.new_cache(len(x), T, dtype=x.dtype)
    close(rebuilt(x, cache, positions=at), want)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_a_latent_by_activations_loses_least_on_them(rank):
    """Catches directions of the wrong matrix: on its own text the guide must win."""
    layer, x = source(), hidden(tokens=60)
    scales = 10.0 ** -torch.linspace(0, 2, D_MODEL, dtype=x.dtype)
    x = x * scales
    kv = torch.cat([layer.k_proj(x), layer.v_proj(x)], dim=-1)
    errors = []
    for guide in (x, None):
        made = gqa_to_rebuilt(layer, rank, hidden=guide)
        errors.append((made.kv_up(made.kv_down(x)) - kv).norm())
    assert errors[0] < 0.9 * errors[1]


def test_only_the_place_of_numbers_changes():
    layer, x = source(interleaved=True), hidden()
    other = GroupedQueryAttention(D_MODEL, H, H_KV, head_dim=D, rope=Rope(100.0)).to(x.dtype)
    weights = layer.state_dict()
    weights["q_proj.weight"] = to_half_split(weights["q_proj.weight"], H)
    weights["k_proj.weight"] = to_half_split(weights["k_proj.weight"], H_KV)
    other.load_state_dict(weights)
    close(other(x), layer(x))


@pytest.mark.parametrize("convert", [rotary_gqa_to_mla, lambda a: gqa_to_rebuilt(a, 2)])
def test_what_cannot_be_converted(convert):
    with says("layer must be GroupedQueryAttention, got MultiHeadAttention"):
        convert(mha(rope=Rope()))
    for rope in (None, Rope(scaling=NtkScaling(2.0)), Rope(rotary_dim=2)):
        with says("layer must have a rope of whole heads without scaling"):
            convert(gqa(rope=rope))
    with says("layer must have bias=False"):
        convert(gqa(rope=Rope(), bias=True))


def test_a_rank_that_does_not_fit():
    with says("rank must be at most"):
        gqa_to_rebuilt(source(), WIDTH + D_MODEL)
