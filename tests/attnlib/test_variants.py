"""What every variant must do, by the seven families of the style guide."""

import copy

import pytest
import torch
from helpers import (
    CASES,
    GEOMETRIES,
    H_KV,
    B,
    D,
    H,
    T,
    buffers,
    close,
    dense_reference,
    gqa,
    has_latent,
    hidden,
    left_padding,
    make,
    mha,
    mla,
    mqa,
    randomise,
)
from helpers import (
    build as build_case,
)
from torch import nn

from attnlib import DynamicNtkScaling, MultiHeadAttention, NtkScaling, Rope
from attnlib.testing import check_layer

EVERY_VARIANT = pytest.mark.parametrize("variant", CASES)
CAUSAL = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])


def in_chunks(layer, x, sizes, *, capacity=None, key_mask=None, **options):
    """The output of a sequence that comes in chunks, through a cache."""
    cache = layer.new_cache(x.shape[0], capacity or x.shape[1], dtype=x.dtype)
    outputs = []
    for chunk in x.split(sizes, dim=1):
        end = cache.seen + chunk.shape[1]
        mask = None if key_mask is None else key_mask[:, :end]
        outputs.append(layer(chunk, cache, key_mask=mask, **options))
    assert cache.seen == x.shape[1]
    return torch.cat(outputs, dim=1)


# 1. Oracles


@EVERY_VARIANT
@CAUSAL
@pytest.mark.parametrize("padded", [False, True])
def test_layer_equals_dense_reference(variant, causal, padded):
    """Catches wrong grouping, scale, rotation, mask or merge; with weights and without."""
    layer, x = make(variant), hidden()
    key_mask = left_padding([0, 2, 5, 1, 3], T) if padded else None
    expected, expected_weights = dense_reference(layer, x, causal=causal, key_mask=key_mask)
    close(layer(x, causal=causal, key_mask=key_mask), expected)
    out, weights = layer(x, causal=causal, key_mask=key_mask, return_weights=True)
    close(out, expected)
    close(weights, expected_weights)


