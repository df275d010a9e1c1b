"""Conversions: what is exact is exact to rounding, and the rest is the best there is."""

import copy
import re

import pytest
import torch
from helpers import D_MODEL, H_KV, B, D, G, H, T, close, gqa, hidden, mha, mla, mqa, randomise

from attnlib import Rope
from attnlib.labs.convert import UNUSED_ROPE_DIM, gqa_to_mla, mha_to_gqa, mha_to_mla

WIDTH = 2 * H * D  # of all keys and values of a token
FULL = min(WIDTH, D_MODEL)
LATENT_SOURCES = {"mha": mha, "gqa": gqa, "mqa": mqa}
EVERY_SOURCE = pytest.mark.parametrize("build", LATENT_SOURCES.values(), ids=LATENT_SOURCES)
EVERY_WAY = pytest.mark.parametrize("how", ["mean", "first", "random"])


def says(message):
    return pytest.raises(ValueError, match=re.escape(message))


def anisotropic(tokens=200):
    """Hidden states that mostly vary along a few directions, as real ones do."""
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(tokens, D_MODEL, generator=generator, dtype=torch.float64)
    scales = 10.0 ** -torch.linspace(0, 3, D_MODEL, dtype=torch.float64)
    turn = torch.randn(D_MODEL, D_MODEL, generator=generator, dtype=torch.float64)
    return states * scales @ torch.linalg.qr(turn).Q  # (tokens, d_model)


def keys_and_values(layer, x):
    return torch.cat([layer.k_proj(x), layer.v_proj(x)], dim=-1)  # (..., H_kv * 2D)


def expanded(layer, x):
    """All keys, then all values, of a layer of MLA: in the order of :func:`keys_and_values`."""
    latent = layer.kv_a_proj_with_mqa(x)[..., : layer.kv_lora_rank]
    kv = layer.kv_b_proj(latent).unflatten(-1, (layer.n_heads, 2, layer.qk_nope_head_dim))
    return kv.transpose(-2, -3).flatten(-3)  # (..., 2 * H * D)


# MHA to GQA


@EVERY_WAY
def test_as_many_kv_heads_as_heads_keep_or_redraw_everything(how):
    """Catches groups cut along the wrong axis: with one head per group nothing is averaged."""
    layer, x = randomise(mha(rope=Rope())), hidden()
    made = mha_to_gqa(layer, H, how, generator=torch.Generator().manual_seed(1))
    same = torch.allclose(made(x), layer(x), rtol=1e-12, atol=1e-12)
    assert same == (how != "random")


@pytest.mark.parametrize("n_kv_heads", [1, 2, 3])
@pytest.mark.parametrize("how", ["mean", "first"])
@pytest.mark.parametrize("bias", [False, True])
def test_pooling_equal_heads_is_exact(n_kv_heads, how, bias):
    """Catches groups in turns, keys pooled and values not, and biases that are forgotten."""
    layer = randomise(mha(rope=Rope(base=300.0, interleaved=True), bias=bias))
    group = H // n_kv_heads
    with torch.no_grad():
        for projection in (layer.k_proj, layer.v_proj):
            for parameter in projection.parameters():
                heads = parameter.view(n_kv_heads, group, D, -1)
                heads[:, 1:] = heads[:, :1]
    made = mha_to_gqa(layer, n_kv_heads, how)
    assert made.n_kv_heads == n_kv_heads
    assert made.k_proj.out_features == n_kv_heads * D
    close(made(hidden()), layer(hidden()))


def test_each_head_of_the_result_by_hand():
    """Catches a mean over the wrong heads, and a first head that is not the first."""
    layer = randomise(mha())
    rows = layer.v_proj.weight.view(H, D, D_MODEL)
    mean, first = (mha_to_gqa(layer, H_KV, how).v_proj.weight for how in ("mean", "first"))
    for g in range(H_KV):
        close(mean.view(H_KV, D, -1)[g], sum(rows[g * G + i] for i in range(G)) / G)
        assert torch.equal(first.view(H_KV, D, -1)[g], rows[g * G])


def test_random_heads_are_as_linear_draws_them_and_follow_the_generator():
    """Catches a draw on another scale, keys equal to values, and an unused generator."""
    layer = randomise(mha(bias=True))

    def drawn(seed):
        return mha_to_gqa(layer, 3, "random", generator=torch.Generator().manual_seed(seed))

    one, again, other = drawn(1), drawn(1), drawn(2)
    assert torch.equal(one.k_proj.weight, again.k_proj.weight)
    assert not torch.equal(one.k_proj.weight, other.k_proj.weight)
    assert not torch.equal(one.k_proj.weight, one.v_proj.weight)
    for weight in (one.k_proj.weight, one.v_proj.weight):
        assert 0.9 * D_MODEL**-0.5 < weight.abs().max() <= D_MODEL**-0.5
        assert abs(weight.mean()) < 0.2 * D_MODEL**-0.5
    assert not one.k_proj.bias.any()


