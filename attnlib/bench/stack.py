"""A few layers of a model, one after another, as one layer to the benchmark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from attnlib.costs import Geometry
from attnlib.rope import Rope
from attnlib.variants import build_layer


class Stack(nn.Module):
    """Attention layers that run one after another, each added to its input.

    Args:
        layers: in their order.
    """

    def __init__(self, layers: Iterable[nn.Module]):
        super().__init__()
        self.layers: Any = nn.ModuleList(layers)

    def forward(self, x: Tensor, cache: StackCache | None = None) -> Tensor:
        """Run all layers.

        Args:
            x: hidden states, shape ``(B, T, d_model)``.
            cache: of :meth:`new_cache`, or ``None``.

        Returns:
            Shape ``(B, T, d_model)``.
        """
        parts = [None] * len(self.layers) if cache is None else cache.parts
        for layer, part in zip(self.layers, parts, strict=True):
            x = x + layer(x, part)  # (B, T, d_model)
        return x

    def new_cache(self, batch_size: int, capacity: int) -> StackCache:
        """Allocate an empty cache for each layer.

        Args:
            batch_size: sequences, B.
            capacity: tokens that may come.

        Returns:
            All of them as one.
        """
        return StackCache(layer.new_cache(batch_size, capacity) for layer in self.layers)


class StackCache:
    """The caches of some layers, which have all seen the same tokens.

    Args:
        parts: one cache per layer.
    """

    def __init__(self, parts: Iterable[Any]):
        self.parts = list(parts)

    @property
    def seen(self) -> int:
        """Tokens that have come so far; to set it sets all of them back."""
        return int(self.parts[0].seen)

    @seen.setter
    def seen(self, tokens: int) -> None:
        for part in self.parts:
            part.seen = tokens

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, filled or not."""
        return sum(part.nbytes for part in self.parts)

    def reset(self) -> None:
        """Forget all tokens."""
        for part in self.parts:
            part.reset()


def build_layers(
    geometry: Geometry, *, dtype: torch.dtype | None, device: torch.device | str | None
) -> nn.Module:
    """Build the layers of a geometry with random weights and rotary positions.

    Args:
        geometry: of one layer, or of several, some of them with a window. Those with the
            window come first, since their order makes no difference to the time.
        dtype: of the weights; ``None`` means torch's default.
        device: of the weights; ``None`` means torch's default.

    Returns:
        The layer, or a :class:`Stack`.

    Raises:
        ValueError: as :func:`attnlib.variants.build_layer`.
    """
    if geometry.n_layers == 1:
        return build_layer(geometry, rope=Rope(), dtype=dtype, device=device)
    near = replace(geometry, n_layers=1, n_window_layers=1) if geometry.window else geometry
    far = replace(geometry, n_layers=1, window=None, n_window_layers=0)
    kinds = [near] * geometry.n_window_layers
    kinds += [far] * (geometry.n_layers - geometry.n_window_layers)
    return Stack(build_layer(kind, rope=Rope(), dtype=dtype, device=device) for kind in kinds)
