"""What a layer keeps of the tokens it has seen: buffers that fill up from the left."""

from __future__ import annotations

import torch
from torch import Tensor

from attnlib.checks import check_size


class KVCache:
    """Keys and values of past tokens, stored once for each key/value head.

    The buffers are allocated to ``capacity`` at once, so that adding a token writes one row and
    copies nothing. A cache is for inference: what it stores is detached from autograd.

    Source: Shazeer 2019, arXiv 1911.02150, section 2.4 (incremental inference).

    Args:
        batch_size: sequences in the batch, B.
        n_kv_heads: key/value heads, H_kv.
        capacity: tokens that fit.
        head_dim: width of one head, D.
        dtype: of the stored numbers; ``None`` means torch's default.
        device: where they are stored; ``None`` means torch's default.

    Attributes:
        length: tokens stored so far.
        capacity: tokens that fit.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(self, batch_size, n_kv_heads, capacity, head_dim, *, dtype=None, device=None):
        check_size("batch_size", batch_size)
        check_size("n_kv_heads", n_kv_heads)
        check_size("capacity", capacity)
        check_size("head_dim", head_dim)
        shape = (batch_size, n_kv_heads, capacity, head_dim)
        self._k = torch.zeros(shape, dtype=dtype, device=device)  # (B, H_kv, capacity, D)
        self._v = torch.zeros(shape, dtype=dtype, device=device)  # (B, H_kv, capacity, D)
        self.capacity, self.length = capacity, 0

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store the keys and values of new tokens behind the earlier ones.

        Args:
            k: new keys, shape ``(B, H_kv, T, D)``, of the cache's dtype and device.
            v: new values, same shape.

        Returns:
            ``(k, v)`` of all tokens so far, views of shape ``(B, H_kv, length, D)``.

        Raises:
            ValueError: if shape, dtype or device is not the cache's, or the tokens do not fit;
                what was stored stays as it was.
        """
        end = room_for(self, self._k, k, "k")
        room_for(self, self._v, v, "v")
        if v.shape != k.shape:
            raise ValueError(f"v must have k's shape {tuple(k.shape)}, got {tuple(v.shape)}")
        self._k[:, :, self.length : end] = k.detach()
        self._v[:, :, self.length : end] = v.detach()
        self.length = end
        return self._k[:, :, :end], self._v[:, :, :end]  # (B, H_kv, S, D)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffers, filled or not."""
        return self._k.nbytes + self._v.nbytes

    def reset(self) -> None:
        """Forget all tokens; the buffers stay allocated."""
        self.length = 0


class LatentCache:
    """Latents and shared rotary keys of past tokens: all that MLA keeps.

    One row holds a token's latent and, behind it, its rotary key, since absorbed attention
    reads the two as one key. A cache is for inference: what it stores is detached from
    autograd.

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.3.

    Args:
        batch_size: sequences in the batch, B.
        capacity: tokens that fit.
        kv_lora_rank: width of the latent, d_c.
        qk_rope_head_dim: width of the shared rotary key, d_h^R.
        dtype: of the stored numbers; ``None`` means torch's default.
        device: where they are stored; ``None`` means torch's default.

    Attributes:
        length: tokens stored so far.
        capacity: tokens that fit.

    Raises:
        ValueError: if a size is below 1.
    """

    def __init__(
        self, batch_size, capacity, kv_lora_rank, qk_rope_head_dim, *, dtype=None, device=None
    ):
        check_size("batch_size", batch_size)
        check_size("capacity", capacity)
        check_size("kv_lora_rank", kv_lora_rank)
        check_size("qk_rope_head_dim", qk_rope_head_dim)
        shape = (batch_size, capacity, kv_lora_rank + qk_rope_head_dim)  # a row is one token
        self._entries = torch.zeros(shape, dtype=dtype, device=device)
        self.capacity, self.length = capacity, 0

    def update(self, entries: Tensor) -> Tensor:
        """Store the rows of new tokens behind the earlier ones.

        Args:
            entries: latent and rotary key side by side, shape ``(B, T, d_c + d_h^R)``, of the
                cache's dtype and device.

        Returns:
            The rows of all tokens so far, a view of shape ``(B, length, d_c + d_h^R)``.

        Raises:
            ValueError: if shape, dtype or device is not the cache's, or the tokens do not fit;
                what was stored stays as it was.
        """
        end = room_for(self, self._entries, entries, "entries")
        self._entries[:, self.length : end] = entries.detach()
        self.length = end
        return self._entries[:, :end]  # (B, S, d_c + d_h^R)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer, filled or not."""
        return self._entries.nbytes

    def reset(self) -> None:
        """Forget all tokens; the buffer stays allocated."""
        self.length = 0


def room_for(cache: KVCache | LatentCache, buffer: Tensor, new: Tensor, name: str) -> int:
    """Check that new tokens fit behind the stored ones, and say where they would end.

    Args:
        cache: whose ``length`` and ``capacity`` count.
        buffer: the buffer to write to, shape ``(..., capacity, width)``.
        new: the new tokens, shape ``(..., T, width)``.
        name: the argument's name, for the message.

    Returns:
        The cache's length once the tokens are stored.

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
    end = cache.length + new.shape[-2]
    if end > cache.capacity:
        raise ValueError(
            f"cache overflow: {cache.length} stored and {new.shape[-2]} new tokens exceed the"
            f" capacity of {cache.capacity}; make the cache larger or reset() it"
        )
    return end


def storage_like(weight: Tensor, dtype: torch.dtype | None, device) -> dict:
    """Where and how a layer's cache stores, unless told otherwise: as the layer's weights.

    Args:
        weight: one of the layer's weights.
        dtype: what the caller asked for, or ``None``.
        device: what the caller asked for, or ``None``.

    Returns:
        ``dtype`` and ``device`` for a cache.
    """
    return {
        "dtype": weight.dtype if dtype is None else dtype,
        "device": weight.device if device is None else device,
    }
