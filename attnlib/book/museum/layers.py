"""Reference layers: attention step by step, each step a method that a bug can override.

:class:`ReferenceAttention`, :class:`ReferenceLatentAttention` and
:class:`ReferenceWindowAttention` compute what
:class:`~attnlib.variants.gqa.GroupedQueryAttention`,
:class:`~attnlib.variants.mla.MultiHeadLatentAttention` and
:class:`~attnlib.variants.swa.SlidingWindowAttention` compute, on the CPU, without a fused
kernel and without checks of their input. :class:`ReferenceSplitAttention` computes the first of
them as two devices would.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnlib.rope import Rope, apply_rope, rope_angles

RANKS, PARTS = 2, 2  # devices that share the heads, and parts of the keys on each of them


class ReferenceCache:
    """Entries of past tokens, in one tensor per sequence.

    Args:
        rows: one tensor per sequence, shape ``(..., capacity, width)``.

    Attributes:
        seen: tokens stored so far.
    """

    def __init__(self, rows: list[Tensor]) -> None:
        self.rows, self.seen = rows, 0

    def update(self, new: Tensor) -> Tensor:
        """Store the entries of new tokens after the earlier ones, and return all.

        Args:
            new: shape ``(B, ..., T, width)``.

        Returns:
            A copy of the entries of all tokens so far, shape ``(B, ..., seen, width)``.
        """
        start, self.seen = self.seen, self.seen + new.shape[-2]
        for row, entries in zip(self.rows, new, strict=True):
            row[..., start : self.seen, :] = entries.detach()
        return torch.stack(self.rows)[..., : self.seen, :]

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors, filled or not."""
        return sum(row.nbytes for row in self.rows)


class ReferenceRing(ReferenceCache):
    """Entries of the tokens that later ones still see; their rows are used again.

    Args:
        rows: one tensor per sequence, shape ``(..., rows, width)``.

    Attributes:
        seen: tokens stored so far.
        at: position of the token in each row, -1 where the row is empty.
    """

    def __init__(self, rows: list[Tensor]) -> None:
        super().__init__(rows)
        self.at = [-1] * rows[0].shape[-2]

    def store(self, new: Tensor, rows: list[int]) -> None:
        """Store the entries of new tokens, one after the other.

        Args:
            new: shape ``(B, ..., T, width)``.
            rows: of the new tokens; an earlier entry in the same row is overwritten.
        """
        for row, entries in zip(rows, new.detach().unbind(-2), strict=True):
            for memory, entry in zip(self.rows, entries, strict=True):
                memory[..., row, :] = entry
            self.at[row], self.seen = self.seen, self.seen + 1

    def held(self) -> tuple[Tensor, Tensor]:
        """Return what the filled rows hold.

        Returns:
            ``(entries, positions)``: a copy, shape ``(B, ..., S, width)``, and ``(S,)``, int64.
        """
        filled = [row for row, position in enumerate(self.at) if position >= 0]
        at = torch.tensor([self.at[row] for row in filled], dtype=torch.int64)
        return torch.stack(self.rows)[..., filled, :], at


