"""What a layer keeps of the tokens it has seen: buffers that fill up from the left."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.checks import check_size
from attnlib.contract import Cache


class KVCache:
    """Keys and values of past tokens, stored once for each KV head.

    The buffers are allocated to ``capacity`` at once, so that adding a token writes one row and
    copies nothing. A cache is for inference: what it stores is detached from autograd.

    Source: Shazeer 2019, arXiv 1911.02150, section 2.4 (incremental inference).

    Args:
        batch_size: sequences in the batch, B.
        n_kv_heads: KV heads, H_kv.
        capacity: tokens that fit.
        head_dim: width of one head, D.
        dtype: of the stored numbers; ``None`` means torch's default.
        device: where they are stored; ``None`` means torch's default.

    Attributes:
        seen: tokens that have come so far; all of them are kept.
        capacity: tokens that fit.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(self, batch_size: int, n_kv_heads: int, capacity: int, head_dim: int, *,
                 dtype: torch.dtype | None = None,
                 device: torch.device | str | None = None):  # fmt: skip
        check_size("batch_size", batch_size)
        check_size("n_kv_heads", n_kv_heads)
        check_size("capacity", capacity)
        check_size("head_dim", head_dim)
        shape = (batch_size, n_kv_heads, capacity, head_dim)
        self._k = torch.zeros(shape, dtype=dtype, device=device)  # (B, H_kv, capacity, D)
        self._v = torch.zeros(shape, dtype=dtype, device=device)  # (B, H_kv, capacity, D)
        self._positions = EntryPositions(batch_size, capacity, self._k.device)
        self.capacity, self.seen = capacity, 0

    def update(self, k: Tensor, v: Tensor, *, positions: Tensor | None = None
               ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Store the keys and values of new tokens after the earlier ones.

        Args:
            k: new keys, shape ``(B, H_kv, T, D)``, of the cache's dtype and device.
            v: new values, same shape.
            positions: of the new tokens, shape ``(T,)`` or ``(B, T)``, int64; negative marks
                padding. ``None`` means that they follow the earlier ones.

        Returns:
            ``(k, v, positions)`` of all tokens so far, S of them: views of shape
            ``(B, H_kv, S, D)``, and positions of shape ``(S,)``, or ``(B, S)`` once some were
            given.

        Raises:
            ValueError: if shape, dtype or device is not the cache's, or the tokens do not fit;
                what was stored stays as it was.
        """
        start, end = self.seen, room_for(self, self._k, k, "k")
        room_for(self, self._v, v, "v")
        if v.shape != k.shape:
            raise ValueError(f"v must have k's shape {tuple(k.shape)}, got {tuple(v.shape)}")
        stored = self._positions.store(positions, start, end)  # (S,) or (B, S)
        self._k[:, :, start:end] = k.detach()
        self._v[:, :, start:end] = v.detach()
        self.seen = end
        return self._k[:, :, :end], self._v[:, :, :end], stored  # (B, H_kv, S, D)

    kept = property(lambda self: self.seen, doc="Entries that are kept, one per token seen.")

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, filled or not."""
        return self._k.nbytes + self._v.nbytes + self._positions.nbytes

    def reset(self) -> None:
        """Forget all tokens; the buffers stay allocated."""
        self.seen = 0
        self._positions.reset()


class LatentCache:
    """Latents and shared rotary keys of past tokens: all that MLA keeps.

    One row holds a token's latent and, after it, its rotary key, since absorbed attention reads
    the two as one key. A cache is for inference: what it stores is detached from autograd.

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.3.

    Args:
        batch_size: sequences in the batch, B.
        capacity: tokens that fit.
        kv_lora_rank: width of the latent, d_c.
        qk_rope_head_dim: width of the shared rotary key, d_h^R; 0 for a latent alone.
        dtype: of the stored numbers; ``None`` means torch's default.
        device: where they are stored; ``None`` means torch's default.

    Attributes:
        seen: tokens that have come so far; all of them are kept.
        capacity: tokens that fit.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(self, batch_size: int, capacity: int, kv_lora_rank: int,
                 qk_rope_head_dim: int, *, dtype: torch.dtype | None = None,
                 device: torch.device | str | None = None):  # fmt: skip
        check_size("batch_size", batch_size)
        check_size("capacity", capacity)
        check_size("kv_lora_rank", kv_lora_rank)
        check_size("qk_rope_head_dim", qk_rope_head_dim, least=0)
        shape = (batch_size, capacity, kv_lora_rank + qk_rope_head_dim)  # a row is one token
        self._entries = torch.zeros(shape, dtype=dtype, device=device)
        self._positions = EntryPositions(batch_size, capacity, self._entries.device)
        self.capacity, self.seen = capacity, 0

    def update(self, entries: Tensor, *, positions: Tensor | None = None
               ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Store the rows of new tokens after the earlier ones.

        Args:
            entries: latent and rotary key side by side, shape ``(B, T, d_c + d_h^R)``, of the
                cache's dtype and device.
            positions: of the new tokens, shape ``(T,)`` or ``(B, T)``, int64; negative marks
                padding. ``None`` means that they follow the earlier ones.

        Returns:
            ``(entries, positions)`` of all tokens so far, S of them: a view of shape
            ``(B, S, d_c + d_h^R)``, and positions of shape ``(S,)``, or ``(B, S)`` once some
            were given.

        Raises:
            ValueError: if shape, dtype or device is not the cache's, or the tokens do not fit;
                what was stored stays as it was.
        """
        start, end = self.seen, room_for(self, self._entries, entries, "entries")
        stored = self._positions.store(positions, start, end)  # (S,) or (B, S)
        self._entries[:, start:end] = entries.detach()
        self.seen = end
        return self._entries[:, :end], stored  # (B, S, d_c + d_h^R)

    kept = property(lambda self: self.seen, doc="Entries that are kept, one per token seen.")

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer, filled or not."""
        return self._entries.nbytes + self._positions.nbytes

    def reset(self) -> None:
        """Forget all tokens; the buffer stays allocated."""
        self.seen = 0
        self._positions.reset()


def room_for(cache: Cache, buffer: Tensor, new: Tensor, name: str) -> int:
    """Check that new tokens fit after the stored ones, and return where they would end.

    Args:
        cache: whose ``seen`` and ``capacity`` count.
        buffer: the buffer to write to, shape ``(..., capacity, width)``.
        new: the new tokens, shape ``(..., T, width)``.
        name: the argument's name, for the message.

    Returns:
        The tokens seen once the new ones are stored.

    Raises:
        ValueError: if shape, dtype or device is not the buffer's, or the tokens do not fit.
    """
    expected = (*buffer.shape[:-2], "T", buffer.shape[-1])
    if new.ndim != buffer.ndim or (*new.shape[:-2], "T", new.shape[-1]) != expected:
        shape = ", ".join(str(size) for size in expected)
        raise ValueError(
            f"{name} must have shape ({shape}) for this cache, got {tuple(new.shape)}"
        )
    if new.dtype != buffer.dtype or new.device != buffer.device:
        raise ValueError(
            f"{name} must be {buffer.dtype} on {buffer.device} for this cache,"
            f" got {new.dtype} on {new.device}"
        )
    end = cache.seen + new.shape[-2]
    if end > cache.capacity:
        raise ValueError(
            f"cache overflow: {cache.seen} stored and {new.shape[-2]} new tokens exceed the"
            f" capacity of {cache.capacity}; make the cache larger or reset() it"
        )
    return end


class EntryPositions:
    """Positions of a cache's entries: 0, 1, 2, ..., until a call gives others.

    Nothing is stored as long as entry i stands at position i in every sequence.

    Args:
        batch_size: sequences in the batch, B.
        capacity: entries that fit.
        device: of the positions.
    """

    def __init__(self, batch_size: int, capacity: int, device: torch.device):
        self.batch_size, self.capacity, self.device = batch_size, capacity, device
        self._given: Tensor | None = None  # (B, capacity), once a call gave some

    def store(self, positions: Tensor | None, start: int, end: int) -> Tensor:
        """Store the positions of new entries and return those of all entries so far.

        Args:
            positions: of the new entries, shape ``(T,)`` or ``(B, T)``, or ``None``.
            start: index of the first new entry.
            end: index after the last one.

        Returns:
            Shape ``(end,)``, or ``(B, end)`` once some were given; int64.

        Raises:
            ValueError: if the shape is wrong, or ``None`` follows positions that were given.
        """
        if positions is None:
            if self._given is not None:
                raise ValueError(
                    "positions must be given at each call once they were, got None"
                )
            return torch.arange(end, device=self.device)  # (S,)
        shapes = (end - start,), (self.batch_size, end - start)
        if positions.shape not in shapes:
            raise ValueError(
                f"positions must have shape {shapes[0]} or {shapes[1]} for this cache,"
                f" got {tuple(positions.shape)}"
            )
        if self._given is None:
            self._given = torch.arange(self.capacity, device=self.device).repeat(
                self.batch_size, 1
            )  # (B, capacity)
        self._given[:, start:end] = positions
        return self._given[:, :end]  # (B, S)

    @property
    def nbytes(self) -> int:
        """Bytes of the positions that are stored; none as long as none were given."""
        return 0 if self._given is None else self._given.nbytes

    def reset(self) -> None:
        """Forget all positions."""
        self._given = None


def storage_like(
    weight: Tensor, dtype: torch.dtype | None, device: torch.device | str | None
) -> tuple[torch.dtype, torch.device | str]:
    """Return how and where a layer's cache stores, by default as the layer computes.

    Args:
        weight: one of the layer's weights.
        dtype: what the caller asked for, or ``None``.
        device: what the caller asked for, or ``None``.

    Returns:
        ``(dtype, device)`` for a cache.
    """
    kind, computes = weight.device.type, weight.dtype
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        computes = torch.get_autocast_dtype(kind)
    return (
        computes if dtype is None else dtype,
        weight.device if device is None else device,
    )
