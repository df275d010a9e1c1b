"""The attention core: the written-out form, the fused form, and the head split."""

import pytest
import torch
import torch.nn.functional as F
from helpers import D_MODEL, H_KV, B, D, G, H, T, close

from attnlib import attention, bench, causal_mask, fused_attention, merge_heads, split_heads
from attnlib.core import attend

S, D_V = 11, 9  # keys of another sequence, and values wider than keys


def qkv(*, n_kv_heads=H_KV, queries=T, keys=S, value_dim=D_V, dtype=torch.float64):
    torch.manual_seed(0)
    q = torch.randn(B, H, queries, D, dtype=dtype)
    k = torch.randn(B, n_kv_heads, keys, D, dtype=dtype)
    v = torch.randn(B, n_kv_heads, keys, value_dim, dtype=dtype)
    return q, k, v


def random_mask(*shape):
    """Half of the keys hidden, at least one visible to each query."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[..., 3] = True
    return mask


def by_hand(q, k, v, mask=None):
    """One query at a time, with loops: the definition."""
    out = torch.zeros(B, H, q.shape[2], v.shape[3], dtype=q.dtype)
    weights = torch.zeros(B, H, q.shape[2], k.shape[2], dtype=q.dtype)
    group = H // k.shape[1]
    for b in range(B):
        for h in range(H):
            for t in range(q.shape[2]):
                keys, values = k[b, h // group], v[b, h // group]
                e = torch.exp(keys @ q[b, h, t] / D**0.5)
                if mask is not None:
                    e = e * mask[b, h, t]
                weights[b, h, t] = e / e.sum()
                out[b, h, t] = weights[b, h, t] @ values
    return out, weights


MASK_SHAPES = {
    "none": None,
    "T S": (T, S),
    "1 T S": (1, T, S),
    "1 1 T S": (1, 1, T, S),
    "B 1 T S": (B, 1, T, S),
    "B 1 1 S": (B, 1, 1, S),
}


@pytest.mark.parametrize("n_kv_heads", [H, H_KV, 1])
def test_attention_is_the_definition(n_kv_heads):
    """Catches a wrong scale, axis or grouping: query head h must read KV head h // G."""
    q, k, v = qkv(n_kv_heads=n_kv_heads)
    mask = random_mask(B, H, T, S)
    for given in (None, mask):
        out, weights = attention(q, k, v, mask=given)
        expected_out, expected_weights = by_hand(q, k, v, given)
        close(out, expected_out)
        close(weights, expected_weights)


