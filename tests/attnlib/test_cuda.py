"""Every variant on a CUDA device, against float64 on the CPU; and that nothing waits for it."""

import json
from dataclasses import replace

import pytest
import torch
from helpers import relative_error
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnlib import MultiHeadLatentAttention, Rope
from attnlib.bench import profiled
from attnlib.bench.__main__ import main
from attnlib.variants import VARIANTS, Sizes

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

# Widths that real heads have: flash kernels take multiples of 8 up to 256.
B, T, D_MODEL = 3, 40, 160
SIZES = Sizes(d_model=512, n_heads=8, n_kv_heads=2, kv_lora_rank=96, qk_rope_head_dim=32)


def build(name):
    """A layer whose d_model is not H * D; one of them is MLA with all of its widths unequal."""
    if name in VARIANTS:
        geometry = replace(VARIANTS[name].geometry(SIZES), d_model=D_MODEL)
        return VARIANTS[name].build(geometry, Rope())
    return MultiHeadLatentAttention(
        D_MODEL, SIZES.n_heads, kv_lora_rank=96, qk_nope_head_dim=48, qk_rope_head_dim=32,
        v_head_dim=56, q_lora_rank=72, rope=Rope(interleaved=True),
    )  # fmt: skip


BUILDS = [*VARIANTS, "MLA, unequal widths"]
FORMS = [
    (name, options)
    for name in BUILDS
    for form, options in VARIANTS[name.partition(",")[0]].forms.items()
    if form
]
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
    layer = build(variant)
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0, 1.5 * parameter.shape[-1] ** -0.5)
    layer.to("cuda", dtype)
    exact = build(variant).double()
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


@pytest.mark.parametrize("variant", VARIANTS)
@DTYPES
def test_a_decode_step_at_real_widths_equals_the_cpu(variant, dtype):
    """Catches wide heads' scores that are rounded, and kernels that use little of the card."""
    torch.manual_seed(0)
    geometry = replace(VARIANTS[variant].geometry(Sizes(2048, 16, 4, 512, 64)), d_model=D_MODEL)
    layer = VARIANTS[variant].build(geometry, Rope())
    exact = VARIANTS[variant].build(geometry, Rope()).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.ndim == 2:  # scores of several units, so that weights differ
                parameter.normal_(0, 1.7 * parameter.shape[-1] ** -0.5)
    layer.to("cuda", dtype)
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(2, 700, D_MODEL).to("cuda", dtype)
    cache = layer.new_cache(2, 1000)
    with torch.no_grad():
        expected = exact(x.double().cpu())[:, -1:]
        layer(x[:, :-1], cache)
        with profiled() as profile:
            out = layer(x[:, -1:], cache)
    assert relative_error(out, expected) < TOLERANCES[dtype]
    ran = {event.key for event in profile.key_averages()}
    if variant == "MLA":  # 576 wide: two products
        assert not any("scaled_dot_product" in name for name in ran)
    elif torch.cuda.get_device_capability() >= (8, 0) and dtype != torch.float32:
        if geometry.n_kv_heads < geometry.n_heads:
            assert "aten::_scaled_dot_product_flash_attention" in ran


@pytest.mark.parametrize(("variant", "options"), FORMS, ids=str)
@DTYPES
def test_each_form_equals_the_cpu(variant, options, dtype):
    """Catches a form whose head width no kernel on this device takes."""
    layer, exact, x = on_gpu(variant, dtype)
    expected = exact(x.double().cpu())
    assert relative_error(layer(x, **options), expected) < TOLERANCES[dtype]


@EVERY_BUILD
@DTYPES
def test_ragged_prompts_equal_the_cpu(variant, dtype):
    """Catches positions on another device, and masks of one sequence used for all."""
    layer, exact, x = on_gpu(variant, dtype)
    lengths = torch.tensor([9, 33, 21])
    steps = torch.arange(36)[None, :]
    prompt = torch.where(steps < lengths[:, None], steps, -1)  # (B, 36), padded on the right
    answer = lengths[:, None] + torch.arange(T - 36)[None, :]  # (B, 4), one token after another
    positions = torch.cat([prompt, answer], dim=1)  # (B, T)
    real = positions >= 0
    expected = exact(x.double().cpu(), positions=positions)[real]
    cache, outputs = layer.new_cache(B, T), []
    with torch.no_grad():
        for tokens, where in zip(
            x.split([36, 1, 1, 1, 1], dim=1), positions.split([36, 1, 1, 1, 1], dim=1),
            strict=True,
        ):  # fmt: skip
            outputs.append(layer(tokens, cache, positions=where.cuda()))
    result = torch.cat(outputs, dim=1).cpu()[real]
    assert relative_error(result, expected) < TOLERANCES[dtype]


@EVERY_BUILD
def test_autocast_equals_the_cpu(variant):
    """Catches a product of two dtypes, and a cache in another dtype than autocast's."""
    layer, exact, x = on_gpu(variant, torch.float32)
    expected = exact(x.double().cpu())
    cache, outputs = layer.new_cache(B, T, dtype=torch.float16), []
    with torch.no_grad(), torch.autocast("cuda", dtype=torch.float16):
        outputs = [layer(part, cache) for part in x.split([38, 1, 1], dim=1)]
    assert relative_error(torch.cat(outputs, dim=1), expected) < 2 * TOLERANCES[torch.float16]


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


@EVERY_BUILD
@pytest.mark.parametrize("padded", [False, True])
def test_no_step_waits_for_the_gpu(variant, padded):
    """Catches a value read back from the device, which stalls every step of every layer."""
    layer, _, x = on_gpu(variant, torch.bfloat16)
    mask = padding().cuda() if padded else None
    for again in (False, True):  # the first time, libraries may wait while they set up
        cache = layer.new_cache(B, T)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error" if again else "default")
        try:
            with torch.no_grad():
                for start, end in ((0, 38), (38, 39), (39, T)):
                    seen = None if mask is None else mask[:, :end]
                    layer(x[:, start:end], cache, key_mask=seen)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_the_benchmark_records_a_graph_of_every_step(tmp_path, capsys):
    """Catches a decode step that no CUDA graph can record, and measurements without a floor."""
    file = tmp_path / "run.json"
    main(
        ["--device", "cuda", "--dtype", "bfloat16", "--quick", "--no-compare", "--steps", "3",
         "--tokens", "64", "--prefill", "32", "--json", str(file)]
    )  # fmt: skip
    report = json.loads(file.read_text())
    assert report["provenance"]["gpu"] == torch.cuda.get_device_name()
    rows = report["rows"]
    assert {row["variant"] for row in rows if row["graph"]} == set(VARIANTS)
    for row in rows:
        assert 0 < row["floor_seconds"] < row["seconds"] < 1
        assert row["phase"] == "decode" or row["backend"] != "none"
        assert row["peak_bytes"] > 0
    assert "64 tokens" in capsys.readouterr().out
