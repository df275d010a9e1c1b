"""The layers of transformers, with the weights of attnlib's, as a baseline in the same rounds.

Each class of attnlib that transformers has a counterpart of is named once, in ``BASELINES``. A
variant that is not among them is measured without a baseline.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from attnlib.costs import Geometry
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.mha import MultiHeadAttention
from attnlib.variants.mla import MultiHeadLatentAttention
from attnlib.variants.mqa import MultiQueryAttention

#: An attention layer of transformers, and what makes its cosines and sines of (x, positions).
Baseline: TypeAlias = tuple[nn.Module, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]


def llama_attention(geometry: Geometry, tokens: int) -> Baseline:
    """Build Llama's attention, which is MHA, GQA or MQA by its number of KV heads.

    Args:
        geometry: of one layer.
        tokens: positions that the configuration allows.

    Returns:
        The layer, and what makes its cosines and sines.
    """
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    config = LlamaConfig(
        hidden_size=geometry.d_model,
        num_attention_heads=geometry.n_heads,
        num_key_value_heads=geometry.n_kv_heads,
        head_dim=geometry.head_dim,
        attention_bias=geometry.o_bias,
        max_position_embeddings=tokens,
        attn_implementation="sdpa",
    )
    return LlamaAttention(config, layer_idx=0), LlamaRotaryEmbedding(config)


def deepseek_attention(geometry: Geometry, tokens: int) -> Baseline:
    """Build DeepSeek-V3's attention, which is MLA.

    Args:
        geometry: of one layer.
        tokens: positions that the configuration allows.

    Returns:
        The layer, and what makes its cosines and sines.
    """
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import (
        DeepseekV3Attention,
        DeepseekV3RotaryEmbedding,
    )

    config = DeepseekV3Config(
        hidden_size=geometry.d_model,
        num_attention_heads=geometry.n_heads,
        num_key_value_heads=geometry.n_kv_heads,
        q_lora_rank=geometry.q_lora_rank,
        kv_lora_rank=geometry.kv_lora_rank,
        qk_nope_head_dim=geometry.head_dim,
        qk_rope_head_dim=geometry.qk_rope_head_dim,
        v_head_dim=geometry.v_head_dim,
        rope_interleave=False,
        max_position_embeddings=tokens,
        attn_implementation="sdpa",
    )
    return DeepseekV3Attention(config, layer_idx=0), DeepseekV3RotaryEmbedding(config)


#: How to build the counterpart of a layer, by the layer's class.
BASELINES: Mapping[type[nn.Module], Callable[[Geometry, int], Baseline]] = {
    MultiHeadAttention: llama_attention,
    GroupedQueryAttention: llama_attention,
    MultiQueryAttention: llama_attention,
    MultiHeadLatentAttention: deepseek_attention,
}


def baseline_of(geometry: Geometry, layer: nn.Module, tokens: int) -> Baseline:
    """Build transformers' layer of the same sizes and weights.

    Args:
        geometry: of one layer.
        layer: attnlib's layer of that geometry, of a class in :data:`BASELINES`.
        tokens: positions that the configuration allows.

    Returns:
        The layer, with the SDPA backend, and what makes its cosines and sines.
    """
    module, rotary = BASELINES[type(layer)](geometry, tokens)
    weight = next(layer.parameters())
    module.load_state_dict(layer.state_dict())
    return module.to(weight).eval().requires_grad_(False), rotary.to(weight.device)


def baseline_decode_step(
    geometry: Geometry, layer: nn.Module, x: Tensor, tokens: int
) -> tuple[Callable[[], object], Callable[[], None]]:
    """Make a decode step of transformers' layer, and what takes its token back.

    Cosines and sines are made beforehand, since there all layers of a model share them.

    Args:
        geometry: of the layer.
        layer: attnlib's layer, whose weights are taken.
        x: hidden state of the new token, shape ``(B, 1, d_model)``.
        tokens: tokens that the new one sees, itself included.

    Returns:
        ``(step, rewind)``.
    """
    from transformers import DynamicCache

    module, rotary = baseline_of(geometry, layer, tokens)
    angles = rotary(x, torch.full((len(x), 1), tokens - 1, device=x.device))
    cache = DynamicCache()
    if tokens > 1:
        module(x, angles, None, past_key_values=cache)  # to learn the shapes that it stores
        shapes = cache.layers[0].keys.shape, cache.layers[0].values.shape
        cache = DynamicCache()
        past = [x.new_empty(*s[:2], tokens - 1, s[3]).normal_() for s in shapes]
        cache.update(*past, 0)
        del past
    return partial(module, x, angles, None, past_key_values=cache), lambda: cache.crop(-1)


def baseline_prefill(geometry: Geometry, layer: nn.Module, x: Tensor) -> Callable[[], object]:
    """Make a prefill of transformers' layer into a new cache.

    Args:
        geometry: of the layer.
        layer: attnlib's layer, whose weights are taken.
        x: hidden states, shape ``(B, T, d_model)``.

    Returns:
        The prefill.
    """
    from transformers import DynamicCache

    module, rotary = baseline_of(geometry, layer, x.shape[1])
    angles = rotary(x, torch.arange(x.shape[1], device=x.device).expand(len(x), -1))
    return lambda: module(x, angles, None, past_key_values=DynamicCache())
