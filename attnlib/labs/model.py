"""A small language model over bytes, into which every attention layer of attnlib fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.rope import rope_angles

BYTES = 256  # the vocabulary
AMPLITUDE = 0.5  # of added positions; embeddings begin at a standard deviation of 0.1


class Block(nn.Module):
    """One layer: attention and feed-forward part, each after a norm and added to its input.

    Args:
        attention: of width ``d_model``.
        d_model: width of the residual stream.
        d_ff: width inside the feed-forward part.
    """

    def __init__(self, attention: nn.Module, d_model: int, d_ff: int):
        super().__init__()
        self.attention_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.attention = attention
        self.mlp_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x: Tensor, cache: Any = None) -> Tensor:
        """Return x with what attention and feed-forward part add to it.

        Args:
            x: shape ``(B, T, d_model)``.
            cache: of this layer's attention, or ``None``.

        Returns:
            Shape ``(B, T, d_model)``.
        """
        x = x + self.attention(self.attention_norm(x), cache)  # (B, T, d_model)
        hidden = F.gelu(self.up(self.mlp_norm(x)))  # (B, T, d_ff)
        return x + self.down(hidden)  # (B, T, d_model)


class TinyLM(nn.Module):
    """A decoder that predicts the next byte.

    Args:
        make_attention: builds the attention of one layer, of width ``d_model``; called once per
            layer.
        d_model: width of the residual stream.
        n_layers: number of layers.
        d_ff: width inside the feed-forward parts.
    """

    def __init__(
        self,
        make_attention: Callable[[], nn.Module],
        *,
        d_model: int = 128,
        n_layers: int = 4,
        d_ff: int = 512,
    ):
        super().__init__()
        self.embed = nn.Embedding(BYTES, d_model)
        self.blocks = nn.ModuleList(
            Block(make_attention(), d_model, d_ff) for _ in range(n_layers)
        )
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.unembed = nn.Linear(d_model, BYTES, bias=False)
        nn.init.normal_(self.embed.weight, std=0.1)

    def forward(self, tokens: Tensor, caches: list[Any] | None = None) -> Tensor:
        """Predict the byte after each byte.

        Args:
            tokens: int64, 0 to 255, shape ``(B, T)``.
            caches: one for each layer, of :meth:`new_caches`; ``None`` keeps nothing.

        Returns:
            Logits, shape ``(B, T, 256)``.
        """
        x = self.embed(tokens)  # (B, T, d_model)
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])  # (B, T, d_model)
        return self.unembed(self.norm(x))  # (B, T, 256)

    def new_caches(self, batch_size: int, capacity: int) -> list[Any]:
        """Allocate an empty cache for each layer.

        Args:
            batch_size: sequences, B.
            capacity: tokens that fit.

        Returns:
            A list for :meth:`forward`.
        """
        return [block.attention.new_cache(batch_size, capacity) for block in self.blocks]


class PositionedLM(TinyLM):
    """A small model whose positions are added to its input, so that attention needs none.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.5; sines in one half of the width,
    cosines in the other, instead of alternating.

    Args:
        make_attention: as for :class:`TinyLM`, without rope.
        tokens: the longest sequence.
        d_model: width of the residual stream.
        n_layers: number of layers.
        d_ff: width inside the feed-forward parts.
    """

    def __init__(
        self,
        make_attention: Callable[[], nn.Module],
        *,
        tokens: int,
        d_model: int,
        n_layers: int,
        d_ff: int,
    ):
        super().__init__(make_attention, d_model=d_model, n_layers=n_layers, d_ff=d_ff)
        cos, sin = rope_angles(torch.arange(tokens), self.embed.embedding_dim)
        self.register_buffer("waves", AMPLITUDE * torch.cat([sin, cos], dim=-1))

    def forward(self, tokens: Tensor, caches: list[Any] | None = None) -> Tensor:
        """Predict the byte after each byte: see :meth:`TinyLM.forward`.

        Args:
            tokens: int64, 0 to 255, shape ``(B, T)``.
            caches: one for each layer, of :meth:`TinyLM.new_caches`; ``None`` keeps nothing.

        Returns:
            Logits, shape ``(B, T, 256)``.

        Raises:
            ValueError: if a token comes after the last position that there is.
        """
        start = 0 if caches is None else caches[0].seen
        end = start + tokens.shape[1]
        if end > len(self.waves):
            raise ValueError(f"tokens must end by position {len(self.waves)}, got {end}")
        x = self.embed(tokens) + self.waves[start:end]  # (B, T, d_model)
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])  # (B, T, d_model)
        return self.unembed(self.norm(x))  # (B, T, 256)


def n_params(module: nn.Module) -> int:
    """Count the parameters of a module.

    Args:
        module: any.

    Returns:
        How many numbers it learns.
    """
    return sum(parameter.numel() for parameter in module.parameters())


def device_of(module: nn.Module) -> torch.device:
    """Return where a module's parameters are.

    Args:
        module: one with parameters.

    Returns:
        The device of its first parameter.
    """
    return next(module.parameters()).device
