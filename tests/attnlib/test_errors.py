"""Bad input: each `Raises` line of each docstring, by the offending value in the message."""

import re

import pytest
import torch
from helpers import (
    CASES,
    D_MODEL,
    H_KV,
    LATENT,
    B,
    D,
    H,
    T,
    close,
    gqa,
    hidden,
    make,
    mha,
    mla,
    mqa,
    snapshot,
    unchanged,
)

from attnlib import (
    DynamicNtkScaling,
    GroupedQueryAttention,
    KVCache,
    LatentCache,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    MultiHeadAttention,
    MultiHeadLatentAttention,
    MultiQueryAttention,
    NtkScaling,
    Rope,
    YarnScaling,
    apply_rope,
    attention,
    causal_mask,
    fused_attention,
    rope_angles,
    split_heads,
)

EVERY_VARIANT = pytest.mark.parametrize("variant", CASES)
TABLE = pytest.mark.parametrize


def says(message):
    """Expect a ValueError that contains exactly this text."""
    return pytest.raises(ValueError, match=re.escape(message))


# Functions

Q = torch.zeros(B, H, T, D)
K = torch.zeros(B, H_KV, 11, D)
V = torch.zeros(B, H_KV, 11, 9)


@TABLE(
    ("replaced", "message"),
    [
        ({"q": Q[0]}, "q must have shape (B, heads, tokens, width), got (6, 7, 4)"),
        ({"k": K[0]}, "k must have shape (B, heads, tokens, width), got (3, 11, 4)"),
        ({"v": V[None]}, "v must have shape (B, heads, tokens, width), got (1, 5, 3, 11, 9)"),
        ({"k": K.double()}, "torch.float64 on cpu for k"),
        ({"v": V.bfloat16()}, "torch.bfloat16 on cpu for v"),
        ({"v": V.to("meta")}, "torch.float32 on meta for v"),
        ({"k": K[:2]}, "k must have shape (B=5, H_kv, S, D=4), got (2, 3, 11, 4)"),
        ({"k": K[..., :3]}, "k must have shape (B=5, H_kv, S, D=4), got (5, 3, 11, 3)"),
        ({"v": V[:, :, :8]}, "v must have shape (B=5, H_kv=3, S=11, D_v), got (5, 3, 8, 9)"),
        ({"v": V[:, :1]}, "v must have shape (B=5, H_kv=3, S=11, D_v), got (5, 1, 11, 9)"),
        ({"q": Q[:, :4]}, "must be a multiple of n_kv_heads, got n_heads=4, n_kv_heads=3"),
        ({"k": K[:, :0], "v": V[:, :0]}, "n_kv_heads must be an integer of at least 1, got 0"),
        ({"mask": torch.zeros(T, 11)}, "got dtype torch.float32"),
        ({"mask": torch.ones(T, 11, dtype=torch.int64)}, "got dtype torch.int64"),
        ({"mask": torch.ones(T, 11, dtype=torch.uint8)}, "got dtype torch.uint8"),
        ({"mask": torch.ones(11, T) > 0}, "(B, H, T, S) = (5, 6, 7, 11), got (11, 7)"),
        ({"mask": torch.ones(H_KV, T, 11) > 0}, "(5, 6, 7, 11), got (3, 7, 11)"),
        ({"mask": torch.ones(1, B, H, T, 11) > 0}, "got (1, 5, 6, 7, 11)"),
        ({"mask": torch.ones(T, 11, device="meta") > 0}, "mask must be on cpu, got meta"),
    ],
)
def test_attention_names_what_does_not_fit(replaced, message):
    """Catches shapes that broadcast by accident, and masks of the additive or 0/1 kind."""
    with says(message):
        attention(**{"q": Q, "k": K, "v": V, **replaced})


