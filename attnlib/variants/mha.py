"""Multi-head attention: every head has queries, keys and values of its own."""

from __future__ import annotations

from torch import nn

from attnlib.cache import KVCache, storage_like
from attnlib.checks import check_heads, check_hidden
from attnlib.core import attend, merge_heads, rotate_new, split_heads
from attnlib.linear import Linear


class MultiHeadAttention(nn.Module):
    """Attention in several heads, each with its own queries, keys and values.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2. Parameters are named as in
    Hugging Face's Llama.

    Args:
        d_model (int): width of the residual stream.
        n_heads (int): number of query heads, H.
        head_dim (int | None): width of one head, D; ``None`` means d_model / n_heads.
        bias (bool): whether the four projections add one.
        rope (Rope | None): how queries and keys are rotated by position; ``None`` means not at
            all.

    Raises:
        ValueError: if a size is below 1, if ``head_dim`` is left out and ``n_heads`` does not
            divide ``d_model``, or if the width of a head is odd with ``rope``.
    """

    def __init__(self, d_model, n_heads, *, head_dim=None, bias=False, rope=None):
        super().__init__()
        head_dim = check_heads(d_model, n_heads, head_dim, rope=rope is not None)
        self.n_heads, self.head_dim, self.rope = n_heads, head_dim, rope
        self.q_proj = Linear(d_model, n_heads * head_dim, bias=bias)
        self.k_proj = Linear(d_model, n_heads * head_dim, bias=bias)
        self.v_proj = Linear(d_model, n_heads * head_dim, bias=bias)
        self.o_proj = Linear(n_heads * head_dim, d_model, bias=bias)

    def forward(self, x, cache=None, *, causal=True, key_mask=None, return_weights=False):
        """Mix each token with the tokens it may see.

        Args:
            x (Tensor): hidden states of the new tokens, shape ``(B, T, d_model)``. They stand
                at positions 0, 1, ..., or behind those in ``cache``.
            cache (KVCache | None): what earlier calls stored; the new tokens are added to it.
            causal (bool): whether a token may see only itself and earlier ones.
            key_mask (Tensor | None): boolean, shape ``(B, S)`` over cached and new tokens;
                False hides padding. (``nn.MultiheadAttention``'s ``key_padding_mask`` is the
                opposite: True hides.) Pad on the left where decoding follows, so that positions
                stay right.
            return_weights (bool): whether to return the weights, which takes memory for T x S
                numbers a head; otherwise a fused kernel never holds them.

        Returns:
            The output, shape ``(B, T, d_model)``; with ``return_weights`` the pair of it and
            the weights, shape ``(B, H, T, S)``. A query that sees no key gets zero attention.

        Raises:
            ValueError: if the shape of ``x``, or the kind, shape, dtype or device of ``cache``
                or ``key_mask`` is wrong, or the cache is full; the cache is then as before.
        """
        check_hidden(x, self.q_proj.in_features, cache, KVCache, key_mask)
        q = split_heads(self.q_proj(x), self.n_heads)  # (B, H, T, D)
        k = split_heads(self.k_proj(x), self.n_heads)  # (B, H, T, D)
        v = split_heads(self.v_proj(x), self.n_heads)  # (B, H, T, D)
        q, k = rotate_new(self.rope, cache, q, k)
        if cache is not None:
            k, v = cache.update(k, v)  # (B, H, S, D)
        options = {"causal": causal, "key_mask": key_mask, "return_weights": return_weights}
        out, weights = attend(q, k, v, **options)
        out = self.o_proj(merge_heads(out))  # (B, T, d_model)
        return (out, weights) if return_weights else out

    def new_cache(self, batch_size, capacity, *, dtype=None, device=None):
        """Allocate an empty cache for this layer.

        Args:
            batch_size (int): sequences in the batch, B.
            capacity (int): tokens that fit.
            dtype (torch.dtype | None): of the stored numbers; ``None`` means that of the
                layer's weights.
            device (torch.device | None): where they are stored; ``None`` means where the
                layer's weights are.

        Returns:
            The cache, of length 0.

        Raises:
            ValueError: if a size is below 1.
        """
        like = storage_like(self.k_proj.weight, dtype, device)
        return KVCache(batch_size, self.n_heads, capacity, self.head_dim, **like)
