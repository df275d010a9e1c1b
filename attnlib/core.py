"""The attention core that every variant shares: written out, and through a fused kernel."""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from attnlib.checks import check_attention, check_fused
from attnlib.contract import Cache
from attnlib.masks import causal_mask
from attnlib.rope import Rope

PRECISE = (torch.float32, torch.float64)  # the others round scores unless a kernel is fused
TILE = 8  # queries per KV head from which the fused kernel is faster on one thread of a CPU
WIDEST = 256  # of a head that a flash kernel takes
#: For grouped heads on a GPU. PyTorch prefers cuDNN's kernel, which gives all keys of a KV head
#: to one processor of the card; the flash kernel cuts them into parts for all of them.
SPLITTING = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attention(
    q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, scale: float | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention, written out: softmax(q k^T * scale) v.

    Query head h reads KV head h // G, where G = H // H_kv heads share one.
    Self-attention passes q, k and v of one sequence; cross-attention takes k and v from
    another.

    Source: Vaswani et al. 2017, arXiv 1706.03762, equation 1.

    Args:
        q: queries, shape ``(B, H, T, D)``.
        k: keys, shape ``(B, H_kv, S, D)``; H_kv divides H.
        v: values, shape ``(B, H_kv, S, D_v)``.
        mask: boolean, broadcastable to ``(B, H, T, S)``, True = may attend; ``None`` = all may.
        scale: factor on the scores; ``None`` means 1 / sqrt(D).

    Returns:
        ``(out, weights)``: ``(B, H, T, D_v)`` and ``(B, H, T, S)``, both of q's dtype. Rows of
        weights sum to 1. A query that may attend to no key gets zeros in both, never NaN.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit together, or the mask is not
            boolean.
    """
    check_attention(q, k, v, mask)
    B, H, T, D = q.shape
    H_kv, S = k.shape[1:3]
    scale = D**-0.5 if scale is None else scale
    grouped = q.reshape(B, H_kv, H // H_kv, T, D) * scale  # (B, H_kv, G, T, D)
    scores = torch.einsum("bkgtd,bksd->bkgts", grouped, k).reshape(B, H, T, S)  # (B, H, T, S)
    if mask is not None:
        scores = scores.masked_fill(
            ~mask, torch.finfo(scores.dtype).min
        )  # softmax makes 0 of it
    weights = scores.softmax(dim=-1)  # (B, H, T, S)
    if mask is not None:
        weights = weights.masked_fill(~mask, 0.0)  # also where a query sees no key at all
    grouped = weights.reshape(B, H_kv, H // H_kv, T, S)  # (B, H_kv, G, T, S)
    out = torch.einsum("bkgts,bksd->bkgtd", grouped, v)  # (B, H_kv, G, T, D_v)
    return out.reshape(B, H, T, v.shape[-1]), weights


def split_heads(x: Tensor, n_heads: int) -> Tensor:
    """Cut the width into heads, then bring the heads in front of the tokens.

    A ``view`` to ``(B, H, T, D)`` has the right shape and the wrong content: it cuts the token
    axis, not the width.

    Args:
        x: shape ``(B, T, H * D)``.
        n_heads: number of heads, H.

    Returns:
        A view of shape ``(B, H, T, D)``.

    Raises:
        ValueError: if ``n_heads`` is below 1 or does not divide the width of ``x``.
    """
    B, T, width = x.shape
    if not hasattr(n_heads, "__index__") or n_heads < 1 or width % n_heads:
        raise ValueError(f"n_heads must divide the width of x, {width}, got {n_heads}")
    return x.view(B, T, n_heads, width // n_heads).transpose(1, 2)  # (B, H, T, D)


def merge_heads(x: Tensor) -> Tensor:
    """Put the heads of each token side by side again; undoes :func:`split_heads`.

    Args:
        x: shape ``(B, H, T, D)``.

    Returns:
        Shape ``(B, T, H * D)``.
    """
    return x.transpose(1, 2).flatten(2)  # (B, T, H * D)


def new_positions(x: Tensor, cache: Cache | None, positions: Tensor | None) -> Tensor:
    """Positions of a call's tokens: as given, or those that follow the cached ones.

    Args:
        x: the tokens, shape ``(B, T, d_model)``.
        cache: what came before, or ``None``.
        positions: shape ``(T,)`` or ``(B, T)``, or ``None``.

    Returns:
        Shape ``(T,)``, or ``(B, T)`` if they were given; int64.
    """
    if positions is not None:
        return positions.expand(x.shape[0], -1)  # (B, T)
    start = 0 if cache is None else cache.seen
    return torch.arange(start, start + x.shape[1], device=x.device)  # (T,)


def rotate_new(
    rope: Rope | None, positions: Tensor, cache: Cache | None, *tensors: Tensor
) -> tuple[Tensor, ...]:
    """Rotate the queries and keys of new tokens by their positions.

    With a cache, scaling that depends on the length goes by the cache's capacity: stored keys
    cannot be turned again, so all of them must be turned with the same base.

    Args:
        rope: how to rotate; ``None`` leaves the tensors as they are.
        positions: of the new tokens, shape ``(T,)`` or ``(B, T)``.
        cache: what came before, or ``None``.
        tensors: each ``(B, heads, T, D)``.

    Returns:
        The rotated tensors.
    """
    if rope is None:
        return tensors
    length = tensors[0].shape[-2] if cache is None else cache.capacity
    return rope.rotate(*tensors, positions=positions, length=length)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_positions: Tensor,
    k_positions: Tensor,
    *,
    causal: bool = True,
    window: int | None = None,
    key_mask: Tensor | None = None,
    scale: float | None = None,
    return_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Let new tokens attend to all kept ones, using the cheapest kernel that applies.

    The arguments are not checked: layers check them once, where they come in.

    Args:
        q: queries of the new tokens, shape ``(B, H, T, D)``.
        k: keys of all kept tokens, the new ones included, shape ``(B, H_kv, S, D)``; H_kv
            divides H. If S = T, they are the new tokens' keys in their order.
        v: values of the same tokens, shape ``(B, H_kv, S, D_v)``.
        q_positions: shape ``(T,)``, or ``(B, T)`` where sequences differ.
        k_positions: shape ``(S,)`` or ``(B, S)``, in any order, none after the last query's.
            Where sequences differ, negative ones mark entries that no query sees.
        causal: whether a token may see only itself and earlier ones.
        window: keys each query may see, its own included; ``None`` means all. Needs ``causal``.
        key_mask: boolean, shape ``(B, S)``; False hides a key (padding) from every query.
        scale: factor on the scores; ``None`` means 1 / sqrt(D).
        return_weights: whether to build and return the matrix of weights.

    Returns:
        ``(out, weights)``: ``(B, H, T, D_v)``, and ``(B, H, T, S)`` or ``None``.
    """
    T, S = q.shape[2], k.shape[2]
    alike = q_positions.ndim == k_positions.ndim == 1  # all sequences are at one position
    plain = alike and window is None and key_mask is None and not return_weights
    if plain and causal and T == S:
        return grouped_sdpa(q, k, v, causal=True, scale=scale), None  # no mask in memory
    if plain and T == 1 and prefers_products(q, k):
        products = one_query_attention if q.dtype in PRECISE else one_query_on_gpu
        return products(q, k, v, scale=scale), None
    mask = None
    if causal and not (alike and T == 1 and window is None):
        mask = causal_mask(q_positions, k_positions, window=window)  # (T, S) or (B, T, S)
        mask = mask if alike else mask[:, None]  # (B, 1, T, S)
    if not alike:
        seen = k_positions >= 0  # (B, S)
        key_mask = seen.expand(len(q), S) if key_mask is None else key_mask & seen
    if key_mask is not None:
        real = key_mask[:, None, None, :]  # (B, 1, 1, S)
        mask = real if mask is None else mask & real  # (B, 1, 1 or T, S)
    if return_weights:
        return attention(q, k, v, mask=mask, scale=scale)
    return grouped_sdpa(q, k, v, mask=mask, scale=scale), None


def prefers_products(q: Tensor, k: Tensor) -> bool:
    """Whether :func:`one_query_attention` is faster than a fused kernel for a decode step.

    On a CPU, fused kernels are made for blocks of queries. On a GPU, no flash kernel takes rows
    as wide as MLA's, and the one that does gives each sequence to one processor of the card.

    Args:
        q: queries, shape ``(B, H, 1, D)``.
        k: keys, shape ``(B, H_kv, S, D)``.

    Returns:
        The choice, as measured with ``python -m attnlib.bench``.
    """
    if q.device.type == "cpu":
        few = q.shape[1] < TILE * k.shape[1]
        return q.dtype in PRECISE and (few or torch.get_num_threads() > 1)
    return q.is_cuda and q.shape[-1] > WIDEST and not q.requires_grad


def one_query_attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None
) -> Tensor:
    """The output of :func:`attention` for one query per head, as two products of matrices.

    The scores of one query are few, so nothing large is held. The G queries of a group make one
    matrix, so K and V are read once and never repeated. The arguments are not checked.

    Args:
        q: queries, shape ``(B, H, 1, D)``.
        k: keys, shape ``(B, H_kv, S, D)``; H_kv divides H.
        v: values, shape ``(B, H_kv, S, D_v)``.
        scale: factor on the scores; ``None`` means 1 / sqrt(D).

    Returns:
        Shape ``(B, H, 1, D_v)``, of q's dtype.
    """
    B, H, _, D = q.shape
    scale = D**-0.5 if scale is None else scale
    grouped = q.reshape(B, k.shape[1], -1, D) * scale  # (B, H_kv, G, D)
    scores = (k @ grouped.mT).mT  # (B, H_kv, G, S), in the order that reads k row by row
    return (scores.softmax(dim=-1) @ v).reshape(B, H, 1, -1)  # (B, H, 1, D_v)