class ReferenceSteps(nn.Module):
    """The steps of the reference layers, each a method that a bug can override."""

    def split(self, x, n_heads):
        """Cut the width into heads: (B, T, H * D) to (B, H, T, D)."""
        return x.view(*x.shape[:2], n_heads, -1).transpose(1, 2)

    def rotate(self, q, k, start):
        """Turn queries and keys by their positions, which begin at ``start``."""
        if self.rope is None:
            return q, k
        positions = torch.arange(start, start + q.shape[2])
        cos, sin = rope_angles(positions, q.shape[-1], base=self.rope.base)
        q = apply_rope(q, cos, sin, interleaved=self.rope.interleaved)
        return q, apply_rope(k, cos, sin, interleaved=self.rope.interleaved)

    def mask(self, start, T, causal, key_mask):
        """Say which keys each query may see, True = may: (T, S), with padding (B, 1, T, S)."""
        keys, queries = torch.arange(start + T), torch.arange(start, start + T)[:, None]
        mask = keys <= queries if causal else keys >= 0  # (T, S) or (S,)
        return mask if key_mask is None else mask & key_mask[:, None, None, :]

    def attention_weights(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S)."""
        scores = q @ k.mT * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~mask, -torch.inf)
        return scores.softmax(dim=-1).nan_to_num(0.0)  # 0 where a query sees no key

    def repeat_kv(self, x):
        """Give each query head the KV head it reads: (B, H_kv, S, D) to (B, H, S, D)."""
        return x.repeat_interleave(self.n_heads // x.shape[1], dim=1)

    def merge(self, x):
        """Put the heads of a token side by side: (B, H, T, D) to (B, T, H * D)."""
        return x.transpose(1, 2).flatten(2)

    def memory(self, shape, batch_size):
        """Allocate an empty cache, whose sequences each have a tensor of this shape."""
        dtype = self.o_proj.weight.dtype
        return ReferenceCache([torch.zeros(shape, dtype=dtype) for _ in range(batch_size)])


class ReferenceAttention(ReferenceSteps):
    """Multi-head, grouped-query and multi-query attention, step by step.

    With the same weights, its outputs equal those of
    :class:`~attnlib.variants.gqa.GroupedQueryAttention`.

    Args:
        d_model: width of the residual stream.
        n_heads: query heads, H.
        n_kv_heads: KV heads, H_kv; ``None`` means n_heads.
        head_dim: width of one head, D; ``None`` means d_model / n_heads.
        rope: how queries and keys are rotated, without scaling; ``None`` means not at all.
    """

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int | None = None, *,
                 head_dim: int | None = None, rope: Rope | None = None):  # fmt: skip
        super().__init__()
        self.n_heads, self.n_kv_heads, self.rope = n_heads, n_kv_heads or n_heads, rope
        self.head_dim = head_dim or d_model // n_heads
        self.q_proj = nn.Linear(d_model, self.n_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(d_model, self.n_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(d_model, self.n_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, d_model, bias=False)

    def forward(self, x, cache=None, *, causal=True, key_mask=None, return_weights=False):
        """Mix each token with the tokens it may see; as GroupedQueryAttention.forward."""
        start = 0 if cache is None else cache.seen
        q, k, v = self.project(x)
        q, k = self.rotate(q, k, start)
        k, v = self.cache_kv(cache, k, v)  # (B, H, S, D) each
        weights = self.attention_weights(q, k, self.mask(start, x.shape[1], causal, key_mask))
        out = self.o_proj(self.merge(weights @ v))  # (B, T, d_model)
        return (out, weights) if return_weights else out

    def project(self, x):
        """Make queries (B, H, T, D), keys and values (B, H_kv, T, D)."""
        q = self.split(self.q_proj(x), self.n_heads)
        k = self.split(self.k_proj(x), self.n_kv_heads)
        return q, k, self.split(self.v_proj(x), self.n_kv_heads)

    def cache_kv(self, cache, k, v):
        """Store the new keys and values, and return those of all tokens and heads."""
        if cache is not None:
            k, v = cache.update(torch.stack([k, v], dim=1)).unbind(1)  # (B, H_kv, S, D)
        return self.repeat_kv(k), self.repeat_kv(v)

    def new_cache(self, batch_size, capacity):
        """Allocate an empty cache: keys and values, once for each KV head."""
        shape = (2, self.n_kv_heads, capacity, self.head_dim)
        return self.memory(shape, batch_size)


class ReferenceSplitAttention(ReferenceAttention):
    """Attention as two devices compute it, in one process: by heads, and in parts of the keys.

    Each rank has half of the query heads and their KV heads, so both are even in number, and
    attends to every second key at a time. With the same weights, its outputs equal those of
    :class:`~attnlib.variants.gqa.GroupedQueryAttention`, whose arguments it has;
    :mod:`attnlib.labs.devices` does the same with real processes.
    """

    def forward(
        self, x: Tensor, cache: ReferenceCache | None = None, *, causal: bool = True,
        key_mask: Tensor | None = None, return_weights: bool = False,
    ) -> Any:  # fmt: skip
        """Mix each token with the tokens it may see; as GroupedQueryAttention.forward."""
        start = 0 if cache is None else cache.seen
        mask = self.mask(start, x.shape[1], causal, key_mask)
        q, k, v = self.project(x)
        q, k = self.rotate(q, k, start)
        k, v = self.cache_kv(cache, k, v)  # (B, ranks, H_kv / ranks, S, D) each
        found = [
            self.attend(q, self.repeat_kv(k), self.repeat_kv(v), mask)
            for q, k, v in zip(q.chunk(RANKS, dim=1), k.unbind(1), v.unbind(1), strict=True)
        ]
        out, weights = (torch.cat(each, dim=1) for each in zip(*found, strict=True))  # all H
        out = self.o_proj(self.merge(out))  # (B, T, d_model); real ranks each project, and add
        return (out, weights) if return_weights else out

    def repeat_kv(self, x: Tensor) -> Tensor:
        """Give a rank's query heads their KV heads: (B, H_kv / ranks, S, D) to H / ranks."""
        heads = torch.arange(self.n_heads // RANKS)
        G = len(heads) // x.shape[1]
        return x[:, heads // G]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Attend to one part of the keys after the other: (B, H, T, D), and the weights."""
        scores, part_of = q @ k.mT * q.shape[-1] ** -0.5, torch.arange(k.shape[2]) % PARTS
        parts = [scores.masked_fill(~(mask & (part_of == p)), -torch.inf) for p in range(PARTS)]
        scores = torch.stack(parts)  # (parts, B, H, T, S)
        weights, lses = scores.softmax(dim=-1).nan_to_num(0.0), scores.logsumexp(dim=-1)
        return self.join(weights @ v, lses), self.join(weights, lses)

    def join(self, parts: Tensor, lses: Tensor) -> Tensor:
        """Join what the parts found, by their log-sum-exps: one tensor for all of them."""
        shares = lses.softmax(dim=0).nan_to_num(0.0)[..., None]  # (parts, B, H, T, 1)
        return (parts * shares).sum(dim=0)

    def cache_kv(self, cache: ReferenceCache | None, k: Tensor, v: Tensor) -> Sequence[Tensor]:
        """Store the new keys and values, and return those of all tokens, rank by rank."""
        kv: Tensor = torch.stack([k, v], dim=1).unflatten(2, (RANKS, -1))
        if cache is not None:
            kv = cache.update(kv)  # (B, 2, ranks, H_kv / ranks, S, D)
        return kv.unbind(1)

    def new_cache(self, batch_size: int, capacity: int) -> Any:
        """Allocate an empty cache: on each rank keys and values of each of its KV heads."""
        shape = (2, RANKS, self.n_kv_heads // RANKS, capacity, self.head_dim)
        return self.memory(shape, batch_size)


class ReferenceLatentAttention(ReferenceSteps):
    """Multi-head latent attention in its expanded form, step by step.

    With the same weights, its outputs equal those of
    :class:`~attnlib.variants.mla.MultiHeadLatentAttention`, whose arguments and names of
    parameters it has.

    Args:
        d_model: width of the residual stream.
        n_heads: heads, H.
        kv_lora_rank: width of the latent of keys and values, d_c.
        qk_nope_head_dim: width of a head's query and key without position.
        qk_rope_head_dim: width of the rotary query and key, d_h^R; even.
        v_head_dim: width of a head's value.
        q_lora_rank: width of the latent of queries; ``None`` means no such latent.
        rope: how rotary queries and keys are rotated, without scaling.
    """

    kv_projections = ("kv_b_proj",)

    def __init__(self, d_model: int, n_heads: int, *, kv_lora_rank: int, qk_nope_head_dim: int,
                 qk_rope_head_dim: int, v_head_dim: int, q_lora_rank: int | None = None,
                 rope: Rope = Rope()):  # fmt: skip
        super().__init__()
        self.n_heads = self.n_kv_heads = n_heads  # once expanded, each head has its own K and V
        self.kv_lora_rank, self.q_lora_rank, self.rope = kv_lora_rank, q_lora_rank, rope
        self.qk_nope_head_dim, self.qk_rope_head_dim = qk_nope_head_dim, qk_rope_head_dim
        self.qk_head_dim, self.v_head_dim = qk_nope_head_dim + qk_rope_head_dim, v_head_dim
        d_q = n_heads * self.qk_head_dim
        if q_lora_rank is None:
            self.q_proj = nn.Linear(d_model, d_q, bias=False)
        else:
            self.q_a_proj = nn.Linear(d_model, q_lora_rank, bias=False)
            self.q_a_layernorm = nn.RMSNorm(q_lora_rank, eps=1e-6)
            self.q_b_proj = nn.Linear(q_lora_rank, d_q, bias=False)
        d_latent, d_kv = kv_lora_rank + qk_rope_head_dim, qk_nope_head_dim + v_head_dim
        self.kv_a_proj_with_mqa = nn.Linear(d_model, d_latent, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(kv_lora_rank, eps=1e-6)
        self.kv_b_proj = nn.Linear(kv_lora_rank, n_heads * d_kv, bias=False)
        self.o_proj = nn.Linear(n_heads * v_head_dim, d_model, bias=False)

    def forward(
        self, x: Tensor, cache: ReferenceCache | None = None, *, causal: bool = True,
        key_mask: Tensor | None = None, return_weights: bool = False,
    ) -> Any:  # fmt: skip
        """Mix each token with the tokens it may see; as MultiHeadLatentAttention.forward."""
        start = 0 if cache is None else cache.seen
        q_nope, q_rope, latent, k_rope = self.project(x)
        q_rope, k_rope = self.rotate(q_rope, k_rope, start)
        q = torch.cat([q_nope, q_rope], dim=-1)  # (B, H, T, nope + rope)
        k, v = self.unpack(*self.cache_kv(cache, latent, k_rope[:, 0]))
        weights = self.attention_weights(q, k, self.mask(start, x.shape[1], causal, key_mask))
        out = self.o_proj(self.merge(weights @ v))  # (B, T, d_model)
        return (out, weights) if return_weights else out

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """Make both parts of the queries, the latent (B, T, d_c) and the shared rotary key."""
        q = self.q_proj(x) if self.q_lora_rank is None else self.queries_from_latent(x)
        q = self.split(q, self.n_heads)  # (B, H, T, nope + rope)
        latent, k_rope = self.kv_a_proj_with_mqa(x).tensor_split([self.kv_lora_rank], dim=-1)
        return *q.tensor_split([self.qk_nope_head_dim], dim=-1), latent, k_rope[:, None]

    def queries_from_latent(self, x: Tensor) -> Any:
        """Compress the queries and expand them again."""
        return self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x)))

    def cache_kv(self, cache, latent, k_rope):
        """Normalise and store the latents and keys of new tokens, and return those of all."""
        entries = torch.cat([self.kv_a_layernorm(latent), k_rope], dim=-1)
        if cache is not None:
            entries = cache.update(entries)  # (B, S, d_c + d_h^R)
        return entries.tensor_split([self.kv_lora_rank], dim=-1)

    def unpack(self, latent: Tensor, k_rope: Tensor) -> tuple[Tensor, Tensor]:
        """Make keys (B, H, S, nope + rope) and values (B, H, S, v) of all heads."""
        kv = self.split(self.kv_b_proj(latent), self.n_heads)  # (B, H, S, nope + v)
        k_nope, v = kv.tensor_split([self.qk_nope_head_dim], dim=-1)
        k_rope = k_rope[:, None].expand(-1, self.n_heads, -1, -1)  # one key for all heads
        return torch.cat([k_nope, k_rope], dim=-1), v

    def new_cache(self, batch_size, capacity):
        """Allocate an empty cache: a latent and a rotary key per token."""
        shape = (capacity, self.kv_lora_rank + self.qk_rope_head_dim)
        return self.memory(shape, batch_size)


class ReferenceWindowAttention(ReferenceAttention):
    """Sliding-window attention with sinks, step by step.

    With the same weights, its outputs equal those of
    :class:`~attnlib.variants.swa.SlidingWindowAttention`; every sixth layer of a model sees all
    earlier tokens, as in Gemma 3.

    Args:
        d_model: width of the residual stream.
        n_heads: query heads, H.
        n_kv_heads: KV heads, H_kv.
        window: tokens that a query sees, W, its own included.
        head_dim: width of one head, D; ``None`` means d_model / n_heads.
        rope: how queries and keys are rotated, without scaling; ``None`` means not at all.
        first: first tokens of a text that every query sees as well.
        sinks: whether each query head has a learned sink.
        index: of the layer in its model, from 0.
    """

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, window: int, *,
                 head_dim: int | None = None, rope: Rope | None = None, first: int = 0,
                 sinks: bool = False, index: int = 0):  # fmt: skip
        super().__init__(d_model, n_heads, n_kv_heads, head_dim=head_dim, rope=rope)
        self.window, self.first, self.index = self.window_of(window, index), first, index
        self.sinks = nn.Parameter(torch.zeros(n_heads)) if sinks else None

    def forward(
        self, x: Tensor, cache: ReferenceRing | None = None, *, causal: bool = True,
        key_mask: Tensor | None = None, return_weights: bool = False,
    ) -> Any:  # fmt: skip
        """Mix each token with those of its window; as SlidingWindowAttention.forward."""
        start = 0 if cache is None else cache.seen
        q, k, v = self.project(x)
        q, k = self.rotate(q, k, start)
        k, v, at = self.cache_kv(cache, k, v)  # (B, H, S, D) each, and positions (S,)
        queries = torch.arange(start, start + x.shape[1])[:, None]
        mask = (at <= queries) & self.sees(queries, at)  # (T, S)
        mask = mask if causal else torch.ones_like(mask)
        mask = mask if key_mask is None else mask & key_mask[:, None, None, at]
        out, weights = self.attend(q, k, v, mask, return_weights)  # (B, H, T, D)
        out = self.o_proj(self.merge(out))  # (B, T, d_model)
        return (out, weights) if return_weights else out

    def window_of(self, window: int, index: int) -> int | None:
        """Return the window of a layer, None if it sees everything."""
        return None if (index + 1) % 6 == 0 else window

    def sees(self, queries, keys):
        """Say which earlier keys each query sees, by positions (T, 1) and (S,): (T, S)."""
        if self.window is None:
            return keys >= 0
        return (queries - keys < self.window) | (keys < self.first)

    def rows(self, positions: range) -> list[int]:
        """Say in which row of the ring each position is stored."""
        if self.window is None:
            return list(positions)
        first, ring = self.first, self.window
        return [p if p < first else first + (p - first) % ring for p in positions]

    def cache_kv(self, cache, k, v):
        """Store the new keys and values; return those and the earlier ones, with positions."""
        if cache is None:
            return self.repeat_kv(k), self.repeat_kv(v), torch.arange(k.shape[2])
        new = torch.stack([k, v], dim=1)  # (B, 2, H_kv, T, D)
        positions = range(cache.seen, cache.seen + k.shape[2])
        held, at = cache.held()
        cache.store(new, self.rows(positions))
        held, at = torch.cat([held, new], dim=-2), torch.cat([at, torch.tensor(positions)])
        k, v = held.unbind(1)  # (B, H_kv, S, D)
        return self.repeat_kv(k), self.repeat_kv(v), at

    def sink_logits(self) -> Tensor | None:
        """Return the logit of each head's sink, (H,), or None."""
        return self.sinks

    def attention_weights(self, q, k, mask):
        """Turn scores into weights: (B, H, T, S); a sink takes weight and has no value."""
        scores, sinks = q @ k.mT * q.shape[-1] ** -0.5, self.sink_logits()
        scores = scores.masked_fill(~mask, -torch.inf)
        if sinks is not None:
            sinks = sinks[:, None, None].expand(*scores.shape[:-1], 1)
            scores = torch.cat([scores, sinks], dim=-1)  # (B, H, T, S + 1)
        return scores.softmax(dim=-1).nan_to_num(0.0)[..., : k.shape[2]]

    def attend(self, q, k, v, mask, return_weights):
        """Mix the values that each query may see: (B, H, T, D), and the weights."""
        weights = self.attention_weights(q, k, mask)
        return weights @ v, weights

    def new_cache(self, batch_size: int, capacity: int) -> ReferenceRing:
        """Allocate an empty ring: as many rows as a query sees, or one for each token."""
        rows = capacity if self.window is None else min(capacity, self.first + self.window)
        return ReferenceRing(super().new_cache(batch_size, rows).rows)
