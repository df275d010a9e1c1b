"""Oracle: Hugging Face transformers, with the same random weights. Nothing is downloaded."""

import pytest
import torch
from helpers import B, T, close, hidden, randomise

from attnlib import (
    DynamicNtkScaling,
    GroupedQueryAttention,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    MultiHeadAttention,
    MultiHeadLatentAttention,
    MultiQueryAttention,
    Rope,
    YarnScaling,
    rope_angles,
)

pytest.importorskip("transformers", reason="transformers is missing: pip install transformers")

from transformers import (
    DeepseekV3Config,
    DynamicCache,
    Glm4Config,
    Glm4MoeConfig,
    GPT2Config,
    LlamaConfig,
)
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)
from transformers.models.glm4 import modeling_glm4 as glm4
from transformers.models.glm4_moe import modeling_glm4_moe as glm4_moe
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

TOLERANCE = 1e-5  # float32
FAR_OUT = 5e-5  # transformers computes angles in float32, so that 100 radians are rounded
D_MODEL, H = 48, 6  # for all but the layers with a head_dim of their own
BASE = 500.0  # not the default, so that a base that is ignored shows


def causal_bias(new, total):
    """The additive mask that transformers' eager attention takes."""
    seen = torch.ones(new, total).tril(total - new)
    return torch.zeros(new, total).masked_fill(seen == 0, torch.finfo(torch.float32).min)


def theirs_in_chunks(call, x, sizes):
    """The reference's output of a sequence that comes in chunks, through DynamicCache."""
    cache, start, outputs = DynamicCache(), 0, []
    for chunk in x.split(sizes, dim=1):
        end = start + chunk.shape[1]
        positions, bias = torch.arange(start, end)[None], causal_bias(end - start, end)
        outputs.append(call(chunk.contiguous(), positions, bias, cache))
        start = end
    return torch.cat(outputs, dim=1)


def ours_in_chunks(layer, x, sizes, **options):
    """The same through attnlib's cache."""
    cache = layer.new_cache(x.shape[0], x.shape[1] + 4)
    return torch.cat([layer(chunk, cache, **options) for chunk in x.split(sizes, dim=1)], dim=1)


def tokens(d_model, seed=1):
    torch.manual_seed(seed)
    return torch.randn(B, T, d_model)


SIZES = pytest.mark.parametrize("sizes", [[T], [3, 1, 1, 1, 1], [1] * T, [2, 3, 2]], ids=str)


@SIZES
def test_mha_equals_gpt2(sizes):
    """Catches wrong scale, heads or masks: GPT-2 has biases and no rotary positions."""
    config = GPT2Config(n_embd=D_MODEL, n_head=H, attn_pdrop=0.0, resid_pdrop=0.0,
                        attn_implementation="eager")  # fmt: skip
    theirs = randomise(GPT2Attention(config, layer_idx=0), torch.float32)
    ours = MultiHeadAttention(D_MODEL, H, bias=True)
    with torch.no_grad():
        # GPT-2 keeps the three projections in one, and weights as (in, out).
        weights = theirs.c_attn.weight.mT.split(D_MODEL)
        biases = theirs.c_attn.bias.split(D_MODEL)
        for layer, weight, bias in zip(
            (ours.q_proj, ours.k_proj, ours.v_proj), weights, biases, strict=True
        ):
            layer.weight.copy_(weight)
            layer.bias.copy_(bias)
        ours.o_proj.weight.copy_(theirs.c_proj.weight.mT)
        ours.o_proj.bias.copy_(theirs.c_proj.bias)

    def call(x, positions, bias, cache):
        return theirs(x, past_key_values=cache, attention_mask=bias)[0]

    x = tokens(D_MODEL)
    expected = theirs_in_chunks(call, x, sizes)
    close(ours_in_chunks(ours, x, sizes), expected, TOLERANCE)
    close(ours(x), expected, TOLERANCE)


LLAMAS = {  # by number of KV heads
    6: lambda **options: MultiHeadAttention(D_MODEL, H, **options),
    3: lambda **options: GroupedQueryAttention(D_MODEL, H, 3, **options),
    2: lambda **options: GroupedQueryAttention(D_MODEL, H, 2, **options),
    1: lambda **options: MultiQueryAttention(D_MODEL, H, **options),
}


def llama(n_kv_heads, *, head_dim=None, bias=False, positions=64, rope=None):
    """Llama's attention layer and a function that calls it."""
    config = LlamaConfig(
        hidden_size=D_MODEL, num_attention_heads=H, num_key_value_heads=n_kv_heads,
        head_dim=head_dim, attention_bias=bias, max_position_embeddings=positions,
        rope_parameters=rope or {"rope_type": "default", "rope_theta": BASE},
        attn_implementation="eager",
    )  # fmt: skip
    layer = randomise(LlamaAttention(config, layer_idx=0), torch.float32)
    rotary = LlamaRotaryEmbedding(config)

    def call(x, positions, bias, cache):
        return layer(x, rotary(x, positions), bias, past_key_values=cache)[0]

    return layer, call


