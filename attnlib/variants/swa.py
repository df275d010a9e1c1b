"""Sliding-window attention: a query sees the last W tokens, and the cache keeps no more."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.cache import room_for, storage_like
from attnlib.checks import check_forward, check_heads, check_kv_heads, check_size
from attnlib.contract import Attended
from attnlib.core import (
    attend,
    attention,
    grouped_sdpa,
    merge_heads,
    new_positions,
    rotate_new,
    split_heads,
)
from attnlib.linear import Linear
from attnlib.rope import Rope
from attnlib.variants.registry import Variant

BLOCK = 256  # queries at a time where the window is shorter


class SlidingWindowAttention(nn.Module):
    """Grouped-query attention in which a query sees the last W tokens, its own included.

    Keys are rotated before they are stored, so their rows can be used again. ``forward`` and
    ``new_cache`` are those of :class:`~attnlib.contract.AttentionLayer`.

    Sources: Child et al. 2019, arXiv 1904.10509 (local attention); Mistral 7B, arXiv 2310.06825
    (the ring); Xiao et al. 2023, arXiv 2309.17453 (first tokens); gpt-oss, arXiv 2508.10925
    (learned sinks).

    Args:
        d_model: width of the residual stream.
        n_heads: query heads, H.
        n_kv_heads: KV heads, H_kv, which divides ``n_heads``.
        window: tokens that a query sees, W, its own included; in chunks, tokens of a chunk.
        head_dim: width of one head, D; ``None`` means ``d_model / n_heads``.
        bias: whether the four projections have biases.
        rope: how queries and keys are turned by position; ``None`` means not at all.
        first: first tokens of a text that every query sees as well; they are kept forever.
        chunked: whether the text is cut into chunks of W tokens, and a query sees those of its
            own chunk, as in Llama 4.
        sinks: whether each query head has a learned sink: a logit in its softmax that takes
            weight and adds no value.

    Raises:
        ValueError: if a size is below 1, heads do not fit together, or ``first`` comes with
            chunks.
    """

    def __init__(self, d_model: int, n_heads: int, n_kv_heads: int, window: int, *,
                 head_dim: int | None = None, bias: bool = False, rope: Rope | None = None,
                 first: int = 0, chunked: bool = False, sinks: bool = False):  # fmt: skip
        super().__init__()
        head_dim = check_heads(d_model, n_heads, head_dim, rope=rope)
        check_kv_heads(n_heads, n_kv_heads)
        self.window = check_size("window", window)
        self.first = check_size("first", first, least=0)
        if chunked and first:
            raise ValueError(f"first must be 0 with chunks, got {first}")
        self.n_heads, self.n_kv_heads, self.rope = n_heads, n_kv_heads, rope
        self.head_dim = self.qk_head_dim = self.v_head_dim = head_dim
        self.chunked = chunked
        self.q_proj = Linear(d_model, n_heads * head_dim, bias=bias)
        self.k_proj = Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.v_proj = Linear(d_model, n_kv_heads * head_dim, bias=bias)
        self.o_proj = Linear(n_heads * head_dim, d_model, bias=bias)
        self.sinks = nn.Parameter(torch.zeros(n_heads)) if sinks else None

    def forward(self, x: Tensor, cache: RingCache | None = None, *,
                positions: Tensor | None = None, causal: bool = True,
                key_mask: Tensor | None = None,
                return_weights: bool = False) -> Attended:  # fmt: skip
        """Mix each token with the tokens of its window."""
        check_forward(x, self.q_proj.in_features, cache, RingCache, positions, key_mask)
        q = split_heads(self.q_proj(x), self.n_heads)  # (B, H, T, D)
        k = split_heads(self.k_proj(x), self.n_kv_heads)  # (B, H_kv, T, D)
        v = split_heads(self.v_proj(x), self.n_kv_heads)  # (B, H_kv, T, D)
        at = stored_at = new_positions(x, cache, positions)  # (T,) or (B, T)
        q, k = rotate_new(self.rope, at, cache, q, k)
        if cache is not None:
            if key_mask is not None and (positions is not None or cache.is_ragged):
                new = key_mask[:, -x.shape[1] :]  # a hidden token is padding, and not stored
                positions, key_mask = at.expand(new.shape).where(new, -1), None
            k, v, stored_at = cache.update(k, v, positions=positions)  # (B, H_kv, S, D)
        if key_mask is not None and stored_at.ndim == 1:
            key_mask = key_mask[:, stored_at]  # (B, S), of those kept
        out, weights = attend_in_window(
            q, k, v, at, stored_at, self.window, first=self.first, chunked=self.chunked,
            causal=causal, key_mask=key_mask, sinks=self.sinks, return_weights=return_weights,
        )  # fmt: skip
        out = self.o_proj(merge_heads(out))  # (B, T, d_model)
        return out if weights is None else (out, weights)

    def new_cache(self, batch_size: int, capacity: int, *, dtype: torch.dtype | None = None,
                  device: torch.device | str | None = None) -> RingCache:  # fmt: skip
        """Allocate an empty ring for this layer."""
        dtype, device = storage_like(self.k_proj.weight, dtype, device)
        return RingCache(batch_size, self.n_kv_heads, capacity, self.head_dim, self.window,
                         first=self.first, dtype=dtype, device=device)  # fmt: skip


def window_mask(q_positions: Tensor, k_positions: Tensor, window: int, *, first: int = 0,
                chunked: bool = False, causal: bool = True) -> Tensor:  # fmt: skip
    """Which keys each query may attend to in a layer with a window.

    Args:
        q_positions: query positions, shape ``(T,)`` or ``(B, T)``, int64, in tokens.
        k_positions: key positions, shape ``(S,)`` or ``(B, S)``; negative ones are not seen.
        window: W, tokens that a query sees, its own included; in chunks, tokens of a chunk.
        first: first tokens that are seen by every later query as well.
        chunked: whether a query sees the tokens of its own chunk instead of the last W.
        causal: whether later tokens are hidden; if not, everything is seen.

    Returns:
        Boolean mask, shape ``(T, S)`` or ``(B, T, S)``; True means the query may attend.
    """
    q, k = q_positions[..., :, None], k_positions[..., None, :]  # (.., T, 1), (.., 1, S)
    if not causal:  # a window looks back, so it means nothing here
        return (k >= 0).expand(torch.broadcast_shapes(q.shape, k.shape))
    if chunked:
        near = q.div(window, rounding_mode="floor") == k.div(window, rounding_mode="floor")
    else:
        near = q - k < window
    return (near | (k < first)) & (k >= 0) & (k <= q)  # (.., T, S)


def attend_in_window(
    q: Tensor, k: Tensor, v: Tensor, q_positions: Tensor, k_positions: Tensor, window: int, *,
    first: int = 0, chunked: bool = False, causal: bool = True, key_mask: Tensor | None = None,
    sinks: Tensor | None = None, return_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Let new tokens attend to those of their windows, a block of queries at a time.

    A block's queries see few keys, so a long prompt takes time and memory in proportion to its
    length. Where sequences differ, and where weights are asked for, all keys are used at once.

    Args:
        q: queries, shape ``(B, H, T, D)``.
        k: keys, shape ``(B, H_kv, S, D)``, in any order.
        v: values, shape ``(B, H_kv, S, D)``.
        q_positions: shape ``(T,)``, ascending, or ``(B, T)``.
        k_positions: shape ``(S,)`` or ``(B, S)``; with one query, keys that it sees.
        window: as in :func:`window_mask`, and so are ``first``, ``chunked`` and ``causal``.
        first: first tokens that every query sees as well.
        chunked: whether a query sees its chunk.
        causal: whether later tokens are hidden.
        key_mask: boolean, shape ``(B, S)``; False hides a key.
        sinks: as in :func:`attend_with_sinks`.
        return_weights: whether to return the weights.

    Returns:
        ``(out, weights)``: ``(B, H, T, D)``, and ``(B, H, T, S)`` or ``None``.
    """
    T, alike = q.shape[2], q_positions.ndim == k_positions.ndim == 1
    size = max(window, BLOCK)
    if alike and causal and size < T and not return_weights:
        outs = []
        for block, queries in zip(q_positions.split(size), q.split(size, dim=2), strict=True):
            near = (k_positions > block[0] - window) & (k_positions <= block[-1])  # (S,)
            near |= k_positions < first
            real = None if key_mask is None else key_mask[:, near]
            out, _ = attend_in_window(
                queries, k[:, :, near], v[:, :, near], block, k_positions[near], window,
                first=first, chunked=chunked, key_mask=real, sinks=sinks,
            )  # fmt: skip
            outs.append(out)  # (B, H, size, D)
        return torch.cat(outs, dim=2), None
    mask = None  # a ring holds what its newest token sees
    if T > 1 or chunked or not alike or k.shape[2] > window + first:
        mask = window_mask(q_positions, k_positions, window, first=first, chunked=chunked,
                           causal=causal)  # fmt: skip
        mask = mask if alike else mask[:, None]  # (T, S) or (B, 1, T, S)
    if key_mask is not None:
        real = key_mask[:, None, None]  # (B, 1, 1, S)
        mask = real if mask is None else mask & real
    return attend_with_sinks(q, k, v, mask, sinks, return_weights)


