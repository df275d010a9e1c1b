"""Attention over the keys in blocks, and parts of it merged exactly by their log-sum-exp.

A softmax needs all scores of a row before it can divide by their sum. But the sum can be kept
while the keys pass by, if it is rescaled whenever a larger score comes. This is how fused
kernels avoid the table of weights, how a decode step uses all of a card, and how several
devices share a long text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from attnlib.checks import check_attention, check_size


def attention_in_blocks(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    block_size: int = 256,
) -> tuple[Tensor, Tensor]:
    """The output of :func:`attnlib.core.attention`, a block of keys at a time.

    Sources: Milakov and Gimelshein 2018, arXiv 1805.02867 (the running sum); Dao et al. 2022,
    arXiv 2205.14135, algorithm 1 (the running output).

    Args:
        q: queries, shape ``(B, H, T, D)``.
        k: keys, shape ``(B, H_kv, S, D)``; H_kv divides H.
        v: values, shape ``(B, H_kv, S, D_v)``.
        mask: boolean, broadcastable to ``(B, H, T, S)``, True = may attend; ``None`` = all may.
        scale: factor on the scores; ``None`` means 1 / sqrt(D).
        block_size: keys at a time.

    Returns:
        ``(out, lse)``: ``(B, H, T, D_v)`` of q's dtype, and the logarithm of each row's sum of
        exponentials, ``(B, H, T)``, float32 or wider. A query that may attend to no key gets
        zeros and minus infinity.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit together, the mask is not boolean or
            ``block_size`` is below 1.
    """
    check_attention(q, k, v, mask)
    size, (B, H, T, D), H_kv = check_size("block_size", block_size), q.shape, k.shape[1]
    scale = D**-0.5 if scale is None else scale
    exact = torch.promote_types(q.dtype, torch.float32)  # sums are never narrower than float32
    grouped = q.to(exact).reshape(B, H_kv, H // H_kv, T, D) * scale  # (B, H_kv, G, T, D)
    largest = torch.full((B, H, T, 1), -torch.inf, dtype=exact, device=q.device)  # so far
    total = torch.zeros_like(largest)  # sum of exp(score - largest)
    out = torch.zeros((B, H, T, v.shape[-1]), dtype=exact, device=q.device)
    for start in range(0, k.shape[-2], size):
        keys, values = (x[..., start : start + size, :].to(exact) for x in (k, v))
        scores = torch.einsum("bkgtd,bksd->bkgts", grouped, keys).reshape(B, H, T, -1)
        if mask is not None:
            seen = mask.expand(*mask.shape[:-1], k.shape[-2])[..., start : start + size]
            scores = scores.masked_fill(~seen, -torch.inf)
        larger = torch.maximum(largest, scores.amax(dim=-1, keepdim=True))  # (B, H, T, 1)
        base = larger.clamp(min=torch.finfo(exact).min)  # finite where nothing was seen yet
        shrink, weights = (largest - base).exp(), (scores - base).exp()  # (.., 1), (.., block)
        total = total * shrink + weights.sum(dim=-1, keepdim=True)
        parts = weights.reshape(B, H_kv, H // H_kv, T, -1)  # (B, H_kv, G, T, block)
        added = torch.einsum("bkgts,bksd->bkgtd", parts, values).reshape(out.shape)
        out, largest = out * shrink + added, larger
    out = (out / total).masked_fill(total == 0, 0.0)
    return out.to(q.dtype), (largest + total.log())[..., 0]


def merge(outs: Sequence[Tensor], lses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Merge attention over parts of the keys into attention over all of them.

    A part's share of the whole is its sum of exponentials, so outputs are weighted by the
    softmax of their log-sum-exps. Their plain mean would be wrong.

    Source: Dao et al. 2023, https://pytorch.org/blog/flash-decoding.

    Args:
        outs: of each part, shape ``(B, H, T, D_v)``.
        lses: of each part, shape ``(B, H, T)``.

    Returns:
        ``(out, lse)`` of all keys, of the same shapes; zeros where no part saw a key.

    Raises:
        ValueError: if there is no part, or not one log-sum-exp for each.
    """
    if not outs or len(outs) != len(lses):
        raise ValueError(
            f"outs and lses must have one entry per part, got {len(outs)} and {len(lses)}"
        )
    parts = torch.stack([lse.to(torch.promote_types(lse.dtype, torch.float32)) for lse in lses])
    lse = parts.logsumexp(dim=0)  # (B, H, T)
    shares = (parts - lse).exp().nan_to_num()[..., None]  # (parts, B, H, T, 1)
    return (torch.stack(list(outs)) * shares).sum(dim=0).to(outs[0].dtype), lse