@TABLE(
    ("options", "message"),
    [
        ({"mask": torch.ones(1, H, T, 11) > 0}, "the same for all heads, got (1, 6, 7, 11)"),
        ({"causal": True}, "with T = S, got T=7, S=11"),
        ({"mask": torch.ones(T, 11) > 0, "causal": True}, "with T = S, got a mask"),
        ({"mask": torch.ones(T, 11)}, "got dtype torch.float32"),
    ],
)
def test_fused_attention_names_what_a_kernel_cannot_take(options, message):
    """Catches a mask that a kernel would broadcast, and a causal one in the wrong place."""
    with says(message):
        fused_attention(Q, K, V, **options)


@TABLE(
    ("n_heads", "message"),
    [(0, "got 0"), (-2, "got -2"), (5, "x, 22, got 5"), (2.0, "got 2.0"), ("2", "got 2")],
)
def test_split_heads_needs_a_divisor(n_heads, message):
    """Catches a width that is cut off or a division by zero."""
    with says(message):
        split_heads(torch.zeros(B, T, D_MODEL), n_heads)


@TABLE(
    ("arguments", "options", "message"),
    [
        ((torch.arange(4)[None, None], torch.arange(4)), {}, "q_positions must be an integer"),
        ((torch.arange(4)[None, None], torch.arange(4)), {}, "got shape (1, 1, 4)"),
        ((torch.arange(4), torch.tensor(4)), {}, "k_positions must be an integer tensor"),
        ((torch.arange(4), torch.arange(4.0)), {}, "dtype torch.float32"),
        ((torch.arange(4) > 1, torch.arange(4)), {}, "dtype torch.bool"),
        ((torch.arange(4), torch.arange(4)), {"window": 0}, "at least 1, got 0"),
        ((torch.arange(4), torch.arange(4)), {"window": -3}, "at least 1, got -3"),
        ((torch.arange(4), torch.arange(4)), {"window": True}, "window must be an integer"),
        ((torch.arange(4), torch.arange(4)), {"window": 2.5}, "got 2.5"),
    ],
)
def test_causal_mask_names_what_does_not_fit(arguments, options, message):
    """Catches a window of 0, which would hide every key, and positions that are not counts."""
    with says(message):
        causal_mask(*arguments, **options)


