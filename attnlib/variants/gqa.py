"""Grouped-query attention: each group of query heads shares one KV head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attnlib.cache import KVCache, storage_like
from attnlib.checks import check_forward, check_heads, check_kv_heads
from attnlib.contract import Attended
from attnlib.core import attend, merge_heads, new_positions, rotate_new, split_heads
from attnlib.linear import Linear
from attnlib.rope import Rope
from attnlib.variants.registry import Variant


class GroupedQueryAttention(nn.Module):
    """Attention in several heads, which share keys and values in groups.

    Source: Ainslie et al. 2023, arXiv 2305.13245, section 2.2. Parameters are named as in
    Hugging Face's Llama. ``forward`` and ``new_cache`` are those of
    :class:`~attnlib.contract.AttentionLayer`.

    Args:
        d_model: width of the residual stream.
        n_heads: number of query heads, H.
        n_kv_heads: number of KV heads, H_kv; divides n_heads. G = H / H_kv query heads
            share each.
        head_dim: width of one head, D; ``None`` means d_model / n_heads.
        bias: whether the four projections add one.
        rope: how queries and keys are rotated by position; ``None`` means not at all.

    Raises:
        ValueError: if a size is below 1, if ``n_heads`` is not a multiple of
            ``n_kv_heads``, if ``head_dim`` is left out and ``n_heads`` does not
            divide ``d_model``, or if the width of a head is odd with ``rope``.
    """

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, *,
                 head_dim: int | None = None, bias: bool = False,
                 rope: Rope | None = None):  # fmt: skip
        super().__init__()
        head_dim = check_heads(d_model, n_heads, head_dim, rope=rope)
        check_kv_heads(n_heads, n_kv_heads)
        self.n_heads, self.n_kv_heads, self.rope = n_heads, n_kv_heads, rope
        self.head_dim = self.qk_head_dim = self.v_head_dim = head_dim
        self.q_proj = Linear(d_model, n_heads * head_dim, bias=bias)
        self.k_proj = Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.v_proj = Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.o_proj = Linear(n_heads * head_dim, d_model, bias=bias)

    def forward(self, x: Tensor, cache: KVCache | None = None, *,
                positions: Tensor | None = None, causal: bool = True,
                key_mask: Tensor | None = None,
                return_weights: bool = False) -> Attended:  # fmt: skip
        """Mix each token with the tokens it may see."""
        check_forward(x, self.q_proj.in_features, cache, KVCache, positions, key_mask)
        q = split_heads(self.q_proj(x), self.n_heads)  # (B, H, T, D)
        k = split_heads(self.k_proj(x), self.n_kv_heads)  # (B, H_kv, T, D)
        v = split_heads(self.v_proj(x), self.n_kv_heads)  # (B, H_kv, T, D)
        at = stored_at = new_positions(x, cache, positions)  # (T,) or (B, T)
        q, k = rotate_new(self.rope, at, cache, q, k)
        if cache is not None:
            k, v, stored_at = cache.update(k, v, positions=positions)  # (B, H_kv, S, D)
        out, weights = attend(q, k, v, at, stored_at, causal=causal, key_mask=key_mask,
                              return_weights=return_weights)  # fmt: skip
        out = self.o_proj(merge_heads(out))  # (B, T, d_model)
        return out if weights is None else (out, weights)

    def new_cache(self, batch_size: int, capacity: int, *, dtype: torch.dtype | None = None,
                  device: torch.device | str | None = None) -> KVCache:  # fmt: skip
        """Allocate an empty cache for this layer."""
        dtype, device = storage_like(self.k_proj.weight, dtype, device)
        return KVCache(batch_size, self.n_kv_heads, capacity, self.head_dim,
                       dtype=dtype, device=device)  # fmt: skip


VARIANT = Variant(
    name="GQA",
    title="Grouped-query attention",
    layer=GroupedQueryAttention,
    color="#009E73",
    applies=lambda geometry: 1 < geometry.n_kv_heads < geometry.n_heads,
    cache_numbers=((1, ("n_kv_heads", "head_dim")), (1, ("n_kv_heads", "v_head_dim"))),
    geometry=lambda sizes: sizes.heads(sizes.n_kv_heads),
    from_geometry=lambda g, d_model, rope: GroupedQueryAttention(
        d_model, g.n_heads, g.n_kv_heads, head_dim=g.head_dim, bias=g.o_bias, rope=rope
    ),
)