@EVERY_WAY
def test_queries_outputs_dtype_and_rope_are_taken_over(how):
    layer = randomise(mha(rope=Rope(base=77.0), bias=True), torch.float32)
    made = mha_to_gqa(layer, 2, how)
    assert made.rope == layer.rope
    assert {p.dtype for p in made.parameters()} == {torch.float32}
    for name in ("q_proj", "o_proj"):
        for was, now in zip(
            getattr(layer, name).parameters(), getattr(made, name).parameters(), strict=True
        ):
            assert torch.equal(was, now)


def convert_all(layer):
    """A result of each conversion that the layer allows."""
    if layer.rope is None:
        yield from (
            gqa_to_mla(layer),
            mha_to_mla(layer, 3),
            mha_to_mla(layer, 3, hidden=hidden()),
        )
    yield mha_to_gqa(layer, 2, "mean")


def test_the_layer_that_is_converted_stays_and_shares_nothing():
    """Catches a conversion in place: a lab compares the new layer with the old one."""
    layer = randomise(mha())
    before = copy.deepcopy(layer.state_dict())
    for made in convert_all(layer):
        with torch.no_grad():
            for parameter in made.parameters():
                assert parameter.requires_grad
                parameter.fill_(9.0)
    for name, weight in layer.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_gradients_reach_a_converted_layer():
    """Catches parameters made without a graph, which uptraining would leave alone."""
    for made in convert_all(randomise(mha())):
        made(hidden()).square().mean().backward()
        touched = {name for name, p in made.named_parameters() if p.grad is not None}
        assert touched == {name for name, _ in made.named_parameters()}


# GQA to MLA


@EVERY_SOURCE
@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_a_layer_written_as_mla_computes_the_same(build, absorb, causal):
    """Catches a wrong scale, heads in turns, keys for values, and a norm that is left on."""
    layer, x = randomise(build()), hidden()
    made = gqa_to_mla(layer)
    out, weights = made(x, causal=causal, absorb=absorb, return_weights=True)
    want, want_weights = layer(x, causal=causal, return_weights=True)
    close(weights, want_weights)
    close(out, want)
    close(made(x, causal=causal, absorb=absorb), want)


@pytest.mark.parametrize("absorb", [False, True])
@pytest.mark.parametrize("split", range(1, T))
def test_and_with_a_cache_at_every_split(absorb, split):
    """Catches a latent that is right in one pass and not as it comes back from the cache."""
    layer, x = randomise(gqa()), hidden()
    made = gqa_to_mla(layer)
    cache, want_cache = made.new_cache(B, T), layer.new_cache(B, T)
    for part in (x[:, :split], *x[:, split:].split(1, dim=1)):  # a prefill, then decode steps
        close(made(part, cache, absorb=absorb), layer(part, want_cache))


def test_padding_is_hidden_alike():
    layer, x = randomise(gqa()), hidden()
    mask = torch.arange(T)[None] >= torch.arange(B)[:, None]
    close(gqa_to_mla(layer)(x, key_mask=mask), layer(x, key_mask=mask))


@EVERY_SOURCE
def test_the_cache_is_as_large_but_for_the_unused_rotary_key(build):
    layer = randomise(build())
    extra = B * 9 * UNUSED_ROPE_DIM * 8  # float64
    assert gqa_to_mla(layer).new_cache(B, 9).nbytes == layer.new_cache(B, 9).nbytes + extra


def test_the_latent_is_keys_and_values_and_the_rotary_key_is_zero():
    layer, x = randomise(gqa()), hidden()
    made = gqa_to_mla(layer)
    rows = made.kv_a_proj_with_mqa(x)
    close(rows[..., :-UNUSED_ROPE_DIM], keys_and_values(layer, x))
    assert not rows[..., -UNUSED_ROPE_DIM:].any()


# MHA to MLA


