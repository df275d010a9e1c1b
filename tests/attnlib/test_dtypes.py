"""bfloat16 and float16: they run, stay near float32, and give back what came in."""

import pytest
import torch
from helpers import (
    CASES,
    B,
    T,
    buffers,
    build,
    has_latent,
    hidden,
    left_padding,
    make,
    relative_error,
)
from test_variants import in_chunks

from attnlib import MultiHeadLatentAttention

EVERY_VARIANT = pytest.mark.parametrize("variant", CASES)
# Largest relative error of the output against float64: some roundings, not some digits.
TOLERANCES = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 2e-6}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


def pair(variant, dtype):
    """A layer, the same in float64 with the rounded weights, and input for both."""
    layer = make(variant, dtype)
    exact = build(variant).double()
    exact.load_state_dict(layer.state_dict())
    x = hidden(dtype=dtype)
    return layer, exact, x


@EVERY_VARIANT
@DTYPES
@pytest.mark.parametrize("padded", [False, True])
def test_one_pass_stays_near_float64(variant, dtype, padded):
    """Catches masks, angles or sums that overflow or lose digits in half precision."""
    layer, exact, x = pair(variant, dtype)
    key_mask = left_padding([0, 2, 5, 1, 3], T) if padded else None
    expected = exact(x.double(), key_mask=key_mask)
    out = layer(x, key_mask=key_mask)
    assert out.dtype == dtype
    assert relative_error(out, expected) < TOLERANCES[dtype]
    out, weights = layer(x, key_mask=key_mask, return_weights=True)
    assert out.dtype == weights.dtype == dtype
    assert relative_error(out, expected) < TOLERANCES[dtype]


@EVERY_VARIANT
@DTYPES
def test_decoding_stays_near_float64(variant, dtype):
    """Catches a cache or a rotation that rounds more than once."""
    layer, exact, x = pair(variant, dtype)
    out = in_chunks(layer, x, [4, 1, 2])
    assert out.dtype == dtype
    assert relative_error(out, exact(x.double())) < TOLERANCES[dtype]


@DTYPES
@pytest.mark.parametrize("variant", [case for case in CASES if has_latent(case)])
@pytest.mark.parametrize("absorb", [True, False])
def test_both_forms_of_mla_stay_near_float64(variant, dtype, absorb):
    """Catches an absorbed form that is right in theory and inaccurate in half precision."""
    layer, exact, x = pair(variant, dtype)
    assert isinstance(layer, MultiHeadLatentAttention)
    out = layer(x, absorb=absorb)
    assert relative_error(out, exact(x.double())) < TOLERANCES[dtype]


@EVERY_VARIANT
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_hidden_queries_are_zero_in_half_precision(variant, dtype):
    """Catches a mask value that overflows to -inf, which makes NaN of a hidden row."""
    layer, x = make(variant, dtype), hidden(dtype=dtype)
    key_mask = torch.ones(B, T, dtype=torch.bool)
    key_mask[2] = False
    for return_weights in (True, False):
        result = layer(x, key_mask=key_mask, return_weights=return_weights)
        out = result[0] if return_weights else result
        assert torch.isfinite(out).all()
        bias = getattr(layer.o_proj, "bias", None)
        expected = torch.zeros_like(out[2]) if bias is None else bias.expand_as(out[2])
        assert torch.equal(out[2], expected)


@EVERY_VARIANT
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_half_precision_are_finite(variant, dtype):
    """Catches a backward pass without a kernel for the dtype, or one that overflows."""
    layer = make(variant, dtype)
    layer(hidden(dtype=dtype)).square().mean().backward()
    for name, parameter in layer.named_parameters():
        assert parameter.grad.dtype == dtype
        assert torch.isfinite(parameter.grad).all(), name


@EVERY_VARIANT
@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # RMSNorm's weight stays float32
def test_autocast_runs(variant):
    """Catches a product of two dtypes, which autocast leaves alone."""
    layer, x = make(variant, torch.float32), hidden(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x)
    assert relative_error(out, layer(x)) < TOLERANCES[torch.bfloat16]


@EVERY_VARIANT
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:Mismatch dtype")  # RMSNorm's weight stays float32
def test_autocast_runs_with_a_cache(variant, dtype):
    """Catches keys in another dtype than the cache's: in autocast's, not in the weights'."""
    layer, x = make(variant, torch.float32), hidden(dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cache = layer.new_cache(B, T, dtype=dtype)
        out = torch.cat([layer(x[:, :4], cache), layer(x[:, 4:], cache)], dim=1)
    assert relative_error(out, layer(x)) < TOLERANCES[torch.bfloat16]
    assert {tensor.dtype for tensor in buffers(cache) if tensor.is_floating_point()} == {
        torch.bfloat16
    }
