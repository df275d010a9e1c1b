"""One layer of each variant, as the benchmark and the laboratories build them."""

import pytest
import torch

import attnlib
from attnlib import bench
from attnlib.costs import Geometry, kv_cache_bytes
from attnlib.variants import VARIANTS, build_layer

SMALL = bench.geometries(24, 6, 3, kv_lora_rank=10, qk_rope_head_dim=4, window=5)


def test_geometries_are_one_layer_of_each_variant():
    """Catches a wrong head count, and a geometry under another's name."""
    layers = bench.geometries()
    assert list(layers) == ["MHA", "GQA", "MQA", "MLA", "SWA"]
    for name, geometry in layers.items():
        assert geometry.variant == name
        assert (geometry.n_layers, geometry.n_heads, geometry.head_dim) == (1, 16, 128)
        assert geometry.d_model == 2048
    assert [layers[name].n_kv_heads for name in layers] == [16, 4, 1, 16, 4]
    assert [layers[name].window for name in layers] == [None] * 4 + [1024]
    assert (layers["MLA"].kv_lora_rank, layers["MLA"].qk_rope_head_dim) == (512, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((20, 6, 3), "d_model must be a multiple of n_heads = 6, got 20"),
        ((24, 6, 1), "n_kv_heads must lie between 1 and n_heads = 6, got 1"),
        ((24, 6, 6), "n_kv_heads must lie between 1 and n_heads = 6, got 6"),
        ((24, 6, 4), "n_kv_heads must divide n_heads = 6, got 4"),
        ((24, 0, 4), "n_heads must be an integer of at least 1, got 0"),
    ],
    ids=str,
)
def test_geometries_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        bench.geometries(*arguments)


@pytest.mark.parametrize("variant", SMALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_layers_are_the_geometry(variant, dtype):
    """Catches a layer of other sizes than those that the floor is computed from."""
    geometry = SMALL[variant]
    layer = build_layer(geometry, rope=attnlib.Rope(), dtype=dtype)
    assert type(layer) is VARIANTS[variant].layer
    weights = sum(p.numel() for n, p in layer.named_parameters() if "layernorm" not in n)
    assert weights == attnlib.attention_params(geometry, norms=False)
    assert not layer.training
    assert not any(p.requires_grad for p in layer.parameters())
    cache = layer.new_cache(3, 7)
    assert cache.nbytes == kv_cache_bytes(geometry, 7, batch_size=3, dtype=dtype)


def test_layers_have_biases_query_latents_and_widths():
    """Catches a size of the geometry that is left out of the layer."""
    biased = Geometry(1, 6, 2, 5, d_model=22, qkv_bias=True, o_bias=True)
    assert build_layer(biased).q_proj.bias.shape == (30,)
    latent = Geometry(1, 6, 6, 8, 9, 13, 4, d_model=22, q_lora_rank=14)
    layer = build_layer(latent)
    assert layer.q_a_proj.weight.shape == (14, 22)
    assert layer.v_head_dim == 9


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (Geometry(1, 6, 2, 4), "geometry must have a d_model"),
        (Geometry(1, 6, 2, 4, d_model=24, qk_norm=True), "no qk_norm"),
        (Geometry(1, 6, 2, 4, d_model=24, qkv_bias=True), "equal biases"),
        (Geometry(1, 6, 2, 4, 5, d_model=24), "v_head_dim = head_dim except in MLA"),
    ],
    ids=str,
)
def test_layers_that_do_not_exist_are_refused(geometry, message):
    with pytest.raises(ValueError, match=message):
        build_layer(geometry)
