"""The four variants on a CUDA device, against float64 on the CPU."""

import pytest
import torch
from helpers import relative_error
from torch.nn.attention import SDPBackend, sdpa_kernel

import attnlib
from attnlib import Rope

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# Widths that real heads have: flash kernels take multiples of 8 up to 256.
B, T, H, H_KV, D, D_MODEL = 3, 40, 8, 2, 64, 160
LATENT = {"kv_lora_rank": 96, "qk_nope_head_dim": 48, "qk_rope_head_dim": 32, "v_head_dim": 56}
BUILDS = {
    "mha": lambda: attnlib.MultiHeadAttention(D_MODEL, H, head_dim=D, rope=Rope()),
    "mqa": lambda: attnlib.MultiQueryAttention(D_MODEL, H, head_dim=D, rope=Rope()),
    "gqa": lambda: attnlib.GroupedQueryAttention(D_MODEL, H, H_KV, head_dim=D, rope=Rope()),
    "mla": lambda: attnlib.MultiHeadLatentAttention(D_MODEL, H, **LATENT),
    "mla-q-latent": lambda: attnlib.MultiHeadLatentAttention(
        D_MODEL, H, **LATENT, q_lora_rank=72, rope=Rope(interleaved=True)
    ),
}
TOLERANCES = {torch.bfloat16: 3e-2, torch.float16: 4e-3, torch.float32: 1e-5}
EVERY_BUILD = pytest.mark.parametrize("variant", BUILDS)
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
NO_MATH = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
]


@pytest.fixture(autouse=True)
def full_float32():
    """No TF32: float32 is compared as float32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


def on_gpu(variant, dtype):
    """A layer on the GPU, its float64 twin on the CPU, and input for both."""
    torch.manual_seed(0)
    layer = BUILDS[variant]()
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5)
    layer.to("cuda", dtype)
    exact = BUILDS[variant]().double()
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(B, T, D_MODEL).to("cuda", dtype)
    return layer, exact, x


def padding():
    return torch.arange(T)[None, :] >= torch.tensor([0, 9, 23])[:, None]  # (B, T), on the left


@EVERY_BUILD
@DTYPES
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("return_weights", [False, True])
def test_one_pass_equals_the_cpu(variant, dtype, causal, padded, return_weights):
    """Catches a device left out somewhere, and kernels that treat masks differently."""
    layer, exact, x = on_gpu(variant, dtype)
    key_mask = padding() if padded else None
    expected = exact(x.double().cpu(), causal=causal, key_mask=key_mask)
    result = layer(
        x,
        causal=causal,
        key_mask=None if key_mask is None else key_mask.cuda(),
        return_weights=return_weights,
    )
    out = result[0] if return_weights else result
    assert out.device.type == "cuda"
    assert out.dtype == dtype
    assert torch.isfinite(out).all()
    assert relative_error(out, expected) < TOLERANCES[dtype]


@EVERY_BUILD
@DTYPES
@pytest.mark.parametrize("sizes", [[36, 1, 1, 1, 1], [16, 23, 1]])
@pytest.mark.parametrize("padded", [False, True])
def test_prefill_and_decode_equal_the_cpu(variant, dtype, sizes, padded):
    """Catches a cache on another device, and decode kernels that read strides wrongly."""
    layer, exact, x = on_gpu(variant, dtype)
    key_mask = padding() if padded else None
    expected = exact(x.double().cpu(), key_mask=key_mask)
    cache = layer.new_cache(B, T + 24)
    outputs = []
    with torch.no_grad():
        for chunk in x.split(sizes, dim=1):
            end = cache.seen + chunk.shape[1]
            mask = None if key_mask is None else key_mask[:, :end].cuda()
            outputs.append(layer(chunk, cache, key_mask=mask))
    assert relative_error(torch.cat(outputs, dim=1), expected) < TOLERANCES[dtype]


@pytest.mark.parametrize("variant", ["mla", "mla-q-latent"])
@DTYPES
@pytest.mark.parametrize("absorb", [True, False])
def test_both_forms_of_mla_equal_the_cpu(variant, dtype, absorb):
    """Catches a form whose head width no kernel on this device takes."""
    layer, exact, x = on_gpu(variant, dtype)
    expected = exact(x.double().cpu())
    assert relative_error(layer(x, absorb=absorb), expected) < TOLERANCES[dtype]


@EVERY_BUILD
@pytest.mark.parametrize("padded", [False, True])
def test_bfloat16_prefill_needs_no_math_backend(variant, padded):
    """Catches strides, widths or masks that send prefill to the unfused fallback."""
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("fused bfloat16 attention needs compute capability 8.0 or newer")
    layer, exact, x = on_gpu(variant, torch.bfloat16)
    key_mask = padding() if padded else None
    with sdpa_kernel(NO_MATH), torch.no_grad():
        out = layer(x, key_mask=None if key_mask is None else key_mask.cuda())
    expected = exact(x.double().cpu(), key_mask=key_mask)
    assert relative_error(out, expected) < TOLERANCES[torch.bfloat16]


@EVERY_BUILD
def test_gradients_equal_the_cpu(variant):
    """Catches a backward pass that the GPU's kernels do differently."""
    layer, exact, x = on_gpu(variant, torch.float32)
    layer(x).square().sum().backward()
    exact(x.double().cpu()).square().sum().backward()
    twins = dict(exact.named_parameters())
    for name, parameter in layer.named_parameters():
        assert relative_error(parameter.grad, twins[name].grad) < 1e-4, name


@EVERY_BUILD
def test_cache_of_the_cpu_is_refused(variant):
    """Catches a silent copy between devices at each step."""
    layer, _, x = on_gpu(variant, torch.float32)
    cache = layer.new_cache(B, T, device="cpu")
    with pytest.raises(ValueError, match="cpu"):
        layer(x, cache)
    assert cache.seen == 0
