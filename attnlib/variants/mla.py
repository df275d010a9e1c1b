"""Multi-head latent attention: cache one compressed latent instead of keys and values."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from attnlib.cache import LatentCache, storage_like
from attnlib.checks import check_forward, check_latent_sizes
from attnlib.contract import Attended
from attnlib.core import attend, merge_heads, new_positions, rotate_new, split_heads
from attnlib.linear import Linear
from attnlib.rope import Rope
from attnlib.variants.registry import Variant


class MultiHeadLatentAttention(nn.Module):
    """Attention in several heads, whose keys and values all come from one small latent.

    A token's latent (``kv_lora_rank`` numbers) and one rotary key that all heads share
    (``qk_rope_head_dim`` numbers) are all that is cached.

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1, equations 9 to 19. Parameters are named
    as in Hugging Face's DeepSeek-V3. Its published positions are
    ``Rope(interleaved=True, scaling=YarnScaling(40, 4096, mscale_all_dim=1.0))``. ``forward``
    and ``new_cache`` are those of :class:`~attnlib.contract.AttentionLayer`; ``forward`` has
    one option more.

    Args:
        d_model: width of the residual stream.
        n_heads: number of heads, H.
        kv_lora_rank: width of the latent of keys and values, d_c.
        qk_nope_head_dim: width of a head's query and key without position.
        qk_rope_head_dim: width of the rotary query and key, d_h^R; even.
        v_head_dim: width of a head's value.
        q_lora_rank: width of the latent of queries, d_c'; ``None`` means no such latent.
        rope: how rotary queries and keys are turned by position.

    Raises:
        ValueError: if a size is below 1, or ``qk_rope_head_dim`` is odd.
    """

    kv_projections = ("kv_b_proj",)

    def __init__(self, d_model: int, n_heads: int, *, kv_lora_rank: int, qk_nope_head_dim: int,
                 qk_rope_head_dim: int, v_head_dim: int, q_lora_rank: int | None = None,
                 rope: Rope = Rope()):  # fmt: skip
        super().__init__()
        check_latent_sizes(d_model, n_heads, kv_lora_rank, qk_nope_head_dim, qk_rope_head_dim,
                           v_head_dim, q_lora_rank, rope)  # fmt: skip
        self.n_heads = self.n_kv_heads = n_heads  # once expanded, each head has its own K and V
        self.kv_lora_rank, self.q_lora_rank, self.rope = kv_lora_rank, q_lora_rank, rope
        self.qk_nope_head_dim, self.qk_rope_head_dim = qk_nope_head_dim, qk_rope_head_dim
        self.qk_head_dim, self.v_head_dim = qk_nope_head_dim + qk_rope_head_dim, v_head_dim
        self.scale = rope.softmax_scale(self.qk_head_dim)  # of a head's width, not the latent's
        if q_lora_rank is None:
            self.q_proj = Linear(d_model, n_heads * self.qk_head_dim, bias=False)
        else:
            self.q_a_proj = Linear(d_model, q_lora_rank, bias=False)
            self.q_a_layernorm = nn.RMSNorm(q_lora_rank, eps=1e-6)
            self.q_b_proj = Linear(q_lora_rank, n_heads * self.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = Linear(d_model, kv_lora_rank + qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(kv_lora_rank, eps=1e-6)
        kv_width = n_heads * (qk_nope_head_dim + v_head_dim)
        self.kv_b_proj = Linear(kv_lora_rank, kv_width, bias=False)
        self.o_proj = Linear(n_heads * v_head_dim, d_model, bias=False)

    def forward(self, x: Tensor, cache: LatentCache | None = None, *,
                positions: Tensor | None = None, causal: bool = True,
                key_mask: Tensor | None = None, absorb: bool | None = None,
                return_weights: bool = False) -> Attended:  # fmt: skip
        """Mix each token with the tokens it may see.

        Args:
            x: hidden states of the new tokens, shape ``(B, T, d_model)``.
            cache: what earlier calls stored, or ``None``.
            positions: of the new tokens, shape ``(T,)`` or ``(B, T)``, or ``None``.
            causal: whether a token may see only itself and earlier ones.
            key_mask: boolean, shape ``(B, S)``; False hides padding.
            absorb: attend to the latents themselves (True) or to keys and values expanded from
                them (False); ``None`` takes what needs fewer FLOPs. Both give the same result
                to rounding.
            return_weights: whether to return the weights too.

        Returns:
            What :meth:`attnlib.contract.AttentionLayer.forward` returns.
        """
        d_model = self.kv_a_proj_with_mqa.in_features
        check_forward(x, d_model, cache, LatentCache, positions, key_mask)
        at = stored_at = new_positions(x, cache, positions)  # (T,) or (B, T)
        q_nope, q_rope, entries = self.project_to_latent(x, at, cache)
        if cache is not None:
            entries, stored_at = cache.update(entries, positions=positions)  # (B, S, d_c+d_h^R)
        attend_latent = self.choose_form(absorb, x.shape[1], entries.shape[1])
        out, weights = attend_latent(q_nope, q_rope, entries, at, stored_at, causal=causal,
                                     key_mask=key_mask,
                                     return_weights=return_weights)  # fmt: skip
        out = self.o_proj(merge_heads(out))  # (B, T, d_model)
        return out if weights is None else (out, weights)

    def new_cache(self, batch_size: int, capacity: int, *, dtype: torch.dtype | None = None,
                  device: torch.device | str | None = None) -> LatentCache:  # fmt: skip
        """Allocate an empty cache for this layer."""
        dtype, device = storage_like(self.kv_b_proj.weight, dtype, device)
        return LatentCache(batch_size, capacity, self.kv_lora_rank, self.qk_rope_head_dim,
                           dtype=dtype, device=device)  # fmt: skip

    def project_to_latent(self, x: Tensor, positions: Tensor, cache: LatentCache | None = None
                          ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Queries in two parts, and the rows to cache, of new tokens.

        Source: DeepSeek-V2, arXiv 2405.04434, equations 9, 12, 14 and 15.

        Args:
            x: hidden states, shape ``(B, T, d_model)``.
            positions: of these tokens, shape ``(T,)`` or ``(B, T)``.
            cache: what came before, or ``None``.

        Returns:
            ``(q_nope, q_rope, entries)``: queries without position
            ``(B, H, T, qk_nope_head_dim)``, rotated queries ``(B, H, T, qk_rope_head_dim)``,
            and the normalised latent followed by the rotated shared key,
            ``(B, T, kv_lora_rank + qk_rope_head_dim)``.
        """
        if self.q_lora_rank is None:
            q = self.q_proj(x)  # (B, T, H * (nope + rope))
        else:
            q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))  # through a latent
        q = split_heads(q, self.n_heads)  # (B, H, T, nope + rope)
        q_nope, q_rope = q.split([self.qk_nope_head_dim, self.qk_rope_head_dim], dim=-1)
        row = self.kv_a_proj_with_mqa(x)  # (B, T, d_c + d_h^R)
        latent, k_rope = row.split([self.kv_lora_rank, self.qk_rope_head_dim], dim=-1)
        k_rope = k_rope[:, None]  # (B, 1, T, d_h^R), one key for all heads
        q_rope, k_rope = rotate_new(self.rope, positions, cache, q_rope, k_rope)
        latent = self.kv_a_layernorm(latent).type_as(latent)  # under autocast it may widen
        entries = torch.cat([latent, k_rope[:, 0]], dim=-1)
        return q_nope, q_rope, entries  # (B, H, T, nope), (B, H, T, rope), (B, T, d_c + d_h^R)

    def attend_expanded(self, q_nope: Tensor, q_rope: Tensor, entries: Tensor,
                        q_positions: Tensor, k_positions: Tensor, *, causal: bool = True,
                        key_mask: Tensor | None = None, return_weights: bool = False
                        ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Expand every latent into keys and values of all heads, then attend as MHA does.

        Source: DeepSeek-V2, arXiv 2405.04434, equations 10, 11 and 16 to 18.

        Args:
            q_nope: queries without position, shape ``(B, H, T, qk_nope_head_dim)``.
            q_rope: rotated queries, shape ``(B, H, T, qk_rope_head_dim)``.
            entries: rows of the cache, shape ``(B, S, kv_lora_rank + qk_rope_head_dim)``.
            q_positions: of the queries, shape ``(T,)`` or ``(B, T)``.
            k_positions: of the rows, shape ``(S,)`` or ``(B, S)``.
            causal: as for :func:`attnlib.core.attend`.
            key_mask: the same.
            return_weights: the same.

        Returns:
            ``(out, weights)``: ``(B, H, T, v_head_dim)``, and ``(B, H, T, S)`` or ``None``.
        """
        latent, k_rope = entries.split([self.kv_lora_rank, self.qk_rope_head_dim], dim=-1)
        kv = split_heads(latent @ self.kv_b_proj.weight.T, self.n_heads)  # (B, H, S, nope + v)
        k_nope, v = kv.split([self.qk_nope_head_dim, self.v_head_dim], dim=-1)
        k_rope = k_rope[:, None].expand(-1, self.n_heads, -1, -1)  # one key for all heads
        q = torch.cat([q_nope, q_rope], dim=-1)  # (B, H, T, nope + rope)
        k = torch.cat([k_nope, k_rope], dim=-1)  # (B, H, S, nope + rope)
        return attend(q, k, v, q_positions, k_positions, causal=causal, key_mask=key_mask,
                      scale=self.scale, return_weights=return_weights)  # fmt: skip

    def attend_absorbed(self, q_nope: Tensor, q_rope: Tensor, entries: Tensor,
                        q_positions: Tensor, k_positions: Tensor, *, causal: bool = True,
                        key_mask: Tensor | None = None, return_weights: bool = False
                        ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """Take W_UK to the query and W_UV to the result, and attend to the latents themselves.

        q (W_UK c) = (q W_UK) c: the products are re-associated, the matrices never multiplied
        out. What is left is multi-query attention, whose one key is a row of the cache and
        whose value is the latent in it.

        Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.2 and appendix C.

        Args:
            q_nope: queries without position, shape ``(B, H, T, qk_nope_head_dim)``.
            q_rope: rotated queries, shape ``(B, H, T, qk_rope_head_dim)``.
            entries: rows of the cache, shape ``(B, S, kv_lora_rank + qk_rope_head_dim)``.
            q_positions: of the queries, shape ``(T,)`` or ``(B, T)``.
            k_positions: of the rows, shape ``(S,)`` or ``(B, S)``.
            causal: as for :func:`attnlib.core.attend`.
            key_mask: the same.
            return_weights: the same.

        Returns:
            ``(out, weights)``: ``(B, H, T, v_head_dim)``, and ``(B, H, T, S)`` or ``None``.
        """
        d_c, weight = self.kv_lora_rank, self.kv_b_proj.weight  # (H * (nope + v), d_c)
        per_head = weight.view(self.n_heads, -1, d_c)  # (H, nope + v, d_c)
        w_uk, w_uv = per_head.split([self.qk_nope_head_dim, self.v_head_dim], dim=1)
        q_latent = torch.einsum("bhtn,hnc->bhtc", q_nope, w_uk)  # (B, H, T, d_c)
        q = torch.cat([q_latent, q_rope], dim=-1)  # (B, H, T, d_c + d_h^R)
        kv = entries[:, None]  # (B, 1, S, d_c + d_h^R), one KV head
        out, weights = attend(q, kv, kv, q_positions, k_positions, causal=causal,
                              key_mask=key_mask, scale=self.scale,
                              return_weights=return_weights)  # fmt: skip
        latent = out[..., :d_c]  # (B, H, T, d_c), the values were rows: cut them to the latent
        return torch.einsum("bhtc,hvc->bhtv", latent, w_uv), weights  # (B, H, T, v)

    def choose_form(self, absorb: bool | None, T: int, S: int) -> Form:
        """The form to attend in: as asked for, or the one that needs fewer FLOPs.

        Multiply-adds of one head: expanding S rows and attending to them, against carrying T
        queries into the latent space, attending there, and carrying T results back.

        Args:
            absorb: True or False to insist on a form, ``None`` to choose by cost.
            T: new tokens.
            S: cached and new tokens.

        Returns:
            :meth:`attend_absorbed` or :meth:`attend_expanded`; by cost, at the usual sizes, the
            first for decoding and the second for prefilling.
        """
        d_c, d_r = self.kv_lora_rank, self.qk_rope_head_dim
        d_kv = self.qk_nope_head_dim + self.v_head_dim
        if absorb is None:
            expanded = S * d_c * d_kv + T * S * (d_kv + d_r)
            absorbed = T * d_c * d_kv + T * S * (2 * d_c + d_r)
            absorb = absorbed < expanded
        return self.attend_absorbed if absorb else self.attend_expanded


#: One of the two forms of MLA, as a function of queries, rows and positions.
Form = Callable[..., tuple[Tensor, "Tensor | None"]]

VARIANT = Variant(
    name="MLA",
    title="Multi-head latent attention",
    layer=MultiHeadLatentAttention,
    color="#CC79A7",
    applies=lambda geometry: geometry.kv_lora_rank is not None,
    cache_numbers=((1, ("kv_lora_rank",)), (1, ("qk_rope_head_dim",))),
    geometry=lambda sizes: sizes.latent(),
    from_geometry=lambda g, d_model, rope: MultiHeadLatentAttention(
        d_model,
        g.n_heads,
        kv_lora_rank=g.kv_lora_rank,
        qk_nope_head_dim=g.head_dim,
        qk_rope_head_dim=g.qk_rope_head_dim,
        v_head_dim=g.v_head_dim,
        q_lora_rank=g.q_lora_rank,
        rope=rope or Rope(),
    ),
    forms={"absorbed": {"absorb": True}, "expanded": {"absorb": False}},
)