def attend_with_sinks(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None,
                      sinks: Tensor | None, return_weights: bool = False
                      ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """Attention under a mask, with a sink in each head's softmax or without.

    A sink is a key that gives the logit s_h to every query of head h, and has value zero. Here
    it is one more key, zero except in one more number, and queries of head h have s_h in that
    number. So any kernel can do it.

    Args:
        q: queries, shape ``(B, H, T, D)``.
        k: keys, shape ``(B, H_kv, S, D)``.
        v: values, shape ``(B, H_kv, S, D)``.
        mask: boolean, broadcastable to ``(B, 1, T, S)``; ``None`` with one query that sees all.
        sinks: logits, shape ``(H,)``, or ``None``.
        return_weights: whether to return the weights, which sum to less than 1 with a sink.

    Returns:
        ``(out, weights)``: ``(B, H, T, D)``, and ``(B, H, T, S)`` or ``None``.
    """
    D, S, scale = q.shape[-1], k.shape[-2], q.shape[-1] ** -0.5
    if sinks is not None:
        logits = (sinks / scale).type_as(q)[:, None, None]  # (H, 1, 1)
        q = torch.cat([q, logits.expand(*q.shape[:-1], 1)], dim=-1)  # (B, H, T, D + 1)
        k, v = F.pad(k, (0, 1, 0, 1)), F.pad(v, (0, 1, 0, 1))  # (B, H_kv, S + 1, D + 1)
        k[..., -1, -1] = 1.0  # the last key is the sink's; its value is zero
        mask = None if mask is None else F.pad(mask, (0, 1), value=True)  # (.., T, S + 1)
    if mask is None:
        everything = torch.arange(k.shape[-2], device=q.device)
        out, weights = attend(q, k, v, everything[-1:], everything, scale=scale,
                              return_weights=return_weights)  # fmt: skip
    elif return_weights:
        out, weights = attention(q, k, v, mask=mask, scale=scale)
    else:
        out, weights = grouped_sdpa(q, k, v, mask=mask, scale=scale), None
    return out[..., :D], None if weights is None else weights[..., :S]


class RingCache:
    """Keys and values of the last W tokens, and of the first few if those are kept.

    The token at position p lies in row p if it is one of the first, else in row (p - first) mod
    W after those. A new token takes the row of the one that leaves the window.

    Args:
        batch_size: sequences in the batch, B.
        n_kv_heads: KV heads, H_kv.
        capacity: tokens that may come.
        head_dim: width of one head, D.
        window: W.
        first: tokens of the beginning that are kept as well.
        dtype: of the stored numbers; ``None`` means torch's default.
        device: where they are stored; ``None`` means torch's default.

    Attributes:
        seen: tokens that have come so far.
        capacity: tokens that may come.

    Raises:
        ValueError: if a size is below 1, or ``first`` below 0.
    """

    def __init__(self, batch_size: int, n_kv_heads: int, capacity: int, head_dim: int,
                 window: int, *, first: int = 0, dtype: torch.dtype | None = None,
                 device: torch.device | str | None = None):  # fmt: skip
        sizes = {"batch_size": batch_size, "n_kv_heads": n_kv_heads, "capacity": capacity,
                 "head_dim": head_dim, "window": window}  # fmt: skip
        for name, size in sizes.items():
            check_size(name, size)
        self.first = min(check_size("first", first, least=0), capacity)
        self.ring = min(window, capacity - self.first)  # rows that are used again
        shape = (batch_size, n_kv_heads, self.first + self.ring, head_dim)
        self._k = torch.zeros(shape, dtype=dtype, device=device)
        self._v = torch.zeros(shape, dtype=dtype, device=device)
        self._given: Tensor | None = None  # (B, rows), positions once a call gave some
        self.capacity, self.seen = capacity, 0

    @property
    def kept(self) -> int:
        """Entries that are kept, the first tokens and the last W of the others."""
        return min(self.seen, self.first + self.ring)

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, filled or not."""
        return sum(x.nbytes for x in (self._k, self._v, self._given) if x is not None)

    is_ragged = property(lambda self: self._given is not None,
                         doc="Whether sequences have their own positions.")  # fmt: skip

    def rows_of(self, positions: Tensor) -> Tensor:
        """Row of each position, whatever its shape."""
        ring = self.first + (positions - self.first) % max(1, self.ring)
        return torch.where(positions < self.first, positions, ring)

    def row_positions(self) -> Tensor:
        """Position of each filled row, where all sequences are at the same one."""
        rows = torch.arange(self.kept, device=self._k.device)
        turns = (self.seen - 1 - rows) // max(1, self.ring)  # how often a row was used again
        return torch.where(rows < self.first, rows, rows + turns * self.ring)

    def update(self, k: Tensor, v: Tensor, *, positions: Tensor | None = None
               ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Store the keys and values of new tokens, and return what their queries may see.

        Args:
            k: rotated keys, shape ``(B, H_kv, T, D)``, of the cache's dtype and device.
            v: values, of the same shape.
            positions: of the new tokens, shape ``(T,)`` or ``(B, T)``, int64; negative marks
                padding. ``None`` means that they follow the earlier ones.

        Returns:
            ``(k, v, positions)``: what is kept. With several new tokens, what was kept before
            and the new ones, since the first of them still see rows that the last replace.

        Raises:
            ValueError: if shape, dtype or device is not the cache's, or the tokens do not fit;
                what was stored stays as it was.
        """
        room_for(self, self._k, k, "k")
        room_for(self, self._v, v, "v")
        if v.shape != k.shape:
            raise ValueError(f"v must have k's shape {tuple(k.shape)}, got {tuple(v.shape)}")
        k, v, T = k.detach(), v.detach(), k.shape[-2]
        if positions is not None or self._given is not None:
            return self.update_given(k, v, positions)
        if T == 1:
            row = self.seen
            if row >= self.first:
                row = self.first + (row - self.first) % self.ring
            self._k[:, :, row : row + 1], self._v[:, :, row : row + 1] = k, v
            self.seen += 1
            return self._k[:, :, : self.kept], self._v[:, :, : self.kept], self.row_positions()
        new_at = torch.arange(self.seen, self.seen + T, device=k.device)
        everything = (torch.cat([self._k[:, :, : self.kept], k], dim=-2),
                      torch.cat([self._v[:, :, : self.kept], v], dim=-2),
                      torch.cat([self.row_positions(), new_at]))  # fmt: skip
        stays = (new_at < self.first) | (new_at >= self.seen + T - self.ring)
        rows = self.rows_of(new_at[stays])
        self._k[:, :, rows], self._v[:, :, rows] = k[:, :, stays], v[:, :, stays]
        self.seen += T
        return everything

    def update_given(self, k: Tensor, v: Tensor, positions: Tensor | None
                     ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The same where each sequence has its own positions.

        Args:
            k: keys, shape ``(B, H_kv, T, D)``.
            v: values, of the same shape.
            positions: shape ``(T,)`` or ``(B, T)``.

        Returns:
            As :meth:`update`; positions of shape ``(B, rows + T)``, negative where a row is
            empty or a token is padding.

        Raises:
            ValueError: if none are given though they once were, or their shape is wrong.
        """
        (B, _, n_rows, _), T = self._k.shape, k.shape[-2]
        if positions is None:
            raise ValueError("positions must be given at each call once they were, got None")
        if positions.shape not in ((T,), (B, T)):
            raise ValueError(
                f"positions must have shape {(T,)} or {(B, T)} for this cache,"
                f" got {tuple(positions.shape)}"
            )
        if self._given is None:
            self._given = torch.full((B, n_rows), -1, device=k.device)
            self._given[:, : self.kept] = self.row_positions()
        at = positions.expand(B, T)
        everything = (torch.cat([self._k, k], dim=-2), torch.cat([self._v, v], dim=-2),
                      torch.cat([self._given, at], dim=-1))  # fmt: skip
        number = torch.arange(T, device=k.device).expand(B, T)
        number = torch.where(at >= 0, number, -1)  # padding is stored nowhere
        newest = torch.full((B, n_rows), -1, device=k.device)
        newest.scatter_reduce_(1, self.rows_of(at.clamp(min=0)), number, "amax")  # (B, rows)
        source = newest.clamp(min=0)
        fresh = (newest >= 0)[:, None, :, None]  # (B, 1, rows, 1)
        index = source[:, None, :, None].expand(-1, k.shape[1], -1, k.shape[-1])
        self._k = torch.where(fresh, k.gather(2, index), self._k)
        self._v = torch.where(fresh, v.gather(2, index), self._v)
        self._given = torch.where(newest >= 0, at.gather(1, source), self._given)
        self.seen += T
        return everything

    def reset(self) -> None:
        """Forget all tokens; the buffers stay allocated."""
        self.seen, self._given = 0, None


VARIANT = Variant(
    name="SWA",
    title="Sliding-window attention",
    layer=SlidingWindowAttention,
    color="#E69F00",
    applies=lambda geometry: (
        geometry.n_window_layers == geometry.n_layers and geometry.kv_lora_rank is None
    ),
    cache_numbers=((1, ("n_kv_heads", "head_dim")), (1, ("n_kv_heads", "v_head_dim"))),
    geometry=lambda sizes: replace(
        sizes.heads(sizes.n_kv_heads), window=sizes.window, n_window_layers=1
    ),
    from_geometry=lambda g, d_model, rope: SlidingWindowAttention(
        d_model,
        g.n_heads,
        g.n_kv_heads,
        g.window,
        head_dim=g.head_dim,
        bias=g.o_bias,
        rope=rope,
    ),
)
