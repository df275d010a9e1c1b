"""Oracle: Hugging Face transformers, with the same random weights. Nothing is downloaded."""

import pytest
import torch
from helpers import B, T, close, hidden, randomise

from attnlib import (
    DynamicNtkScaling,
    GroupedQueryAttention,
    MultiHeadAttention,
    MultiHeadLatentAttention,
    MultiQueryAttention,
    Rope,
    rope_angles,
)

pytest.importorskip("transformers", reason="transformers is missing: pip install transformers")

from transformers import DeepseekV3Config, DynamicCache, GPT2Config, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
    DeepseekV3Attention,
    DeepseekV3RotaryEmbedding,
)
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

TOLERANCE = 1e-5  # float32
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


def deepseek(q_lora_rank, interleaved, v_head_dim=9):
    """DeepSeek-V3's attention layer, a function that calls it, and ours with its sizes."""
    widths = {"q_lora_rank": q_lora_rank, "kv_lora_rank": 13, "qk_nope_head_dim": 8,
              "qk_rope_head_dim": 4, "v_head_dim": v_head_dim}  # fmt: skip
    config = DeepseekV3Config(
        hidden_size=22, num_attention_heads=H, num_key_value_heads=H,
        max_position_embeddings=64, rope_interleave=interleaved,
        rope_parameters={"rope_type": "default", "rope_theta": BASE},
        attn_implementation="eager", **widths,
    )  # fmt: skip
    theirs = randomise(DeepseekV3Attention(config, layer_idx=0), torch.float32)
    rotary = DeepseekV3RotaryEmbedding(config)

    def call(x, positions, bias, cache):
        return theirs(x, rotary(x, positions), bias, past_key_values=cache)[0]

    rope = Rope(base=BASE, interleaved=interleaved)
    return theirs, call, MultiHeadLatentAttention(22, H, rope=rope, **widths)


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