def one_query_on_gpu(q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None) -> Tensor:
    """What :func:`one_query_attention` computes, for half-precision numbers on a GPU.

    The card adds up in float32 and would round each score to the inputs' dtype; here it leaves
    them as they are until softmax has used them. No gradient flows through it.

    Args:
        q: queries, shape ``(B, H, 1, D)``, bfloat16 or float16.
        k: keys, shape ``(B, H_kv, S, D)``; H_kv divides H.
        v: values, shape ``(B, H_kv, S, D_v)``.
        scale: factor on the scores; ``None`` means 1 / sqrt(D).

    Returns:
        Shape ``(B, H, 1, D_v)``, of q's dtype.
    """
    B, H, _, D = q.shape
    scale = D**-0.5 if scale is None else scale
    grouped = (q * scale).reshape(B * k.shape[1], -1, D)  # (B * H_kv, G, D)
    keys, values = k.flatten(0, 1), v.flatten(0, 1)  # (B * H_kv, S, D or D_v)
    scores = torch.bmm(grouped, keys.mT, out_dtype=torch.float32)  # (B * H_kv, G, S)
    return (scores.softmax(dim=-1).type_as(v) @ values).reshape(B, H, 1, -1)  # (B, H, 1, D_v)


def fused_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """The output of :func:`attention` from a fused kernel; K and V are never repeated.

    One query per head (decode): the G queries of a group become G rows of one matrix, so a key
    is read once for all of them. Many queries (prefill): the KV heads join the batch,
    and a group's heads look at one K and V through an axis of stride 0.

    Source: grouping as in Ainslie et al. 2023, arXiv 2305.13245, section 2.2.

    Args:
        q: queries, shape ``(B, H, T, D)``.
        k: keys, shape ``(B, H_kv, S, D)``; H_kv divides H.
        v: values, shape ``(B, H_kv, S, D_v)``.
        mask: boolean, broadcastable to ``(B, 1, T, S)``, True = may attend; ``None`` = all may.
            Where it differs between sequences and heads share K and V in groups, the sequences
            of a prefill take turns, so that no mask is copied for each group.
        causal: whether query t sees keys up to t; needs T = S and no mask.
        scale: factor on the scores; ``None`` means 1 / sqrt(D).

    Returns:
        Shape ``(B, H, T, D_v)``, of q's dtype. A query that may attend to no key gets zeros.

    Raises:
        ValueError: if shapes, dtypes or devices do not fit together, if the mask is not boolean
            or differs between heads, or if ``causal`` comes with a mask or with T other than S.
    """
    check_attention(q, k, v, mask)
    check_fused(q.shape[2], k.shape[2], mask, causal)
    return grouped_sdpa(q, k, v, mask=mask, causal=causal, scale=scale)


