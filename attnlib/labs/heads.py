"""What the heads of a model look at, and what the model loses without one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attnlib.checks import check_size


def previous_share(weights: Tensor) -> Tensor:
    """Return the weight that each head gives to the token just before the query.

    Args:
        weights: shape ``(..., T, T)``, causal.

    Returns:
        Means over the queries from the second on, shape ``(...)``.
    """
    return weights.diagonal(-1, -2, -1).mean(dim=-1)


def first_share(weights: Tensor, start: int = 1) -> Tensor:
    """Return the weight that each head gives to the first token.

    Args:
        weights: shape ``(..., T, T)``, causal.
        start: the first query that counts. An early query has few keys and so gives the first
            one much in any case.

    Returns:
        Means over the queries from ``start`` on, shape ``(...)``.
    """
    return weights[..., check_size("start", start) :, 0].mean(dim=-1)


def induction_share(weights: Tensor, period: int) -> Tensor:
    """Return the weight that each head gives to what followed the last copy of the query.

    Args:
        weights: of a text that repeats itself after ``period`` tokens, shape ``(..., T, T)``,
            causal.
        period: tokens after which it repeats itself.

    Returns:
        Means over the queries that have an earlier copy, shape ``(...)``.
    """
    period = check_size("period", period)
    return weights.diagonal(1 - period, -2, -1)[..., 1:].mean(dim=-1)


def random_twice(vocabulary: int, period: int, generator: torch.Generator) -> Tensor:
    """Return random tokens, and then the same once more.

    Args:
        vocabulary: tokens to draw from, 0 to ``vocabulary - 1``.
        period: tokens that are drawn.
        generator: on the CPU.

    Returns:
        int64, shape ``(1, 2 * period)``.
    """
    return torch.randint(vocabulary, (1, period), generator=generator).repeat(1, 2)


@contextmanager
def without_head(layer: Any, head: int) -> Iterator[None]:
    """Switch one head of a layer off, for as long as the context lasts.

    Args:
        layer: with ``o_proj`` and ``n_heads``; its output has no share of the head meanwhile.
        head: 0 to H - 1.

    Raises:
        ValueError: if there is no such head.
    """
    if not 0 <= head < layer.n_heads:
        raise ValueError(f"head must be 0 to {layer.n_heads - 1}, got {head}")
    D = layer.o_proj.in_features // layer.n_heads
    columns = layer.o_proj.weight.detach()[:, head * D : (head + 1) * D]  # (d_model, D)
    kept = columns.clone()
    columns.zero_()
    try:
        yield
    finally:
        columns.copy_(kept)


@contextmanager
def with_attention(model: Any, layers: Sequence[nn.Module]) -> Iterator[None]:
    """Give a model other attention layers, for as long as the context lasts.

    Args:
        model: with ``blocks``, each with an ``attention``.
        layers: one for each block.

    Raises:
        ValueError: if their number is another.
    """
    blocks = list(model.blocks)
    if len(layers) != len(blocks):
        raise ValueError(f"layers must be {len(blocks)}, one for each block, got {len(layers)}")
    kept = [block.attention for block in blocks]
    try:
        for block, layer in zip(blocks, layers, strict=True):
            block.attention = layer
        yield
    finally:
        for block, layer in zip(blocks, kept, strict=True):
            block.attention = layer