@TABLE(
    ("call", "message"),
    [
        (lambda: rope_angles(torch.arange(T), 5), "dim must be even"),
        (lambda: rope_angles(torch.arange(T), 5), "got 5"),
        (lambda: rope_angles(torch.arange(T), 0), "at least 2, got 0"),
        (lambda: rope_angles(torch.arange(T), 4, base=1.0), "base must be above 1, got 1.0"),
        (lambda: rope_angles(torch.arange(T), 4, base=-5.0), "got -5.0"),
        (lambda: rope_angles(torch.arange(T)[None, None], 4), "got shape (1, 1, 7)"),
        (lambda: rope_angles(torch.arange(7.0), 4), "dtype torch.float32"),
        (lambda: rope_angles(torch.arange(T), 2, scaling=NtkScaling(2.0)), "at least 4, got 2"),
        (lambda: apply_rope(torch.zeros(T, 5), *torch.zeros(2, T, 2)), "got 5"),
        (lambda: apply_rope(torch.zeros(T, 4), *torch.zeros(2, 6, 2)), "cos must have shape"),
        (lambda: apply_rope(torch.zeros(T, 4), *torch.zeros(2, 6, 2)), "(7, 2), got (6, 2)"),
        (
            lambda: apply_rope(torch.zeros(T, 4), torch.zeros(T, 2), torch.zeros(T, 4)),
            "sin must have shape (T, D / 2) = (7, 2), got (7, 4)",
        ),
        (lambda: NtkScaling(0.5), "factor must be at least 1, got 0.5"),
        (lambda: NtkScaling(float("nan")), "got nan"),
        (lambda: DynamicNtkScaling(0.9, 16), "factor must be at least 1, got 0.9"),
        (lambda: DynamicNtkScaling(2.0, 0), "original_length must be an integer"),
        (lambda: DynamicNtkScaling(2.0, 0), "got 0"),
        (lambda: DynamicNtkScaling(2.0, 16.0), "got 16.0"),
        (lambda: LinearScaling(0.9), "factor must be at least 1, got 0.9"),
        (lambda: Llama3Scaling(0.5), "factor must be at least 1, got 0.5"),
        (lambda: Llama3Scaling(8.0, 0), "original_length must be an integer of at least 1"),
        (lambda: Llama3Scaling(8.0, 16, 4.0, 1.0), "positive and rising, got 4.0 and 1.0"),
        (lambda: Llama3Scaling(8.0, 16, 0.0), "low_freq_factor and high_freq_factor must be"),
        (lambda: YarnScaling(float("nan"), 16), "factor must be at least 1, got nan"),
        (lambda: YarnScaling(4.0, 0), "original_length must be an integer of at least 1"),
        (lambda: YarnScaling(4.0, 16, beta_fast=1.0), "beta_slow and beta_fast must be"),
        (lambda: YarnScaling(4.0, 16, mscale=-0.7), "mscale must be at least 0, got -0.7"),
        (
            lambda: YarnScaling(4.0, 16, mscale_all_dim=-1.0),
            "mscale_all_dim must be at least 0",
        ),
        (
            lambda: LongRopeScaling(0.0, 16, (1.0,), (2.0,)),
            "factor must be at least 1, got 0.0",
        ),
        (lambda: LongRopeScaling(4.0, 1, (1.0,), (2.0,)), "at least 2, got 1"),
        (lambda: LongRopeScaling(4.0, 16, (1.0,), (2.0, 3.0)), "same length, got 1 and 2"),
        (lambda: LongRopeScaling(4.0, 16, (1.0,), (0.0,)), "positive, got (1.0,) and (0.0,)"),
        (
            lambda: rope_angles(
                torch.arange(T), 6, scaling=LongRopeScaling(4.0, 16, (1.0, 1.0), (2.0, 3.0))
            ),
            "factors for 2 pairs, got 3 pairs",
        ),
        (lambda: Rope(rotary_dim=8).check_width("head_dim", 6), "head_dim must be at least"),
        (lambda: Rope(rotary_dim=8).check_width("head_dim", 6), "rotary_dim=8, got 6"),
    ],
)
def test_rope_names_what_does_not_fit(call, message):
    """Catches odd widths, tables of another width and scalings that would shrink."""
    with says(message):
        call()


# Construction


@TABLE(
    ("arguments", "options", "message"),
    [
        ((0, H), {}, "d_model must be an integer of at least 1, got 0"),
        ((D_MODEL, 0), {}, "n_heads must be an integer of at least 1, got 0"),
        ((D_MODEL, -6), {}, "got -6"),
        ((D_MODEL, True), {}, "n_heads must be an integer of at least 1, got True"),
        ((D_MODEL, 2.0), {}, "got 2.0"),
        ((D_MODEL, H), {}, "got d_model=22, n_heads=6"),
        ((D_MODEL, H), {"head_dim": 0}, "head_dim must be an integer of at least 1, got 0"),
        ((D_MODEL, H), {"head_dim": 5, "rope": Rope()}, "head_dim must be even"),
        ((D_MODEL, H), {"head_dim": 5, "rope": Rope()}, "got 5"),
        ((30, H), {"rope": Rope()}, "got 5"),
    ],
)
@TABLE("variant", [MultiHeadAttention, MultiQueryAttention, GroupedQueryAttention])
def test_layers_name_a_size_that_does_not_fit(variant, arguments, options, message):
    """Catches sizes that would fail later, far from the mistake."""
    if variant is GroupedQueryAttention:
        options = {**options, "n_kv_heads": H_KV}
    with says(message):
        variant(*arguments, **options)


@TABLE(
    ("options", "message"),
    [
        ({"base": 1.0}, "base must be above 1, got 1.0"),
        ({"base": float("nan")}, "base must be above 1, got nan"),
        ({"scaling": "dynamic"}, "a rule such as NtkScaling or None, got 'dynamic'"),
        ({"scaling": {"factor": 2.0}}, "or None, got {'factor': 2.0}"),
        ({"rotary_dim": 3}, "rotary_dim must be even"),
        ({"rotary_dim": 2, "scaling": NtkScaling(2.0)}, "rotary_dim must be an integer of at"),
    ],
)
def test_rope_refuses_a_base_or_a_scaling_before_any_layer_does(options, message):
    """Catches a setting in another library's form, which would fail far from its cause."""
    with says(message):
        Rope(**options)


