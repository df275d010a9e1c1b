"""The two caches: what they hold, where it lies, and how many bytes it takes."""

import pytest
import torch
from helpers import CASES, GEOMETRIES, H_KV, B, D, T, buffers, hidden, make

from attnlib import (
    GroupedQueryAttention,
    KVCache,
    LatentCache,
    MultiHeadLatentAttention,
    kv_cache_bytes,
)

CAPACITY = 11
WIDTH = 17  # of a latent row: 13 + 4


def kv_cache(**options):
    return KVCache(B, H_KV, CAPACITY, D, **options)


def latent_cache(**options):
    return LatentCache(B, CAPACITY, 13, 4, **options)


CACHES = pytest.mark.parametrize("new_cache", [kv_cache, latent_cache])


def rows(cache, tokens, seed=0):
    """Arguments for ``update``."""
    torch.manual_seed(seed)
    if isinstance(cache, KVCache):
        return torch.randn(B, H_KV, tokens, D), torch.randn(B, H_KV, tokens, D)
    return (torch.randn(B, tokens, WIDTH),)


def update(cache, arguments):
    """What ``update`` stored so far, without the positions, which are 0, 1, 2, ..."""
    *stored, positions = cache.update(*arguments)
    assert torch.equal(positions, torch.arange(cache.kept))
    return tuple(stored)


@CACHES
def test_new_tokens_stand_behind_the_earlier_ones(new_cache):
    """Catches writing at the wrong place: over the start, or one row too far."""
    cache = new_cache()
    parts = [rows(cache, tokens, seed=tokens) for tokens in (4, 1, 2)]
    for number, part in enumerate(parts):
        stored = update(cache, part)
        for index, tensor in enumerate(stored):
            earlier = [p[index] for p in parts[: number + 1]]
            assert torch.equal(tensor, torch.cat(earlier, dim=-2))
    assert cache.seen == 7
    assert cache.capacity == CAPACITY


@CACHES
def test_update_returns_views_and_never_reallocates(new_cache):
    """Catches torch.cat or a copy at each step, which reads the whole cache once more."""
    cache = new_cache()
    homes = [buffer.data_ptr() for buffer in buffers(cache)]
    for tokens in (4, 1, 1):
        stored = update(cache, rows(cache, tokens))
        assert [tensor.data_ptr() for tensor in stored] == homes
        assert [buffer.data_ptr() for buffer in buffers(cache)] == homes


@CACHES
def test_only_the_filled_part_is_returned(new_cache):
    """Catches a cache that hands back its whole buffer, zeros included."""
    cache = new_cache()
    for tensor in update(cache, rows(cache, 3)):
        assert tensor.shape[-2] == 3


@CACHES
def test_reset_forgets_and_keeps_the_buffers(new_cache):
    """Catches a reset that reallocates, or that leaves old tokens in front of new ones."""
    cache = new_cache()
    update(cache, rows(cache, CAPACITY))
    homes = [buffer.data_ptr() for buffer in buffers(cache)]
    cache.reset()
    assert cache.seen == 0
    new = rows(cache, 2, seed=1)
    for tensor, expected in zip(update(cache, new), new, strict=True):
        assert torch.equal(tensor, expected)
    assert [buffer.data_ptr() for buffer in buffers(cache)] == homes


@CACHES
def test_a_full_cache_takes_exactly_its_capacity(new_cache):
    """Catches capacity counted one short."""
    cache = new_cache()
    update(cache, rows(cache, CAPACITY - 1))
    update(cache, rows(cache, 1))
    assert cache.seen == CAPACITY


@CACHES
def test_what_is_stored_is_detached(new_cache):
    """Catches a cache that keeps the graph of every past token alive."""
    cache = new_cache()
    arguments = tuple(row.requires_grad_() for row in rows(cache, 2))
    for tensor in update(cache, arguments):
        assert not tensor.requires_grad


@CACHES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_nbytes_is_what_the_tensors_occupy(new_cache, dtype):
    """Catches nbytes from a formula that the buffers do not follow."""
    cache = new_cache(dtype=dtype)
    occupied = sum(buffer.untyped_storage().nbytes() for buffer in buffers(cache))
    assert cache.nbytes == occupied
    assert {buffer.dtype for buffer in buffers(cache)} == {dtype}
    update(cache, [row.to(dtype) for row in rows(cache, 3)])
    assert cache.nbytes == occupied


@pytest.mark.parametrize("variant", CASES)
@pytest.mark.parametrize(("dtype", "element_bytes"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_bytes_per_token_equal_the_formula(variant, dtype, element_bytes):
    """Catches keys and values stored for all H heads, and a factor 2 on MLA's latent."""
    layer = make(variant, dtype)
    cache = layer.new_cache(B, CAPACITY)
    bits = 8 * element_bytes
    expected = kv_cache_bytes(GEOMETRIES[variant], CAPACITY, batch_size=B, dtype=bits)
    assert cache.nbytes == expected
    layer(hidden(dtype=dtype), cache)
    assert cache.seen == T


@pytest.mark.parametrize("variant", CASES)
def test_new_cache_follows_the_weights_unless_told(variant):
    """Catches a cache in torch's default dtype beside a layer in another."""
    layer = make(variant, torch.bfloat16)
    assert {x.dtype for x in buffers(layer.new_cache(B, CAPACITY))} == {torch.bfloat16}
    told = layer.new_cache(B, CAPACITY, dtype=torch.float64, device="meta")
    assert {(x.dtype, x.device.type) for x in buffers(told)} == {(torch.float64, "meta")}
    assert layer.new_cache(B, CAPACITY).seen == 0


# Published geometries. DeepSeek-V3: arXiv 2412.19437, section 4.2 (61 layers, d_c = 512,
# d_h^R = 64). Llama 3.1 405B: arXiv 2407.21783, table 3 (126 layers, 8 KV heads, 16384 / 128).
def test_deepseek_v3_caches_70272_bytes_a_token():
    """Catches a factor 2 for K and V, or the rotary key stored once for each head."""
    with torch.device("meta"):
        layer = MultiHeadLatentAttention(
            7168, 128, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
            v_head_dim=128, q_lora_rank=1536,
        )  # fmt: skip
        cache = layer.new_cache(1, 1000, dtype=torch.bfloat16)
    assert cache.nbytes == 1000 * 1152
    assert cache.nbytes * 61 == 1000 * 70_272


def test_llama_405b_caches_516096_bytes_a_token():
    """Catches keys and values stored for 128 query heads instead of 8 KV heads."""
    with torch.device("meta"):
        layer = GroupedQueryAttention(16384, 128, 8)
        cache = layer.new_cache(1, 1000, dtype=torch.bfloat16)
    assert cache.nbytes * 126 == 1000 * 516_096


@CACHES
def test_positions_of_another_shape_are_refused(new_cache):
    """Catches positions that broadcasting would spread over other tokens."""
    cache = new_cache()
    with pytest.raises(ValueError, match=r"positions must have shape \(2,\) or \(5, 2\)"):
        cache.update(*rows(cache, 2), positions=torch.arange(3))
    assert cache.seen == 0
