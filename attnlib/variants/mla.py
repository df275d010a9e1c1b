"""Multi-head latent attention: cache one compressed latent instead of keys and values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from attnlib.cache import LatentCache, storage_like
from attnlib.checks import check_even, check_hidden, check_size
from attnlib.core import attend, merge_heads, rotate_new, split_heads
from attnlib.linear import Linear
from attnlib.rope import Rope

linear = partial(Linear, bias=False)


class MultiHeadLatentAttention(nn.Module):
    """Attention in several heads, whose keys and values all come from one small latent.

    A token's latent (``kv_lora_rank`` numbers) and one rotary key that all heads share
    (``qk_rope_head_dim`` numbers) are all that is cached.

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1, equations 9 to 19. Parameters are named
    as in Hugging Face's DeepSeek-V3, whose layout is ``rope=Rope(interleaved=True)``. The
    published checkpoints of DeepSeek also scale positions by YaRN and the softmax by a factor
    that goes with it, which this layer leaves out.

    Args:
        d_model (int): width of the residual stream.
        n_heads (int): number of heads, H.
        kv_lora_rank (int): width of the latent of keys and values, d_c.
        qk_nope_head_dim (int): width of a head's query and key without position.
        qk_rope_head_dim (int): width of the rotary query and key, d_h^R; even.
        v_head_dim (int): width of a head's value.
        q_lora_rank (int | None): width of the latent of queries, d_c'; ``None`` = no such
            latent.
        rope (Rope): how rotary queries and keys are turned by position.

    Raises:
        ValueError: if a size is below 1, or ``qk_rope_head_dim`` is odd.
    """

    def __init__(self, d_model, n_heads, *, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim,
                 v_head_dim, q_lora_rank=None, rope=Rope()):  # fmt: skip
        super().__init__()
        self.n_heads, self.kv_lora_rank, self.v_head_dim = n_heads, kv_lora_rank, v_head_dim
        self.qk_nope_head_dim, self.qk_rope_head_dim = qk_nope_head_dim, qk_rope_head_dim
        self.q_lora_rank, self.rope = q_lora_rank, rope
        check_latent_sizes(self, d_model)
        if q_lora_rank is None:
            self.q_proj = linear(d_model, n_heads * (qk_nope_head_dim + qk_rope_head_dim))
        else:
            self.q_a_proj = linear(d_model, q_lora_rank)
            self.q_a_layernorm = nn.RMSNorm(q_lora_rank, eps=1e-6)
            self.q_b_proj = linear(q_lora_rank, n_heads * (qk_nope_head_dim + qk_rope_head_dim))
        self.kv_a_proj_with_mqa = linear(d_model, kv_lora_rank + qk_rope_head_dim)
        self.kv_a_layernorm = nn.RMSNorm(kv_lora_rank, eps=1e-6)
        self.kv_b_proj = linear(kv_lora_rank, n_heads * (qk_nope_head_dim + v_head_dim))
        self.o_proj = linear(n_heads * v_head_dim, d_model)

    def forward(self, x, cache=None, *, causal=True, key_mask=None, absorb=None,
                return_weights=False):  # fmt: skip
        """Mix each token with the tokens it may see.

        Args:
            x (Tensor): hidden states of the new tokens, shape ``(B, T, d_model)``. They stand
                at positions 0, 1, ..., or behind those in ``cache``.
            cache (LatentCache | None): what earlier calls stored; the new tokens are added.
            causal (bool): whether a token may see only itself and earlier ones.
            key_mask (Tensor | None): boolean, shape ``(B, S)`` over cached and new tokens;
                False hides padding. (``nn.MultiheadAttention``'s ``key_padding_mask`` is the
                opposite: True hides.) Pad on the left where decoding follows, so that positions
                stay right.
            absorb (bool | None): attend to the latents themselves (True) or to keys and values
                expanded from them (False); ``None`` takes what needs fewer FLOPs. Both give the
                same result to rounding.
            return_weights (bool): whether to return the weights, which takes memory for T x S
                numbers a head; otherwise a fused kernel never holds them.

        Returns:
            The output, shape ``(B, T, d_model)``; with ``return_weights`` the pair of it and
            the weights, shape ``(B, H, T, S)``. A query that sees no key gets zero attention.

        Raises:
            ValueError: if the shape of ``x``, or the kind, shape, dtype or device of ``cache``
                or ``key_mask`` is wrong, or the cache is full; the cache is then as before.
        """
        check_hidden(x, self.kv_a_proj_with_mqa.in_features, cache, LatentCache, key_mask)
        q_nope, q_rope, entries = project_to_latent(self, x, cache)
        if cache is not None:
            entries = cache.update(entries)  # (B, S, d_c + d_h^R)
        attend_latent = choose_form(self, absorb, x.shape[1], entries.shape[1])
        options = {"causal": causal, "key_mask": key_mask, "return_weights": return_weights}
        out, weights = attend_latent(q_nope, q_rope, entries, self.kv_b_proj.weight, **options)
        out = self.o_proj(merge_heads(out))  # (B, T, d_model)
        return (out, weights) if return_weights else out

    def new_cache(self, batch_size, capacity, *, dtype=None, device=None):
        """Allocate an empty cache for this layer.

        Args:
            batch_size (int): sequences in the batch, B.
            capacity (int): tokens that fit.
            dtype (torch.dtype | None): of the stored numbers; ``None`` = that of the weights.
            device (torch.device | None): where they are stored; ``None`` = where the weights
                are.

        Returns:
            An empty :class:`~attnlib.cache.LatentCache`.

        Raises:
            ValueError: if a size is below 1.
        """
        like = storage_like(self.kv_b_proj.weight, dtype, device)
        widths = self.kv_lora_rank, self.qk_rope_head_dim
        return LatentCache(batch_size, capacity, *widths, **like)


def check_latent_sizes(layer: nn.Module, d_model: int) -> None:
    """Check the sizes of a layer under construction.

    Args:
        layer: a :class:`MultiHeadLatentAttention` with its sizes set.
        d_model: width of the residual stream.

    Raises:
        ValueError: if a size is below 1, or ``qk_rope_head_dim`` is odd.
    """
    check_size("d_model", d_model)
    for name in ("n_heads", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim"):
        check_size(name, getattr(layer, name))
    check_even("qk_rope_head_dim", layer.qk_rope_head_dim)
    if layer.q_lora_rank is not None:
        check_size("q_lora_rank", layer.q_lora_rank)


def project_to_latent(
    layer: nn.Module, x: Tensor, cache: LatentCache | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries in two parts, and the rows to cache, of new tokens.

    Source: DeepSeek-V2, arXiv 2405.04434, equations 9, 12, 14 and 15.

    Args:
        layer: a :class:`MultiHeadLatentAttention`, whose projections are used.
        x: hidden states, shape ``(B, T, d_model)``.
        cache: what came before, for the positions.

    Returns:
        ``(q_nope, q_rope, entries)``: queries without position ``(B, H, T, qk_nope_head_dim)``,
        rotated queries ``(B, H, T, qk_rope_head_dim)``, and the normalised latent with the
        rotated shared key behind it, ``(B, T, kv_lora_rank + qk_rope_head_dim)``.
    """
    if layer.q_lora_rank is None:
        q = layer.q_proj(x)  # (B, T, H * (nope + rope))
    else:
        q = layer.q_b_proj(layer.q_a_layernorm(layer.q_a_proj(x)))  # the same, through a latent
    q = split_heads(q, layer.n_heads)  # (B, H, T, nope + rope)
    q_nope, q_rope = q.split([layer.qk_nope_head_dim, layer.qk_rope_head_dim], dim=-1)
    latent_and_key = layer.kv_a_proj_with_mqa(x)  # (B, T, d_c + d_h^R)
    latent, k_rope = latent_and_key.split([layer.kv_lora_rank, layer.qk_rope_head_dim], dim=-1)
    k_rope = k_rope[:, None]  # (B, 1, T, d_h^R), one key for all heads
    q_rope, k_rope = rotate_new(layer.rope, cache, q_rope, k_rope)
    latent = layer.kv_a_layernorm(latent).type_as(latent)  # under autocast it may widen
    entries = torch.cat([latent, k_rope[:, 0]], dim=-1)
    return q_nope, q_rope, entries  # (B, H, T, nope), (B, H, T, rope), (B, T, d_c + d_h^R)


