"""Attention in blocks equals attention, and merged parts equal the whole."""

import pytest
import torch
from helpers import relative_error

from attnlib import attention, causal_mask, fused_attention
from attnlib.blocks import attention_in_blocks, merge
from attnlib.variants.swa import attend_with_sinks

B, T, S, D, D_V = 2, 7, 37, 8, 5
BLOCKS = [1, 2, 5, 8, 36, 37, 100]


def tensors(H=6, H_kv=3, dtype=torch.float32, scale=3.0):
    torch.manual_seed(0)
    q = scale * torch.randn(B, H, T, D)
    k, v = torch.randn(B, H_kv, S, D), torch.randn(B, H_kv, S, D_V)
    return [x.to(dtype) for x in (q, k, v)]


def masks():
    at = torch.arange(S - T, S)
    empty = torch.rand(B, 1, T, S) > 0.5
    empty[0, 0, 3] = False
    return {
        "all": None,
        "causal": causal_mask(at, torch.arange(S)),
        "window": causal_mask(at, torch.arange(S), window=4),
        "one row sees nothing": empty,
        "per head": torch.rand(B, 6, T, S) > 0.3,
        "padding": (torch.arange(S) > 9)[None, None, None],
    }


@pytest.mark.parametrize("block_size", BLOCKS)
@pytest.mark.parametrize("name", masks())
def test_blocks_equal_attention(block_size, name):
    """Catches a maximum that is not rescaled, and a block that hides everything."""
    q, k, v = tensors()
    mask = masks()[name]
    expected, _ = attention(q, k, v, mask=mask)
    out, lse = attention_in_blocks(q, k, v, mask=mask, block_size=block_size)
    assert relative_error(out, expected) < 1e-6
    scores = (q @ k.repeat_interleave(2, dim=1).mT) * D**-0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    torch.testing.assert_close(lse, scores.logsumexp(dim=-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("H_kv", [1, 2, 6])
def test_groups(H_kv):
    q, k, v = tensors(H_kv=H_kv)
    out, _ = attention_in_blocks(q, k, v, block_size=10)
    assert relative_error(out, attention(q, k, v)[0]) < 1e-6


def test_scores_far_apart_stay_finite():
    """Catches exponentials that overflow: the largest score comes last."""
    q, k, v = tensors(scale=1.0)
    q, k = 100 * q, k * torch.linspace(1, 50, S)[:, None]
    out, lse = attention_in_blocks(q, k, v, block_size=4)
    assert torch.isfinite(out).all() and torch.isfinite(lse).all()
    assert (out - attention(q, k, v)[0]).abs().max() < 1e-4


def test_bfloat16_is_no_worse_than_the_fused_kernel():
    q, k, v = tensors(dtype=torch.bfloat16)
    exact, _ = attention(*(x.double() for x in (q, k, v)))
    ours, _ = attention_in_blocks(q, k, v, block_size=8)
    fused = fused_attention(q, k, v)
    assert ours.dtype == torch.bfloat16
    assert relative_error(ours, exact) <= 1.1 * relative_error(fused, exact)


@pytest.mark.parametrize("cuts", [[37], [1, 36], [5, 12, 20], [10, 10, 10, 7]])
@pytest.mark.parametrize("name", ["all", "window", "one row sees nothing"])
def test_merged_parts_equal_the_whole(cuts, name):
    """Catches a mean of parts, and a part in which nothing is seen."""
    q, k, v = tensors(dtype=torch.float64)
    mask = masks()[name]
    hidden = [None] * len(cuts) if mask is None else mask.split(cuts, dim=-1)
    parts = [
        attention_in_blocks(q, key, value, mask=m, block_size=4)
        for key, value, m in zip(k.split(cuts, 2), v.split(cuts, 2), hidden, strict=True)
    ]
    out, lse = merge(*zip(*parts, strict=True))
    whole, whole_lse = attention_in_blocks(q, k, v, mask=mask)
    assert (out - whole).abs().max() < 1e-12
    torch.testing.assert_close(lse, whole_lse)
    if len(cuts) > 2 and name == "all":
        mean = torch.stack([part for part, _ in parts]).mean(dim=0)
        assert (mean - whole).abs().max() > 0.1


def test_gradients_flow():
    q, k, v = (x.requires_grad_(True) for x in tensors(dtype=torch.float64))
    expected = torch.autograd.grad(attention(q, k, v)[0].square().sum(), (q, k, v))
    found = torch.autograd.grad(
        attention_in_blocks(q, k, v, block_size=9)[0].square().sum(), (q, k, v)
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours - theirs).abs().max() < 1e-10


def test_bad_input():
    q, k, v = tensors()
    with pytest.raises(ValueError, match="block_size must be an integer of at least 1, got 0"):
        attention_in_blocks(q, k, v, block_size=0)
    with pytest.raises(ValueError, match="one entry per part, got 0 and 0"):
        merge([], [])
    out, lse = attention_in_blocks(q, k, v)
    with pytest.raises(ValueError, match="one entry per part, got 2 and 1"):
        merge([out, out], [lse])


@pytest.mark.parametrize("block_size", [1, 3, 8])
def test_a_sink_is_a_key_more_or_a_gate_by_the_log_sum_exp(block_size):
    """Catches a log-sum-exp that is of the last block, or not that of the scores as scaled."""
    draw = torch.Generator().manual_seed(0)
    q = torch.randn(2, 6, 5, 4, generator=draw, dtype=torch.float64)
    k, v = torch.randn(2, 2, 3, 7, 4, generator=draw, dtype=torch.float64)
    sinks, mask = (
        torch.randn(6, generator=draw, dtype=torch.float64),
        torch.ones(5, 7).tril(2) > 0,
    )
    expected, _ = attend_with_sinks(q, k, v, mask, sinks)
    out, lse = attention_in_blocks(q, k, v, mask=mask, block_size=block_size)
    gate = torch.sigmoid(lse - sinks[:, None])[..., None]
    torch.testing.assert_close(out * gate, expected, rtol=1e-12, atol=1e-12)