@CAUSAL
@pytest.mark.parametrize("bias", [False, True])
def test_mha_equals_torch(causal, bias):
    """Catches swapped projections or heads: the same weights in nn.MultiheadAttention."""
    ours = randomise(MultiHeadAttention(H * D, H, bias=bias))  # torch has no other widths
    theirs = nn.MultiheadAttention(H * D, H, bias=bias, batch_first=True, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(stack(ours, "weight"))
        theirs.out_proj.weight.copy_(ours.o_proj.weight)
        if bias:
            theirs.in_proj_bias.copy_(stack(ours, "bias"))
            theirs.out_proj.bias.copy_(ours.o_proj.bias)
    x = torch.randn(B, T, H * D, dtype=torch.float64)
    key_mask = left_padding([0, 1, 0, 0, 0], T)[:, torch.arange(T - 1, -1, -1)]  # on the right
    hidden_later = torch.ones(T, T, dtype=torch.bool).triu(1) if causal else None
    expected, expected_weights = theirs(
        x, x, x, attn_mask=hidden_later, key_padding_mask=~key_mask, average_attn_weights=False
    )
    out, weights = ours(x, causal=causal, key_mask=key_mask, return_weights=True)
    close(out, expected)
    close(weights, expected_weights)
    close(ours(x, causal=causal, key_mask=key_mask), expected)


def stack(layer, name):
    """Torch keeps the three input projections as one tensor."""
    parts = (layer.q_proj, layer.k_proj, layer.v_proj)
    return torch.cat([getattr(part, name) for part in parts])


# 2. Degenerate equality


@pytest.mark.parametrize("rope", [None, Rope(), Rope(interleaved=True)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("n_kv_heads", "end"), [(H, mha), (1, mqa)], ids=["mha", "mqa"])
def test_gqa_ends_in_mha_and_mqa(n_kv_heads, end, rope, bias):
    """Catches a variant that drifted from the others: same weights, same bits."""
    grouped = randomise(gqa(n_kv_heads, rope=rope, bias=bias))
    other = end(rope=rope, bias=bias).double()
    other.load_state_dict(grouped.state_dict())
    x = hidden()
    assert torch.equal(other(x), grouped(x))
    assert torch.equal(in_chunks(other, x, [4, 1, 2]), in_chunks(grouped, x, [4, 1, 2]))


def test_gqa_equals_mha_with_repeated_kv_heads():
    """Catches query heads dealt round to the KV heads (h % H_kv) instead of in blocks."""
    grouped = randomise(gqa(rope=Rope()))
    full = mha(rope=Rope()).double()
    weights = grouped.state_dict()
    for name in ("k_proj.weight", "v_proj.weight"):
        heads = weights[name].unflatten(0, (H_KV, D))  # (H_kv, D, d_model)
        weights[name] = heads.repeat_interleave(H // H_KV, dim=0).flatten(0, 1)
    full.load_state_dict(weights)
    close(full(hidden()), grouped(hidden()))


@pytest.mark.parametrize("build", [mha, mqa, gqa, mla])
def test_pairings_are_a_permutation_of_rows(build):
    """Catches an interleaved flag that is ignored: permuted q and k rows give equal outputs."""
    halves, interleaved = randomise(build(rope=Rope())), build(rope=Rope(interleaved=True))
    width = 4  # rotated numbers, the same in every build
    order = torch.tensor([0, 2, 1, 3])  # interleaved position of each half-split number
    weights = halves.state_dict()
    if build is mla:
        d_c, n = halves.kv_lora_rank, halves.qk_nope_head_dim
        key = weights["kv_a_proj_with_mqa.weight"].clone()
        key[d_c:] = key[d_c:][order]
        weights["kv_a_proj_with_mqa.weight"] = key
        query = weights["q_proj.weight"].unflatten(0, (H, n + width)).clone()
        query[:, n:] = query[:, n:][:, order]
        weights["q_proj.weight"] = query.flatten(0, 1)
    else:
        for name in ("q_proj.weight", "k_proj.weight"):
            weights[name] = weights[name].unflatten(0, (-1, width))[:, order].flatten(0, 1)
    interleaved.double().load_state_dict(weights)
    close(interleaved(hidden()), halves(hidden()))
    unpermuted = build(rope=Rope(interleaved=True)).double()
    unpermuted.load_state_dict(halves.state_dict())
    assert (unpermuted(hidden()) - halves(hidden())).abs().max() > 1e-3


# 3. With a cache


@EVERY_VARIANT
@CAUSAL
def test_prefill_then_decode_equals_one_pass(variant, causal):
    """Catches wrong positions, cache rows or masks, at every place to stop prefilling."""
    layer, x = make(variant), hidden()
    causal = causal or getattr(layer, "window", None) is not None  # a window looks back only
    for prefill in range(1, T):
        sizes = [prefill] + [1] * (T - prefill)
        out = in_chunks(layer, x, sizes, causal=causal)
        if causal:
            close(out, layer(x))
        else:  # only the last token sees what a whole pass sees
            close(out[:, -1:], layer(x, causal=False)[:, -1:])


@EVERY_VARIANT
@pytest.mark.parametrize("sizes", [[1] * T, [3, 4], [4, 3], [2, 2, 3], [1, 5, 1]])
@pytest.mark.parametrize("capacity", [T, T + 9])
def test_chunks_equal_one_pass(variant, sizes, capacity):
    """Catches a chunk that sees only itself, or that sees the unfilled end of the cache."""
    layer, x = make(variant), hidden()
    expected, expected_weights = dense_reference(layer, x)
    close(in_chunks(layer, x, sizes, capacity=capacity), expected)
    cache = layer.new_cache(B, capacity)
    layer(x[:, : -sizes[-1]], cache)
    out, weights = layer(x[:, -sizes[-1] :], cache, return_weights=True)
    close(out, expected[:, -sizes[-1] :])
    if cache.kept == cache.seen:  # else the weights are those of the kept entries
        close(weights, expected_weights[:, :, -sizes[-1] :])


@EVERY_VARIANT
def test_a_bidirectional_chunk_sees_itself_and_the_cache(variant):
    """Catches causal=False that is dropped once a cache is attached."""
    layer, x = make(variant), hidden()
    cache = layer.new_cache(B, T)
    layer(x[:, :3], cache, causal=False)
    close(layer(x[:, 3:], cache, causal=False), layer(x, causal=False)[:, 3:])


@EVERY_VARIANT
@pytest.mark.parametrize("chunks", [None, [T], [4, 3], [5, 1, 1]])
def test_left_padding_changes_no_row(variant, chunks):
    """Catches padding that is attended to: each row equals its tokens alone."""
    layer, x = make(variant), hidden()
    pads = [0, 2, 5, 1, 3]
    key_mask = left_padding(pads, T)
    if chunks is None:
        out = layer(x, key_mask=key_mask)
    else:
        out = in_chunks(layer, x, chunks, capacity=T + 2, key_mask=key_mask)
    assert torch.isfinite(out).all()
    for row, pad in enumerate(pads):
        alone = layer(x[row : row + 1, pad:])  # other positions, so other float32 angles
        close(out[row : row + 1, pad:], alone, tolerance=1e-5)


@EVERY_VARIANT
@CAUSAL
def test_right_padding_changes_no_row(variant, causal):
    """Catches a key mask that is inverted or applied to queries."""
    layer, x = make(variant), hidden()
    lengths = [7, 4, 1, 6, 2]
    key_mask = torch.arange(T)[None, :] < torch.tensor(lengths)[:, None]
    out = layer(x, causal=causal, key_mask=key_mask)
    for row, length in enumerate(lengths):
        alone = layer(x[row : row + 1, :length], causal=causal)
        close(out[row : row + 1, :length], alone)


@EVERY_VARIANT
def test_a_key_mask_of_ones_is_none(variant):
    """Catches a key mask that replaces the causal mask instead of joining it."""
    layer, x = make(variant), hidden()
    close(layer(x, key_mask=torch.ones(B, T, dtype=torch.bool)), layer(x))
    key_mask = torch.ones(B, T, dtype=torch.bool)
    close(in_chunks(layer, x, [4, 3], key_mask=key_mask), layer(x))


@pytest.mark.parametrize("build", [mha, mqa, gqa, mla])
def test_dynamic_scaling_goes_by_the_capacity(build):
    """Catches keys turned with the base of the length at their time, which later changes."""
    scaling = DynamicNtkScaling(2.0, original_length=3)
    layer, x = randomise(build(rope=Rope(scaling=scaling))), hidden()
    unscaled = build(rope=Rope()).double()
    unscaled.load_state_dict(layer.state_dict())
    assert (layer(x) - unscaled(x)).abs().max() > 1e-3
    for prefill in range(1, T):
        close(in_chunks(layer, x, [prefill] + [1] * (T - prefill)), layer(x))


@pytest.mark.parametrize("build", [mha, mqa, gqa, mla])
def test_static_scaling_with_any_capacity(build):
    """Catches static NTK scaling that depends on the cache's capacity, or does nothing."""
    layer, x = randomise(build(rope=Rope(scaling=NtkScaling(4.0)))), hidden()
    close(in_chunks(layer, x, [3, 1, 3], capacity=T + 9), layer(x))
    unscaled = build(rope=Rope()).double()
    unscaled.load_state_dict(layer.state_dict())
    assert (layer(x) - unscaled(x)).abs().max() > 1e-3


@EVERY_VARIANT
def test_layers_keep_no_state(variant):
    """Catches a cache or position kept in the layer: two sequences may take turns."""
    layer, x, y = make(variant), hidden(seed=1), hidden(seed=2)
    x_cache, y_cache = layer.new_cache(B, T), layer.new_cache(B, T)
    x_out, y_out = [], []
    for t in range(T):
        x_out.append(layer(x[:, t : t + 1], x_cache))
        y_out.append(layer(y[:, t : t + 1], y_cache))
    close(torch.cat(x_out, dim=1), layer(x))
    close(torch.cat(y_out, dim=1), layer(y))
    assert not list(layer.buffers())


@EVERY_VARIANT
def test_a_reset_cache_serves_a_new_sequence(variant):
    """Catches positions that go on after reset."""
    layer, x = make(variant), hidden()
    cache = layer.new_cache(B, T)
    layer(hidden(seed=5), cache)
    cache.reset()
    close(layer(x, cache), layer(x))


# 4. Properties: leak, reach, permutation, cache, padding, batch, gradients


@EVERY_VARIANT
def test_every_property_holds(variant):
    """Catches what the checks of :mod:`attnlib.testing` catch, on this book's own layers."""
    reports = check_layer(build_case(variant), build_case(variant))
    assert reports.hold, repr(reports)
    asked = [report.check for report in reports if report.verdict != "not asked"]
    assert len(asked) == len(reports), repr(reports)


@EVERY_VARIANT
@pytest.mark.parametrize("cached", [False, True])
def test_a_query_that_sees_only_padding_gets_zero_attention(variant, cached):
    """Catches NaN in outputs, weights or gradients of padding rows."""
    layer, x = make(variant), hidden().requires_grad_()
    key_mask = torch.ones(B, T, dtype=torch.bool)
    key_mask[1, :3] = False  # the first three queries of row 1 see nothing
    key_mask[2] = False  # no query of row 2 sees anything
    nothing = torch.zeros(T, x.shape[2], dtype=torch.float64)
    if getattr(layer.o_proj, "bias", None) is not None:
        nothing = nothing + layer.o_proj.bias
    for return_weights in (False, True):
        cache = layer.new_cache(B, T) if cached else None
        result = layer(x, cache, key_mask=key_mask, return_weights=return_weights)
        out = result[0] if return_weights else result
        close(out[2], nothing)
        close(out[1, :3], nothing[:3])
        if return_weights:
            assert (result[1][2] == 0).all()
            assert (result[1][1, :, :3] == 0).all()
        parameters = [x, *layer.parameters()]
        gradients = torch.autograd.grad(out.square().sum(), parameters, allow_unused=cached)
        assert all(torch.isfinite(g).all() for g in gradients if g is not None)


@EVERY_VARIANT
def test_a_decode_step_that_sees_only_padding(variant):
    """Catches NaN where one query is folded into a group and every key is hidden."""
    layer, x = make(variant), hidden()
    cache = layer.new_cache(B, T)
    layer(x[:, :4], cache)
    key_mask = torch.ones(B, 5, dtype=torch.bool)
    key_mask[3] = False
    out, weights = layer(x[:, 4:5], cache, key_mask=key_mask, return_weights=True)
    cache.seen -= 1
    fused = layer(x[:, 4:5], cache, key_mask=key_mask)
    close(fused, out)
    assert (weights[3] == 0).all()
    assert (weights[:3].sum(dim=-1) > 0.99).all()


# 7. Gradients and batches


@EVERY_VARIANT
@pytest.mark.parametrize("return_weights", [False, True])
def test_gradients_reach_every_number(variant, return_weights):
    """Catches a detached path, and a head that is computed and never used."""
    layer = make(variant)
    result = layer(hidden(), return_weights=return_weights)
    out = result[0] if return_weights else result
    (out * hidden(seed=3)).sum().backward()
    for name, parameter in layer.named_parameters():
        assert (parameter.grad != 0).all(), name


@EVERY_VARIANT
def test_gradients_equal_those_of_the_dense_reference(variant):
    """Catches a fused path whose backward pass differs."""
    layer, x = make(variant), hidden()
    parameters = list(layer.parameters())
    key_mask = left_padding([0, 2, 5, 1, 3], T)
    for mask in (None, key_mask):
        ours = (layer(x, key_mask=mask) * hidden(seed=3)).sum()
        dense = (dense_reference(layer, x, key_mask=mask)[0] * hidden(seed=3)).sum()
        for a, b in zip(
            torch.autograd.grad(ours, parameters),
            torch.autograd.grad(dense, parameters),
            strict=True,
        ):
            close(a, b, tolerance=1e-10)


@EVERY_VARIANT
def test_parameters_have_the_published_names(variant):
    """Catches a renamed parameter, which makes published weights fail to load."""
    names = {name.rsplit(".", 1)[0] for name, _ in make(variant).named_parameters()}
    if has_latent(variant):
        query = {"q_proj"}
        if GEOMETRIES[variant].q_lora_rank is not None:
            query = {"q_a_proj", "q_a_layernorm", "q_b_proj"}
        latent = {"kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj"}
        assert names == query | latent | {"o_proj"}
    else:
        assert names == {"q_proj", "k_proj", "v_proj", "o_proj"}


@EVERY_VARIANT
def test_state_dict_round_trips(variant):
    """Catches state outside the state_dict: a second layer loads it and answers the same."""
    layer, other = make(variant), build_case(variant).double()
    x = hidden()
    assert not torch.equal(other(x), layer(x))
    assert not other.load_state_dict(layer.state_dict(), strict=True).missing_keys
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


@EVERY_VARIANT
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_inference_without_gradients(variant, context):
    """Catches a path that needs autograd, and a cache that cannot be written without it."""
    layer, x = make(variant), hidden()
    expected = layer(x).detach()
    with context():
        out = in_chunks(layer, x, [4, 1, 2])
    assert not out.requires_grad
    close(out, expected)


@EVERY_VARIANT
def test_decoding_with_gradients_enabled_keeps_no_graph(variant):
    """Catches a cache whose rows drag the graph of all earlier steps along."""
    layer, x = make(variant), hidden()
    cache = layer.new_cache(B, T)
    for t in range(T):
        layer(x[:, t : t + 1], cache)
    assert not any(buffer.requires_grad for buffer in buffers(cache))
