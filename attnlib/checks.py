"""Checks of what callers pass in: each names the argument, what was expected and what came."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnlib.scalars import check_size

if TYPE_CHECKING:
    from attnlib.rope import Rope

__all__ = [
    "check_attention",
    "check_bool",
    "check_even",
    "check_forward",
    "check_fused",
    "check_heads",
    "check_kv_heads",
    "check_latent_sizes",
    "check_positions",
    "check_size",
]


def check_heads(d_model: int, n_heads: int, head_dim: int | None, *, rope: Rope | None) -> int:
    """Check the widths of a layer with heads, and return the width of one head.

    Args:
        d_model: width of the residual stream.
        n_heads: number of query heads.
        head_dim: width of one head, or ``None`` for ``d_model // n_heads``.
        rope: how heads are rotated, which needs an even width; ``None`` means not at all.

    Returns:
        The width of one head.

    Raises:
        ValueError: if a size is below 1, if ``head_dim`` is left out and ``n_heads`` does not
            divide ``d_model``, or if the width of a head is odd with ``rope``.
    """
    d_model, n_heads = check_size("d_model", d_model), check_size("n_heads", n_heads)
    if head_dim is None and d_model % n_heads:
        raise ValueError(
            f"head_dim must be given where n_heads does not divide d_model,"
            f" got d_model={d_model}, n_heads={n_heads}"
        )
    head_dim = check_size("head_dim", d_model // n_heads if head_dim is None else head_dim)
    return head_dim if rope is None else rope.check_width("head_dim", head_dim)


def check_kv_heads(n_heads: int, n_kv_heads: int) -> int:
    """Check that the query heads fall into equal groups, one for each KV head.

    Args:
        n_heads: number of query heads.
        n_kv_heads: number of KV heads.

    Returns:
        ``n_kv_heads``, unchanged.

    Raises:
        ValueError: if a size is below 1, or ``n_kv_heads`` does not divide ``n_heads``.
    """
    n_heads, n_kv_heads = check_size("n_heads", n_heads), check_size("n_kv_heads", n_kv_heads)
    if n_heads % n_kv_heads:
        raise ValueError(
            f"n_heads must be a multiple of n_kv_heads,"
            f" got n_heads={n_heads}, n_kv_heads={n_kv_heads}"
        )
    return n_kv_heads


def check_latent_sizes(
    d_model: int,
    n_heads: int,
    kv_lora_rank: int,
    qk_nope_head_dim: int,
    qk_rope_head_dim: int,
    v_head_dim: int,
    q_lora_rank: int | None,
    rope: Rope,
) -> None:
    """Check the widths of a layer with a latent.

    Args:
        d_model: width of the residual stream.
        n_heads: number of heads.
        kv_lora_rank: width of the latent of keys and values.
        qk_nope_head_dim: width of a head's query and key without position.
        qk_rope_head_dim: width of the rotary query and key.
        v_head_dim: width of a head's value.
        q_lora_rank: width of the latent of queries, or ``None``.
        rope: how rotary queries and keys are turned.

    Raises:
        ValueError: if a size is below 1, or ``qk_rope_head_dim`` cannot be rotated.
    """
    check_size("d_model", d_model)
    check_size("n_heads", n_heads)
    check_size("kv_lora_rank", kv_lora_rank)
    check_size("qk_nope_head_dim", qk_nope_head_dim)
    check_size("v_head_dim", v_head_dim)
    rope.check_width("qk_rope_head_dim", qk_rope_head_dim)
    if q_lora_rank is not None:
        check_size("q_lora_rank", q_lora_rank)


def check_even(name: str, value: int) -> int:
    """Check that a width can be split into rotation pairs.

    Args:
        name: the argument's name, for the message.
        value: the width.

    Returns:
        ``value``, unchanged.

    Raises:
        ValueError: if ``value`` is not an even integer of at least 2.
    """
    value = check_size(name, value, least=2)
    if value % 2:
        raise ValueError(f"{name} must be even, since RoPE turns pairs of numbers, got {value}")
    return value


def check_forward(
    x: Tensor,
    d_model: int,
    cache: object,
    cache_type: type,
    positions: Tensor | None,
    key_mask: Tensor | None,
) -> None:
    """Check everything that a layer's ``forward`` is given, before anything is stored.

    Args:
        x: hidden states; must be ``(B, T, d_model)`` with T at least 1.
        d_model: the layer's width.
        cache: ``None``, or a ``cache_type``.
        cache_type: the kind of cache that this layer fills.
        positions: ``None``, or integers of shape ``(T,)`` or ``(B, T)``.
        key_mask: ``None``, or a boolean mask ``(B, S)``, S = earlier + new tokens.

    Raises:
        ValueError: if the rank or width of ``x`` is wrong or it holds no token, if ``cache`` is
            of another kind, if ``positions`` are of another shape or no integers, or if
            ``key_mask`` is not boolean or not of shape ``(B, S)``.
    """
    if x.ndim != 3 or x.shape[-1] != d_model or x.shape[1] < 1:
        raise ValueError(
            f"x must have shape (B, T, d_model={d_model}) with T >= 1, got {tuple(x.shape)}"
        )
    if cache is not None and not isinstance(cache, cache_type):
        raise ValueError(
            f"cache must be a {cache_type.__name__} or None, got {type(cache).__name__}"
        )
    if positions is not None:
        check_positions("positions", positions)
        if positions.shape not in (x.shape[:2], x.shape[1:2]):
            raise ValueError(
                f"positions must have shape (T,) = {tuple(x.shape[1:2])} or (B, T) ="
                f" {tuple(x.shape[:2])}, got {tuple(positions.shape)}"
            )
    if key_mask is not None:
        check_bool("key_mask", key_mask, x.device)
        expected = (x.shape[0], x.shape[1] + getattr(cache, "seen", 0))
        if key_mask.shape != expected:
            raise ValueError(
                f"key_mask must have shape (B, S) = {expected}, one entry for each cached and"
                f" new token, got {tuple(key_mask.shape)}"
            )


def check_bool(name: str, mask: Tensor, device: torch.device) -> Tensor:
    """Check that a mask is boolean and on the device of what it masks.

    A float mask may be an additive one and a 0/1 mask may mean either, so both are refused.

    Args:
        name: the argument's name, for the message.
        mask: the mask.
        device: where it must be.

    Returns:
        ``mask``, unchanged.

    Raises:
        ValueError: if ``mask`` is not of dtype ``torch.bool``, or on another device.
    """
    if mask.dtype != torch.bool:
        raise ValueError(
            f"{name} must be boolean with True = may attend, got dtype {mask.dtype};"
            f" a 0/1 mask becomes one with .bool()"
        )
    if mask.device != device:
        raise ValueError(f"{name} must be on {device}, got {mask.device}")
    return mask


def check_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> None:
    """Check that queries, keys, values and mask fit together.

    Args:
        q: queries ``(B, H, T, D)``.
        k: keys ``(B, H_kv, S, D)``.
        v: values ``(B, H_kv, S, D_v)``.
        mask: boolean, broadcastable to ``(B, H, T, S)``, or ``None``.

    Raises:
        ValueError: if a rank, width, head count, length, dtype or device does not fit.
    """
    for name, x in (("q", q), ("k", k), ("v", v)):
        if x.ndim != 4:
            raise ValueError(
                f"{name} must have shape (B, heads, tokens, width), got {tuple(x.shape)}"
            )
        if x.dtype != q.dtype or x.device != q.device:
            raise ValueError(
                f"q, k and v must agree in dtype and device, got {q.dtype} on {q.device} for q"
                f" and {x.dtype} on {x.device} for {name}"
            )
    B, H, T, D = q.shape
    H_kv, S = k.shape[1:3]
    if k.shape[0] != B or k.shape[3] != D:
        raise ValueError(f"k must have shape (B={B}, H_kv, S, D={D}), got {tuple(k.shape)}")
    if v.shape[:3] != k.shape[:3]:
        raise ValueError(
            f"v must have shape (B={B}, H_kv={H_kv}, S={S}, D_v), got {tuple(v.shape)}"
        )
    check_kv_heads(H, H_kv)
    if mask is not None:
        check_bool("mask", mask, q.device)
        try:
            fits = mask.expand(B, H, T, S).shape == (B, H, T, S)
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"mask must be broadcastable to (B, H, T, S) = {(B, H, T, S)},"
                f" got {tuple(mask.shape)}"
            )


def check_fused(T: int, S: int, mask: Tensor | None, causal: bool) -> None:
    """Check that a mask is one that a fused kernel can take.

    Args:
        T: queries.
        S: keys.
        mask: boolean, broadcastable to ``(B, 1, T, S)``, or ``None``.
        causal: whether the kernel makes the causal mask itself.

    Raises:
        ValueError: if the mask has another rank or differs between heads, or if ``causal``
            comes with a mask or with T other than S.
    """
    if mask is not None and mask.ndim > 2 and mask.shape[-3] != 1:
        raise ValueError(f"mask must be the same for all heads, got {tuple(mask.shape)}")
    if causal and (mask is not None or T != S):
        got = "a mask" if mask is not None else f"T={T}, S={S}"
        raise ValueError(f"causal must come without a mask and with T = S, got {got}")


def check_positions(name: str, positions: Tensor) -> Tensor:
    """Check that positions are an integer tensor, one row or one row per sequence.

    Args:
        name: the argument's name, for the message.
        positions: positions in tokens.

    Returns:
        ``positions``, unchanged.

    Raises:
        ValueError: if the rank is not 1 or 2, or the dtype is not an integer one.
    """
    if positions.ndim not in (1, 2) or positions.dtype not in (torch.int64, torch.int32):
        raise ValueError(
            f"{name} must be an integer tensor of shape (T,) or (B, T),"
            f" got shape {tuple(positions.shape)} and dtype {positions.dtype}"
        )
    return positions