@TABLE(
    ("n_kv_heads", "message"),
    [
        (4, "n_heads must be a multiple of n_kv_heads, got n_heads=6, n_kv_heads=4"),
        (12, "got n_heads=6, n_kv_heads=12"),
        (0, "n_kv_heads must be an integer of at least 1, got 0"),
        (True, "got True"),
    ],
)
def test_gqa_needs_equal_groups(n_kv_heads, message):
    """Catches groups of unequal size, which no reshape can express."""
    with says(message):
        gqa(n_kv_heads)


@TABLE("name", ["kv_lora_rank", "qk_nope_head_dim", "v_head_dim", "q_lora_rank"])
@TABLE("value", [0, -1, True, 3.0])
def test_mla_names_a_size_that_does_not_fit(name, value):
    """Catches MLA's widths below 1, each by its own name."""
    with says(f"{name} must be an integer of at least 1, got {value!r}"):
        mla(**{name: value})


@TABLE(
    ("value", "message"), [(3, "must be even"), (3, "got 3"), (0, "got 0"), (True, "got True")]
)
def test_mla_needs_an_even_rotary_width(value, message):
    """Catches a rotary width with a number left over."""
    with says(message):
        mla(qk_rope_head_dim=value)


@TABLE(("arguments", "message"), [((0, H), "d_model"), ((D_MODEL, 0), "n_heads")])
def test_mla_names_a_model_size_that_does_not_fit(arguments, message):
    """Catches a width or head count of 0."""
    with says(f"{message} must be an integer of at least 1, got 0"):
        MultiHeadLatentAttention(*arguments, **LATENT)


@TABLE("value", [0, -4, True, 2.0, None])
@TABLE("position", range(4))
def test_kv_cache_names_a_size_that_does_not_fit(position, value):
    """Catches an empty cache: every size must be a positive integer."""
    sizes = [B, H_KV, T, D]
    sizes[position] = value
    name = ("batch_size", "n_kv_heads", "capacity", "head_dim")[position]
    with says(f"{name} must be an integer of at least 1, got {value!r}"):
        KVCache(*sizes)


@TABLE("value", [0, -4, True, 2.0, None])
@TABLE("position", range(4))
def test_latent_cache_names_a_size_that_does_not_fit(position, value):
    """Catches an empty cache; only the rotary key may be left out."""
    if position == 3 and value == 0:
        assert LatentCache(B, T, 13, 0, dtype=torch.float64).nbytes == B * T * 13 * 8
        return
    least = 0 if position == 3 else 1
    sizes = [B, T, 13, 4]
    sizes[position] = value
    name = ("batch_size", "capacity", "kv_lora_rank", "qk_rope_head_dim")[position]
    with says(f"{name} must be an integer of at least {least}, got {value!r}"):
        LatentCache(*sizes)


@EVERY_VARIANT
def test_new_cache_names_a_size_that_does_not_fit(variant):
    """Catches a layer that makes a cache without room."""
    layer = make(variant)
    with says("batch_size must be an integer of at least 1, got 0"):
        layer.new_cache(0, T)
    with says("capacity must be an integer of at least 1, got -1"):
        layer.new_cache(B, -1)


# Caches: what was stored stays