def attend_expanded(
    q_nope: Tensor, q_rope: Tensor, entries: Tensor, weight: Tensor, **options
) -> tuple[Tensor, Tensor | None]:
    """Expand every latent into keys and values of all heads, then attend as MHA does.

    Source: DeepSeek-V2, arXiv 2405.04434, equations 10, 11 and 16 to 18.

    Args:
        q_nope: queries without position, shape ``(B, H, T, qk_nope_head_dim)``.
        q_rope: rotated queries, shape ``(B, H, T, qk_rope_head_dim)``.
        entries: rows of the cache, shape ``(B, S, kv_lora_rank + qk_rope_head_dim)``.
        weight: of ``kv_b_proj``, shape ``(H * (qk_nope_head_dim + v_head_dim), kv_lora_rank)``.
        options: ``causal``, ``key_mask`` and ``return_weights`` of :func:`attnlib.core.attend`.

    Returns:
        ``(out, weights)``: ``(B, H, T, v_head_dim)``, and ``(B, H, T, S)`` or ``None``.
    """
    H, n, d_c = q_nope.shape[1], q_nope.shape[3], weight.shape[1]
    latent, k_rope = entries.split([d_c, q_rope.shape[-1]], dim=-1)
    kv = split_heads(latent @ weight.T, H)  # (B, H, S, nope + v)
    k_nope, v = kv.split([n, kv.shape[-1] - n], dim=-1)
    k_rope = k_rope[:, None].expand(-1, H, -1, -1)  # (B, H, S, rope), one key for all heads
    q = torch.cat([q_nope, q_rope], dim=-1)  # (B, H, T, nope + rope)
    k = torch.cat([k_nope, k_rope], dim=-1)  # (B, H, S, nope + rope)
    return attend(q, k, v, **options)