@SIZES
@pytest.mark.parametrize("n_kv_heads", LLAMAS)
@pytest.mark.parametrize("head_dim", [None, 10])
@pytest.mark.parametrize("bias", [False, True])
def test_heads_equal_llama(n_kv_heads, head_dim, bias, sizes):
    """Catches wrong grouping, pairing, sign or names: one state_dict fits both, strictly."""
    theirs, call = llama(n_kv_heads, head_dim=head_dim, bias=bias)
    ours = LLAMAS[n_kv_heads](head_dim=head_dim, bias=bias, rope=Rope(base=BASE))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = tokens(D_MODEL)
    expected = theirs_in_chunks(call, x, sizes)
    close(ours_in_chunks(ours, x, sizes), expected, TOLERANCE)
    close(ours(x), expected, TOLERANCE)


@pytest.mark.parametrize("n_kv_heads", LLAMAS)
def test_our_weights_load_into_llama(n_kv_heads):
    """Catches names or shapes that only one direction forgives."""
    theirs, call = llama(n_kv_heads)
    ours = randomise(LLAMAS[n_kv_heads](rope=Rope(base=BASE)), torch.float32)
    with torch.no_grad():
        ours.q_proj.weight.mul_(0.9)  # so that the weights are not the reference's already
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = tokens(D_MODEL)
    close(ours(x), theirs_in_chunks(call, x, [T]), TOLERANCE)


def test_dynamic_scaling_equals_llama():
    """Catches another rule for the base of a sequence longer than the trained length."""
    rope = {"rope_type": "dynamic", "rope_theta": BASE, "factor": 2.0}
    theirs, call = llama(3, positions=4, rope=rope)  # 7 tokens after training on 4
    scaling = DynamicNtkScaling(2.0, original_length=4)
    ours = LLAMAS[3](rope=Rope(base=BASE, scaling=scaling))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = tokens(D_MODEL)
    close(ours(x), theirs_in_chunks(call, x, [T]), TOLERANCE)
    _, unscaled = llama(3)
    assert (ours(x) - theirs_in_chunks(unscaled, x, [T])).abs().max() > 1e-3