@TABLE(
    ("k", "v", "message"),
    [
        ((B, H_KV, 1, D), (B, H_KV, 2, D), "(5, 3, 1, 4), got (5, 3, 2, 4)"),
        ((B, H_KV, D), (B, H_KV, D), "(5, 3, T, 4) for this cache, got (5, 3, 4)"),
        ((2, H_KV, 1, D), (2, H_KV, 1, D), "got (2, 3, 1, 4)"),
        ((B, H, 1, D), (B, H, 1, D), "got (5, 6, 1, 4)"),
        ((B, H_KV, 1, 8), (B, H_KV, 1, 8), "got (5, 3, 1, 8)"),
        ((B, H_KV, 1, D), (B, H_KV, 1, 9), "v must have shape (5, 3, T, 4)"),
        ((B, H_KV, 5, D), (B, H_KV, 5, D), "3 stored and 5 new tokens exceed the capacity of"),
    ],
)
def test_kv_cache_refuses_and_stays(k, v, message):
    """Catches an update that stores keys before it looks at the values."""
    cache = KVCache(B, H_KV, T, D)
    cache.update(torch.randn(B, H_KV, 3, D), torch.randn(B, H_KV, 3, D))
    before = snapshot(cache)
    with says(message):
        cache.update(torch.randn(k), torch.randn(v))
    assert unchanged(cache, before)


@TABLE("which", ["k", "v"])
@TABLE(
    ("change", "message"),
    [
        (lambda x: x.double(), "for this cache, got torch.float64 on cpu"),
        (lambda x: x.to("meta"), "for this cache, got torch.float32 on meta"),
    ],
)
def test_kv_cache_refuses_another_dtype_or_device(which, change, message):
    """Catches silent conversion to the cache's dtype, for keys and for values."""
    cache = KVCache(B, H_KV, T, D)
    new = {"k": torch.randn(B, H_KV, 1, D), "v": torch.randn(B, H_KV, 1, D)}
    new[which] = change(new[which])
    before = snapshot(cache)
    with says(f"{which} must be torch.float32 on cpu {message}"):
        cache.update(**new)
    assert unchanged(cache, before)


@TABLE(
    ("entries", "message"),
    [
        (torch.zeros(B, 17), "entries must have shape (5, T, 17) for this cache, got (5, 17)"),
        (torch.zeros(2, 1, 17), "got (2, 1, 17)"),
        (torch.zeros(B, 1, 13), "got (5, 1, 13)"),
        (torch.zeros(B, 1, 17).half(), "got torch.float16 on cpu"),
        (torch.zeros(B, 1, 17, device="meta"), "got torch.float32 on meta"),
        (torch.zeros(B, 6, 17), "3 stored and 6 new tokens exceed the capacity of 7"),
    ],
)
def test_latent_cache_refuses_and_stays(entries, message):
    """Catches rows of another layer, and an overflow that wraps or truncates."""
    cache = LatentCache(B, T, 13, 4)
    cache.update(torch.randn(B, 3, 17))
    before = snapshot(cache)
    with says(message):
        cache.update(entries)
    assert unchanged(cache, before)


def other_kind(layer):
    """A cache of the kind that this layer does not fill."""
    if isinstance(layer, MultiHeadLatentAttention):
        return KVCache(B, H_KV, T, D, dtype=torch.float64)
    return LatentCache(B, T, 13, 4, dtype=torch.float64)


@EVERY_VARIANT
@TABLE(
    ("bad_cache", "message"),
    [
        (lambda layer: layer.new_cache(B, T, dtype=torch.float32), "torch.float32 on cpu"),
        (lambda layer: layer.new_cache(B, T, device="meta"), "torch.float64 on meta"),
        (lambda layer: layer.new_cache(B + 1, T), "(6, "),
        (lambda layer: layer.new_cache(B, T - 1), "0 stored and 7 new tokens exceed"),
        (other_kind, "Cache or None, got "),
        (lambda layer: {"length": 0}, "got dict"),
    ],
)
def test_layers_refuse_a_cache_that_is_not_theirs(variant, bad_cache, message):
    """Catches keys stored in another dtype, batch, device or kind of cache."""
    layer = make(variant)
    cache = bad_cache(layer)
    with says(message):
        layer(hidden(), cache)
    assert getattr(cache, "length", 0) == 0