def attend_absorbed(
    q_nope: Tensor, q_rope: Tensor, entries: Tensor, weight: Tensor, **options
) -> tuple[Tensor, Tensor | None]:
    """Take W_UK to the query and W_UV to the result, and attend to the latents themselves.

    q (W_UK c) = (q W_UK) c: the products are re-associated, the matrices never multiplied out.
    What is left is multi-query attention, whose one key is a row of the cache and whose value
    is the latent in it.

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.2 and appendix C.

    Args:
        q_nope: queries without position, shape ``(B, H, T, qk_nope_head_dim)``.
        q_rope: rotated queries, shape ``(B, H, T, qk_rope_head_dim)``.
        entries: rows of the cache, shape ``(B, S, kv_lora_rank + qk_rope_head_dim)``.
        weight: of ``kv_b_proj``, shape ``(H * (qk_nope_head_dim + v_head_dim), kv_lora_rank)``.
        options: ``causal``, ``key_mask`` and ``return_weights`` of :func:`attnlib.core.attend`.

    Returns:
        ``(out, weights)``: ``(B, H, T, v_head_dim)``, and ``(B, H, T, S)`` or ``None``.
    """
    H, n, d_c = q_nope.shape[1], q_nope.shape[3], weight.shape[1]
    w_uk, w_uv = weight.view(H, -1, d_c).tensor_split([n], dim=1)  # (H, nope, d_c), (H, v, d_c)
    q_latent = torch.einsum("bhtn,hnc->bhtc", q_nope, w_uk)  # (B, H, T, d_c)
    q = torch.cat([q_latent, q_rope], dim=-1)  # (B, H, T, d_c + d_h^R)
    kv = entries[:, None]  # (B, 1, S, d_c + d_h^R), one key/value head
    scale = (n + q_rope.shape[-1]) ** -0.5  # of the head's own width, not of the latent's
    out, weights = attend(q, kv, kv, scale=scale, **options)  # values: rows, cut to the latent
    out = torch.einsum("bhtc,hvc->bhtv", out[..., :d_c], w_uv)  # (B, H, T, v)
    return out, weights


def choose_form(
    layer: nn.Module, absorb: bool | None, T: int, S: int
) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The form to attend in: as asked for, or the one that needs fewer FLOPs.

    Multiply-adds of one head: expanding S rows and attending to them, against carrying T
    queries into the latent space, attending there, and carrying T results back.

    Args:
        layer: a :class:`MultiHeadLatentAttention`, whose sizes count.
        absorb: True or False to insist on a form, ``None`` to choose by cost.
        T: new tokens.
        S: cached and new tokens.

    Returns:
        :func:`attend_absorbed` or :func:`attend_expanded`; by cost, at the usual sizes, the
        first for decoding and the second for prefilling.
    """
    d_c, d_r = layer.kv_lora_rank, layer.qk_rope_head_dim
    d_kv = layer.qk_nope_head_dim + layer.v_head_dim
    if absorb is None:
        expanded = S * d_c * d_kv + T * S * (d_kv + d_r)
        absorbed = T * d_c * d_kv + T * S * (2 * d_c + d_r)
        absorb = absorbed < expanded
    return attend_absorbed if absorb else attend_expanded