def grouped_sdpa(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """PyTorch's fused kernel on grouped heads; the arguments are not checked.

    Args:
        q: queries, shape ``(B, H, T, D)``.
        k: keys, shape ``(B, H_kv, S, D)``.
        v: values, shape ``(B, H_kv, S, D_v)``.
        mask: boolean, broadcastable to ``(B, 1, T, S)``, or ``None``.
        causal: whether query t sees keys up to t; with T = S and no mask.
        scale: factor on the scores; ``None`` means 1 / sqrt(D).

    Returns:
        Shape ``(B, H, T, D_v)``. A query that may attend to no key gets zeros.
    """
    (B, H, T, D), (_, H_kv, _, D_v) = q.shape, v.shape
    G, scale = H // H_kv, D**-0.5 if scale is None else scale
    if mask is not None:
        mask = mask[(None,) * (4 - mask.ndim)]  # (1 or B, 1, 1 or T, 1 or S)
        padded = len(mask) > 1 and T > 1  # each sequence has its own mask
        if padded and 1 < H_kv < H:  # one by one, to avoid one mask copy per group
            each = zip(*(x.split(1) for x in (q, k, v, mask)), strict=True)
            return torch.cat([grouped_sdpa(*qkv, mask=m, scale=scale) for *qkv, m in each])
    q, k, v = (widen(x, max(D, D_v)) for x in (q, k, v))  # the CPU's kernel wants equal widths
    seen = None
    if mask is not None:
        seen = mask.any(dim=-1, keepdim=True)  # (.., T, 1), False where a query sees no key
        mask = mask | ~seen  # no row is empty, so no kernel divides 0 by 0
    if T == 1:  # decode: the queries of a group are rows of one matrix
        q = q.reshape(B, H_kv, G, -1)
    elif G > 1:  # prefill: KV heads join the batch, a group's heads look at one K and V
        q = q.reshape(B * H_kv, G, T, -1)
        k, v = k.flatten(0, 1)[:, None], v.flatten(0, 1)[:, None]  # (B * H_kv, 1, S, width)
        k, v = k.expand(-1, G, -1, -1), v.expand(-1, G, -1, -1)  # the same memory G times
    with sdpa_kernel(SPLITTING) if q.is_cuda and T == 1 < G else nullcontext():
        out = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale
        )
    out = out.reshape(B, H, T, -1)[..., :D_v]  # (B, H, T, D_v)
    return out if seen is None else out.masked_fill(~seen, 0.0)


def widen(x: Tensor, width: int) -> Tensor:
    """Fill the last axis up to a width with zeros, which change no score.

    Args:
        x: shape ``(..., w)``.
        width: at least w.

    Returns:
        Shape ``(..., width)``; x itself if it is that wide.
    """
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))