@EVERY_SOURCE
@pytest.mark.parametrize("states", [None, "white", "real"])
def test_full_rank_is_exact(build, states):
    """Catches directions in the wrong order, and a way down that does not fit the way up."""
    layer, x = randomise(build()), hidden()
    full = min(2 * layer.k_proj.out_features, D_MODEL)
    seen = {None: None, "white": hidden(9, 11, seed=2), "real": anisotropic()}[states]
    made = mha_to_mla(layer, full, hidden=seen)
    close(made(x), layer(x), 1e-9)
    cache, want_cache = made.new_cache(B, T), layer.new_cache(B, T)
    for part in x.split(1, dim=1):
        close(made(part, cache), layer(part, want_cache), 1e-9)


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_weights_alone_leave_the_singular_values_beyond_the_rank(rank):
    """What the best approximation of a matrix leaves is known (Eckart and Young, 1936)."""
    layer = randomise(mha())
    made, eye = mha_to_mla(layer, rank), torch.eye(D_MODEL, dtype=torch.float64)
    error = expanded(made, eye) - keys_and_values(layer, eye)
    stacked = torch.cat([layer.k_proj.weight, layer.v_proj.weight])
    rest = torch.linalg.svdvals(stacked)[rank:]
    close(error.norm(), rest.norm(), 1e-10)


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_hidden_states_leave_the_spectrum_of_what_they_lead_to(rank):
    """The same for keys and values themselves; and less is lost than by the weights alone."""
    layer, x = randomise(mha()), anisotropic()
    want = keys_and_values(layer, x)
    by_states = (expanded(mha_to_mla(layer, rank, hidden=x), x) - want).norm()
    by_weights = (expanded(mha_to_mla(layer, rank), x) - want).norm()
    close(by_states, torch.linalg.svdvals(want)[rank:].norm(), 1e-10)
    assert by_states < 0.8 * by_weights


def test_states_of_any_shape_and_dtype_are_the_same_states():
    layer, x = randomise(mha(), torch.float32), anisotropic()
    flat = mha_to_mla(layer, 6, hidden=x)
    batched = mha_to_mla(layer, 6, hidden=x.view(4, 50, D_MODEL).float().requires_grad_())
    assert batched.kv_a_proj_with_mqa.weight.dtype == torch.float32
    x = hidden(dtype=torch.float32)
    torch.testing.assert_close(flat(x), batched(x), rtol=1e-3, atol=1e-4)


def test_a_latent_caches_its_rank():
    layer = randomise(mha())
    numbers = B * 9 * (5 + UNUSED_ROPE_DIM)
    assert mha_to_mla(layer, 5).new_cache(B, 9).nbytes == 8 * numbers


# Errors


def test_kv_heads_that_are_shared_already_can_be_shared_further():
    """Catches groups counted by query heads: G of them belong to one KV head."""
    layer = randomise(gqa())
    made = mha_to_gqa(layer, 1, "mean")
    want = layer.k_proj.weight.unflatten(0, (H_KV, D)).mean(dim=0)
    close(made.k_proj.weight, want)
    assert (made.n_heads, made.n_kv_heads) == (H, 1)
    close(made.q_proj.weight, layer.q_proj.weight)


def test_layers_of_another_kind_are_refused():
    with says("or GroupedQueryAttention, got MultiHeadLatentAttention"):
        mha_to_gqa(mla(), 2, "mean")
    with says("or MultiQueryAttention, got MultiHeadLatentAttention"):
        gqa_to_mla(mla())
    with says("or MultiQueryAttention, got MultiHeadLatentAttention"):
        mha_to_mla(mla(), 3)


def test_heads_that_do_not_divide_and_unknown_ways_are_refused():
    with says("got n_heads=6, n_kv_heads=4"):
        mha_to_gqa(mha(), 4, "mean")
    with says("how must be one of mean, first, random, got 'median'"):
        mha_to_gqa(mha(), 2, "median")


@pytest.mark.parametrize("convert", [gqa_to_mla, lambda layer: mha_to_mla(layer, 3)])
def test_rotation_and_biases_are_refused(convert):
    """Catches a conversion that drops positions or biases and says nothing."""
    with says("layer must have rope=None"):
        convert(gqa(rope=Rope()))
    with says("layer must have bias=False"):
        convert(gqa(bias=True))


def test_ranks_and_states_that_do_not_fit_are_refused():
    with says("rank must be an integer of at least 1, got 0"):
        mha_to_mla(mha(), 0)
    with says(f"rank must be at most {FULL}"):
        mha_to_mla(mha(), FULL + 1)
    with says(f"rank must be at most {2 * D}"):
        mha_to_mla(mqa(), 2 * D + 1)
    with says(f"hidden must be (..., {D_MODEL}), got (4, 3)"):
        mha_to_mla(mha(), 3, hidden=torch.zeros(4, 3))
    with says(f"hidden must be (..., {D_MODEL}), got ({D_MODEL},)"):
        mha_to_mla(mha(), 3, hidden=torch.zeros(D_MODEL))
    with says("hidden must have at least rank = 3 states, got 2"):
        mha_to_mla(mha(), 3, hidden=torch.zeros(2, 1, D_MODEL))