@TABLE(
    ("layer", "other", "message"),
    [
        (gqa, mha, "k must have shape (5, 6, T, 4) for this cache, got (5, 3, 7, 4)"),
        (mha, mqa, "k must have shape (5, 1, T, 4) for this cache, got (5, 6, 7, 4)"),
        (mla, lambda: mla(kv_lora_rank=5), "(5, T, 9) for this cache, got (5, 7, 17)"),
    ],
)
def test_layers_refuse_the_cache_of_another_layer(layer, other, message):
    """Catches a cache of other heads or widths, which broadcasting could hide."""
    cache = other().new_cache(B, T)
    with says(message):
        layer()(hidden(dtype=torch.float32), cache)
    assert cache.seen == 0


# forward


def ones(*shape, **options):
    return torch.ones(*shape, **options) > 0


@EVERY_VARIANT
@TABLE(
    ("x", "options", "message"),
    [
        (torch.zeros(B, D_MODEL), {}, "x must have shape (B, T, d_model=22)"),
        (torch.zeros(B, D_MODEL), {}, "got (5, 22)"),
        (torch.zeros(1, B, T, D_MODEL), {}, "got (1, 5, 7, 22)"),
        (torch.zeros(B, T, 24), {}, "got (5, 7, 24)"),
        (torch.zeros(B, 0, D_MODEL), {}, "with T >= 1, got (5, 0, 22)"),
        (hidden(tokens=2), {"key_mask": torch.zeros(B, 5)}, "got dtype torch.float32"),
        (hidden(tokens=2), {"key_mask": torch.ones(B, 5).long()}, "got dtype torch.int64"),
        (hidden(tokens=2), {"key_mask": ones(B, 2)}, "(B, S) = (5, 5)"),
        (hidden(tokens=2), {"key_mask": ones(B, 2)}, "got (5, 2)"),
        (hidden(tokens=2), {"key_mask": ones(1, 5)}, "got (1, 5)"),
        (hidden(tokens=2), {"key_mask": ones(5)}, "got (5,)"),
        (hidden(tokens=2), {"key_mask": ones(B, 1, 5)}, "got (5, 1, 5)"),
        (hidden(tokens=2), {"key_mask": ones(B, 6)}, "got (5, 6)"),
        (hidden(tokens=2), {"key_mask": ones(B, 5, device="meta")}, "must be on cpu, got meta"),
        (hidden(tokens=2), {"positions": torch.arange(3)}, "(T,) = (2,) or (B, T) = (5, 2)"),
        (hidden(tokens=2), {"positions": torch.zeros(2, 2).long()}, "got (2, 2)"),
        (hidden(tokens=2), {"positions": torch.zeros(B, 2)}, "positions must be an integer"),
        (hidden(tokens=5), {}, "3 stored and 5 new tokens exceed the capacity of 7"),
        (hidden(batch_size=2, tokens=1), {}, "(5, "),
    ],
)
def test_forward_refuses_and_leaves_the_cache_usable(variant, x, options, message):
    """Catches checks that come after the cache was written: the next call must be right."""
    layer = make(variant)
    good = hidden()
    cache = layer.new_cache(B, T)
    layer(good[:, :3], cache)
    before = snapshot(cache)
    with says(message):
        layer(x, cache, **options)
    assert unchanged(cache, before)
    close(layer(good[:, 3:], cache), layer(good)[:, 3:])


@EVERY_VARIANT
def test_a_key_mask_without_cache_covers_the_new_tokens(variant):
    """Catches a mask of another length that broadcasting would accept."""
    with says("key_mask must have shape (B, S) = (5, 7), one entry for each cached and new"):
        make(variant)(hidden(), key_mask=ones(B, 1))


@EVERY_VARIANT
def test_overflow_while_decoding_says_what_to_do(variant):
    """Catches an overflow that overwrites: all tokens up to the capacity stay right."""
    layer, x = make(variant), hidden()
    cache = layer.new_cache(B, 4)
    layer(x[:, :4], cache)
    for _ in range(2):
        with says("4 stored and 1 new tokens exceed the capacity of 4; make the cache larger"):
            layer(x[:, 4:5], cache)
    assert cache.seen == 4
    cache.reset()
    close(layer(x[:, :4], cache), layer(x)[:, :4])