@pytest.mark.parametrize("shape", MASK_SHAPES.values(), ids=MASK_SHAPES)
@pytest.mark.parametrize("n_kv_heads", [H, H_KV, 1])
@pytest.mark.parametrize("queries", [T, 1])
@pytest.mark.parametrize("value_dim", [D_V, D, 3])
def test_both_forms_equal_torch(n_kv_heads, shape, queries, value_dim):
    """Catches wrong folding of a group's queries, and wrong padding of unequal widths."""
    q, k, v = qkv(n_kv_heads=n_kv_heads, queries=queries, value_dim=value_dim)
    mask = None
    if shape is not None:
        mask = random_mask(*(queries if size == T else size for size in shape))
    k_all, v_all = (x.repeat_interleave(H // n_kv_heads, dim=1) for x in (k, v))
    expected = F.scaled_dot_product_attention(q, k_all, v_all, attn_mask=mask)
    close(attention(q, k, v, mask=mask)[0], expected)
    close(fused_attention(q, k, v, mask=mask), expected)


@pytest.mark.parametrize("n_kv_heads", [H, H_KV, 1])
def test_causal_flag_equals_causal_mask(n_kv_heads):
    """Catches a fused causal flag that folding the groups has made wrong."""
    q, k, v = qkv(n_kv_heads=n_kv_heads, keys=T)
    expected = attention(q, k, v, mask=causal_mask(torch.arange(T), torch.arange(T)))[0]
    close(fused_attention(q, k, v, causal=True), expected)


@pytest.mark.parametrize("way", [lambda *x, **o: attention(*x, **o)[0], fused_attention])
def test_scale_replaces_the_default(way):
    """Catches a scale that is ignored, applied twice, or taken from a padded width."""
    q, k, v = qkv(n_kv_heads=H)
    expected = F.scaled_dot_product_attention(q, k, v, scale=0.3)
    close(way(q, k, v, scale=0.3), expected)
    close(way(q, k, v, scale=D**-0.5), way(q, k, v))


def test_cross_attention_mixes_another_sequence():
    """Catches T and S swapped: in cross-attention the two lengths differ."""
    q, k, v = qkv(n_kv_heads=H)
    out, weights = attention(q, k, v)
    assert out.shape == (B, H, T, D_V)
    assert weights.shape == (B, H, T, S)
    close(out, F.scaled_dot_product_attention(q, k, v))


def test_rows_of_weights_are_distributions():
    """Catches a softmax over the wrong axis, and hidden keys that keep some weight."""
    q, k, v = qkv()
    mask = random_mask(B, H, T, S)
    _, weights = attention(q, k, v, mask=mask)
    close(weights.sum(dim=-1), torch.ones(B, H, T, dtype=torch.float64))
    assert (weights[mask] > 0).all()
    assert (weights[~mask] == 0).all()


@pytest.mark.parametrize("n_kv_heads", [H, H_KV])
@pytest.mark.parametrize("queries", [T, 1])
def test_a_query_that_sees_no_key_gets_zeros(n_kv_heads, queries):
    """Catches 0 / 0 in softmax, and rows that fall back to the mean of all values."""
    q, k, v = qkv(n_kv_heads=n_kv_heads, queries=queries)
    mask = random_mask(B, 1, queries, S)
    mask[1, :, queries - 1] = False
    for tensor in (q, k, v):
        tensor.requires_grad_()
    out, weights = attention(q, k, v, mask=mask)
    fused = fused_attention(q, k, v, mask=mask)
    for result in (out, weights, fused):
        assert (result[1, :, queries - 1] == 0).all()
        assert torch.isfinite(result).all()
    close(fused, out)
    for result in (out, fused):
        for gradient in torch.autograd.grad(result.square().sum(), (q, k, v)):
            assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("n_kv_heads", [H, H_KV, 1])
def test_both_forms_have_the_same_gradients(n_kv_heads):
    """Catches a fused form whose folding loses or doubles gradients of shared keys."""
    q, k, v = (x.requires_grad_() for x in qkv(n_kv_heads=n_kv_heads))
    mask = random_mask(B, 1, T, S)
    direction = torch.randn(B, H, T, D_V, dtype=torch.float64)
    written = (attention(q, k, v, mask=mask)[0] * direction).sum()
    fused = (fused_attention(q, k, v, mask=mask) * direction).sum()
    for a, b in zip(
        torch.autograd.grad(fused, (q, k, v)),
        torch.autograd.grad(written, (q, k, v)),
        strict=True,
    ):
        close(a, b)


def test_without_mask_the_order_of_keys_does_not_matter():
    """Catches heads made by a bare view, and any hidden dependence on position."""
    q, k, v = qkv(keys=T, value_dim=D)
    out = attention(q, k, v)[0]
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    close(attention(q, k[:, :, order], v[:, :, order])[0], out)
    close(attention(q[:, :, order], k, v)[0], out[:, :, order])
    close(fused_attention(q, k[:, :, order], v[:, :, order]), out)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_huge_scores_do_not_overflow(dtype):
    """Catches exp without subtracting the maximum, and a mask value that is not finite."""
    q, k, v = qkv(keys=T, dtype=dtype)
    out, weights = attention(
        20 * q, 20 * k, v, mask=causal_mask(torch.arange(T), torch.arange(T))
    )
    assert out.dtype == weights.dtype == dtype
    assert torch.isfinite(out).all()
    close(weights.float().sum(dim=-1), torch.ones(B, H, T), tolerance=2e-2)


def test_split_heads_as_a_table():
    """Catches view(B, H, T, D) without transpose, which cuts tokens instead of width."""
    x = torch.tensor([[[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]])  # (1, T=3, H * D = 4)
    heads = torch.tensor([[[[1, 2], [5, 6], [9, 10]], [[3, 4], [7, 8], [11, 12]]]])
    assert torch.equal(split_heads(x, 2), heads)
    assert torch.equal(merge_heads(heads), x)


def test_split_is_a_view_and_merge_undoes_it():
    """Catches a merge without transpose, and a split that copies."""
    x = torch.randn(B, T, H * D)
    heads = split_heads(x, H)
    assert heads.shape == (B, H, T, D)
    assert heads.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert torch.equal(merge_heads(heads), x)


def test_sizes_are_all_different():
    """Catches an edit of the sizes that would let swapped axes cancel."""
    sizes = (B, T, H, H_KV, G, D, D_MODEL, H * D, S, D_V)
    assert len(set(sizes)) == len(sizes)


@pytest.mark.parametrize(("threads", "H_kv", "ran"), [
    (1, 2, "flash_attention_for_cpu"),  # 8 queries per KV head fill the fused kernel's tile
    (1, 4, "none"),
    (2, 2, "none"),  # where it would split one sequence over threads that wait for each other
])  # fmt: skip
def test_a_decode_step_takes_the_faster_kernel_and_equals_the_reference(threads, H_kv, ran):
    """Catches a rule that is turned round, and a kernel that gives something else."""
    q, k, v = torch.randn(2, 16, 1, 6), torch.randn(2, H_kv, 9, 6), torch.randn(2, H_kv, 9, 5)
    at = torch.arange(9)
    with bench.using_threads(threads):
        assert bench.sdpa_backend(lambda: attend(q, k, v, at[-1:], at)) == ran
        out, _ = attend(q, k, v, at[-1:], at)
    torch.testing.assert_close(out, attention(q, k, v)[0])