@pytest.mark.parametrize("length", [3, 16, 17, 40])
def test_dynamic_angles_equal_transformers(length):
    """Catches a wrong stretch or exponent, at lengths below and above the trained one."""
    config = LlamaConfig(
        hidden_size=D_MODEL, num_attention_heads=H, max_position_embeddings=16,
        rope_parameters={"rope_type": "dynamic", "rope_theta": BASE, "factor": 3.0},
    )  # fmt: skip
    speeds, attention_factor = ROPE_INIT_FUNCTIONS["dynamic"](config, seq_len=length)
    assert attention_factor == 1.0
    positions = torch.arange(length)
    scaling = DynamicNtkScaling(3.0, original_length=16)
    cos, sin = rope_angles(positions, D_MODEL // H, base=BASE, scaling=scaling)
    angles = positions[:, None].float() * speeds
    close(cos, angles.cos(), TOLERANCE)
    close(sin, angles.sin(), TOLERANCE)


# Rules as models publish them and transformers reads them: Gemma-3's, Llama-3.1's and 3.2's,
# the paper's YaRN, gpt-oss's, DeepSeek-V3's; then one with invented numbers, and Phi-3's rule.
SHORT, LONG = tuple(1 + i / 50 for i in range(32)), tuple(1 + i / 2 for i in range(32))
RULES = {
    "default": (None, {}),
    "linear": (LinearScaling(8.0), {"factor": 8.0}),
    "llama3": (
        Llama3Scaling(),
        {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192},
    ),
    "llama3, by 32": (
        Llama3Scaling(32.0),
        {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
         "original_max_position_embeddings": 8192},
    ),
    "yarn": (
        YarnScaling(4.0, 4096),
        {"factor": 4.0, "original_max_position_embeddings": 4096},
    ),
    "yarn, not truncated": (
        YarnScaling(32.0, 4096, truncate=False),
        {"factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
         "original_max_position_embeddings": 4096},
    ),
    "yarn, equal scales": (
        YarnScaling(40.0, 4096, mscale_all_dim=1.0),
        {"factor": 40.0, "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0,
         "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096},
    ),
    "yarn, two scales": (
        YarnScaling(40.0, 4096, 16.0, 2.0, mscale=0.707, mscale_all_dim=0.4),
        {"factor": 40.0, "beta_fast": 16.0, "beta_slow": 2.0, "mscale": 0.707,
         "mscale_all_dim": 0.4, "original_max_position_embeddings": 4096},
    ),
    "longrope": (
        LongRopeScaling(32.0, 4096, SHORT, LONG),
        {"factor": 32.0, "original_max_position_embeddings": 4096,
         "short_factor": list(SHORT), "long_factor": list(LONG)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
@pytest.mark.parametrize("length", [100, 20_000])
@pytest.mark.parametrize("rule", RULES)
def test_scaled_speeds_and_factors_equal_transformers(rule, length, base):
    """Catches a wrong end, direction or shape of a ramp, and a factor left out."""
    scaling, settings = RULES[rule]
    rope_type = rule.split(",")[0]
    config = LlamaConfig(
        hidden_size=6 * 64, num_attention_heads=6, max_position_embeddings=131_072,
        rope_parameters={"rope_type": rope_type, "rope_theta": base, **settings},
    )  # fmt: skip
    default = LlamaRotaryEmbedding.compute_default_rope_parameters
    compute = ROPE_INIT_FUNCTIONS.get(rope_type, default)
    speeds, factor = compute(config, device="cpu", seq_len=length)
    options = {"base": base, "scaling": scaling, "length": length}
    positions = torch.tensor([0, 1, 2, 5, 40, 99])
    angles = positions[:, None].double() * speeds
    expected = factor * torch.stack((angles.cos(), angles.sin()))
    close(torch.stack(rope_angles(positions, 64, **options)).double(), expected, TOLERANCE)
    cos, sin = rope_angles(torch.tensor([1]), 64, **options)
    close(torch.atan2(sin, cos)[0] / speeds, torch.ones(32), TOLERANCE)  # slow ones count, too
    if scaling is not None:
        plain = base ** (-torch.arange(0, 64, 2) / 64)
        assert plain[-1] / speeds[-1] > 1.5


@pytest.mark.parametrize("n_kv_heads", [3, 1])
@pytest.mark.parametrize("rule", ["llama3", "yarn", "linear"])
def test_llama_beyond_its_original_length(rule, n_kv_heads):
    """Catches a layer that ignores its scaling, with and without a cache."""
    scaling, settings = {
        "llama3": (Llama3Scaling(8.0, 16), {"low_freq_factor": 1.0, "high_freq_factor": 4.0}),
        "yarn": (YarnScaling(8.0, 16), {}),
        "linear": (LinearScaling(8.0), {}),
    }[rule]
    rope = {"rope_type": rule, "rope_theta": BASE, "factor": 8.0, **settings}
    if rule != "linear":
        rope["original_max_position_embeddings"] = 16
    theirs, call = llama(n_kv_heads, positions=128, rope=rope)
    ours = LLAMAS[n_kv_heads](rope=Rope(base=BASE, scaling=scaling))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = tokens(D_MODEL)
    at = 100 + torch.arange(T)[None] ** 2  # positions and distances beyond 16
    expected = call(x, at, causal_bias(T, T), None)
    close(ours(x, positions=at[0]), expected, FAR_OUT)
    cache = ours.new_cache(B, T)
    steps = [ours(x[:, t : t + 1], cache, positions=at[0, t : t + 1]) for t in range(T)]
    close(torch.cat(steps, dim=1), expected, FAR_OUT)
    unscaled = LLAMAS[n_kv_heads](rope=Rope(base=BASE))
    unscaled.load_state_dict(theirs.state_dict())
    assert (unscaled(x, positions=at[0]) - expected).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("interleaved", "config_type", "attention", "rotary_type"),
    [
        (False, Glm4MoeConfig, glm4_moe.Glm4MoeAttention, glm4_moe.Glm4MoeRotaryEmbedding),
        (True, Glm4Config, glm4.Glm4Attention, glm4.Glm4RotaryEmbedding),
    ],
)
def test_rotating_a_part_of_each_head_equals_glm(
    interleaved, config_type, attention, rotary_type
):
    """Catches the wrong end of a head, speeds of the whole width, and a lost rest."""
    rope = {"rope_type": "default", "rope_theta": BASE, "partial_rotary_factor": 0.5}
    config = config_type(
        hidden_size=D_MODEL, num_attention_heads=H, num_key_value_heads=3, head_dim=16,
        max_position_embeddings=64, attention_bias=False, rope_parameters=rope,
        attn_implementation="eager",
    )  # fmt: skip
    theirs = randomise(attention(config, layer_idx=0), torch.float32)
    ours = GroupedQueryAttention(
        D_MODEL, H, 3, head_dim=16,
        rope=Rope(base=BASE, rotary_dim=8, interleaved=interleaved),
    )  # fmt: skip
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, positions = tokens(D_MODEL), torch.arange(T)[None]
    expected = theirs(x, rotary_type(config)(x, positions), causal_bias(T, T))[0]
    close(ours(x), expected, TOLERANCE)


def deepseek(q_lora_rank, interleaved, v_head_dim=9, rope=None, scaling=None, base=BASE):
    """DeepSeek-V3's attention layer, a function that calls it, and ours with its sizes."""
    widths = {"q_lora_rank": q_lora_rank, "kv_lora_rank": 13, "qk_nope_head_dim": 8,
              "qk_rope_head_dim": 4, "v_head_dim": v_head_dim}  # fmt: skip
    config = DeepseekV3Config(
        hidden_size=22, num_attention_heads=H, num_key_value_heads=H,
        max_position_embeddings=64, rope_interleave=interleaved,
        rope_parameters=rope or {"rope_type": "default", "rope_theta": BASE},
        attn_implementation="eager", **widths,
    )  # fmt: skip
    theirs = randomise(DeepseekV3Attention(config, layer_idx=0), torch.float32)
    rotary = DeepseekV3RotaryEmbedding(config)

    def call(x, positions, bias, cache):
        return theirs(x, rotary(x, positions), bias, past_key_values=cache)[0]

    ours = Rope(base=base, interleaved=interleaved, scaling=scaling)
    return theirs, call, MultiHeadLatentAttention(22, H, rope=ours, **widths)


def published(original_length, mscale_all_dim=1.0):
    """DeepSeek-V3's positions, as transformers reads them and as ours."""
    theirs = {
        "rope_type": "yarn", "rope_theta": 10_000.0, "factor": 40.0, "beta_fast": 32.0,
        "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": mscale_all_dim,
        "original_max_position_embeddings": original_length,
    }  # fmt: skip
    scaling = YarnScaling(40.0, original_length, mscale_all_dim=mscale_all_dim)
    return {"rope": theirs, "scaling": scaling, "base": 10_000.0}


@SIZES
@pytest.mark.parametrize("mscale_all_dim", [1.0, 0.707])
def test_mla_equals_deepseek_with_its_published_positions(sizes, mscale_all_dim):
    """Catches YaRN's factor left out of the scores, not squared, or in one form only."""
    theirs, call, ours = deepseek(14, True, **published(4096, mscale_all_dim))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = hidden(dtype=torch.float32)
    expected = theirs_in_chunks(call, x, sizes)
    for absorb in (None, True, False):
        close(ours_in_chunks(ours, x, sizes, absorb=absorb), expected, TOLERANCE)
        close(ours(x, absorb=absorb), expected, TOLERANCE)
    _, _, unscaled = deepseek(14, True)
    unscaled.load_state_dict(theirs.state_dict())
    assert (unscaled(x) - expected).abs().max() > 1e-2


def test_mla_beyond_its_original_length():
    """Catches speeds of the whole head where only a part is rotated, far out."""
    theirs, call, ours = deepseek(None, True, **published(16))
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x, at = hidden(dtype=torch.float32), 100 + torch.arange(T)[None] ** 2
    close(ours(x, positions=at[0]), call(x, at, causal_bias(T, T), None), FAR_OUT)


@SIZES
@pytest.mark.parametrize("q_lora_rank", [None, 14])
@pytest.mark.parametrize("interleaved", [True, False])
@pytest.mark.parametrize("v_head_dim", [9, 15])
def test_mla_equals_deepseek_v3(sizes, q_lora_rank, interleaved, v_head_dim):
    """Catches a wrong norm, split, layout, scale or name, in both forms."""
    theirs, call, ours = deepseek(q_lora_rank, interleaved, v_head_dim)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = hidden(dtype=torch.float32)
    expected = theirs_in_chunks(call, x, sizes)
    for absorb in (None, True, False):
        close(ours_in_chunks(ours, x, sizes, absorb=absorb), expected, TOLERANCE)
        close(ours(x, absorb=absorb), expected, TOLERANCE)


@pytest.mark.parametrize("q_lora_rank", [None, 14])
def test_our_weights_load_into_deepseek_v3(q_lora_rank):
    """Catches names or shapes that only one direction forgives."""
    theirs, call, ours = deepseek(q_lora_rank, interleaved=True)
    randomise(ours, torch.float32)
    with torch.no_grad():
        ours.kv_b_proj.weight.mul_(0.9)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = hidden(dtype=torch.float32)
    close(ours(x), theirs_in_chunks(call, x, [T]), TOLERANCE)
