"""Attention, one variant at a time: the code behind the book.

The same symbols stand for the same things in the package and in the book:

symbol    in code              meaning
------    -------              -------
B         batch_size           sequences in the batch
T         T                    new tokens of this call, which ask (queries)
S         S                    tokens that may be asked: cached and new ones, S >= T
H         n_heads              query heads
H_kv      n_kv_heads           KV heads; H_kv divides H
G         G                    query heads that share one KV head, G = H / H_kv
D         head_dim             width of one head's query and key
D_v       v_head_dim           width of one head's value; D unless said otherwise
d_model   d_model              width of the residual stream
d_c       kv_lora_rank         width of MLA's latent of keys and values
d_c'      q_lora_rank          width of MLA's latent of queries
d_h       qk_nope_head_dim     width of one MLA head's query and key without position
d_h^R     qk_rope_head_dim     width of MLA's rotary query and key
W         window               keys one query sees, its own included

Tensors are (B, H, T, D), as in ``torch.nn.functional.scaled_dot_product_attention``. Masks are
boolean, True = may attend. Sizes in bytes are integers; KiB, MiB and GiB are powers of two.
"""

from attnlib.blocks import attention_in_blocks, merge
from attnlib.cache import KVCache, LatentCache
from attnlib.core import attention, fused_attention, merge_heads, split_heads
from attnlib.costs import (
    Geometry,
    attention_params,
    decode_flops,
    kv_cache_bytes,
    prefill_flops,
)
from attnlib.layers import cache_size
from attnlib.masks import causal_mask
from attnlib.models import MODELS
from attnlib.rope import Rope, apply_rope, rope_angles
from attnlib.rope_scaling import (
    DynamicNtkScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    NtkScaling,
    YarnScaling,
)
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.mha import MultiHeadAttention
from attnlib.variants.mla import MultiHeadLatentAttention
from attnlib.variants.mqa import MultiQueryAttention
from attnlib.variants.swa import RingCache, SlidingWindowAttention

__version__ = "0.2.0"

__all__ = [
    "MODELS",
    "DynamicNtkScaling",
    "Geometry",
    "GroupedQueryAttention",
    "KVCache",
    "LatentCache",
    "LinearScaling",
    "Llama3Scaling",
    "LongRopeScaling",
    "MultiHeadAttention",
    "MultiHeadLatentAttention",
    "MultiQueryAttention",
    "NtkScaling",
    "RingCache",
    "Rope",
    "SlidingWindowAttention",
    "YarnScaling",
    "apply_rope",
    "attention",
    "attention_in_blocks",
    "attention_params",
    "cache_size",
    "causal_mask",
    "decode_flops",
    "fused_attention",
    "kv_cache_bytes",
    "merge",
    "merge_heads",
    "prefill_flops",
    "rope_angles",
    "split_heads",
]
