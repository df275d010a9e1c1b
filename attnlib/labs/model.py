"""A small language model over bytes, into which every attention layer of attnlib fits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

BYTES = 256  # the vocabulary


class Block(nn.Module):
    """One layer: attention and feed-forward part, each behind a norm and added to its input.

    Args:
        attention (nn.Module): of width ``d_model``.
        d_model (int): width of the residual stream.
        d_ff (int): width inside the feed-forward part.
    """

    def __init__(self, attention, d_model, d_ff):
        super().__init__()
        self.attention_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.attention = attention
        self.mlp_norm = nn.RMSNorm(d_model, eps=1e-6)
        self.up = nn.Linear(d_model, d_ff, bias=False)
        self.down = nn.Linear(d_ff, d_model, bias=False)

    def forward(self, x, cache=None):
        """Return x with what attention and feed-forward part add to it.

        Args:
            x (Tensor): shape ``(B, T, d_model)``.
            cache (KVCache | LatentCache | None): of this layer's attention.

        Returns:
            Shape ``(B, T, d_model)``.
        """
        x = x + self.attention(self.attention_norm(x), cache)  # (B, T, d_model)
        hidden = F.gelu(self.up(self.mlp_norm(x)))  # (B, T, d_ff)
        return x + self.down(hidden)  # (B, T, d_model)


class TinyLM(nn.Module):
    """A decoder that predicts the next byte.

    Args:
        make_attention (Callable[[], nn.Module]): builds the attention of one layer, of width
            ``d_model``; called once a layer.
        d_model (int): width of the residual stream.
        n_layers (int): number of layers.
        d_ff (int): width inside the feed-forward parts.
    """

    def __init__(self, make_attention, *, d_model=128, n_layers=4, d_ff=512):
        super().__init__()
        self.embed = nn.Embedding(BYTES, d_model)
        self.blocks = nn.ModuleList(
            Block(make_attention(), d_model, d_ff) for _ in range(n_layers)
        )
        self.norm = nn.RMSNorm(d_model, eps=1e-6)
        self.unembed = nn.Linear(d_model, BYTES, bias=False)
        nn.init.normal_(self.embed.weight, std=0.1)

    def forward(self, tokens, caches=None):
        """Predict the byte behind each byte.

        Args:
            tokens (Tensor): int64, 0 to 255, shape ``(B, T)``.
            caches (list | None): one for each layer, of :meth:`new_caches`.

        Returns:
            Logits, shape ``(B, T, 256)``.
        """
        x = self.embed(tokens)  # (B, T, d_model)
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i])  # (B, T, d_model)
        return self.unembed(self.norm(x))  # (B, T, 256)

    def new_caches(self, batch_size, capacity):
        """Allocate an empty cache for each layer.

        Args:
            batch_size (int): sequences, B.
            capacity (int): tokens that fit.

        Returns:
            A list for :meth:`forward`.
        """
        return [block.attention.new_cache(batch_size, capacity) for block in self.blocks]


def n_params(module: nn.Module) -> int:
    """Count the parameters of a module.

    Args:
        module: any.

    Returns:
        How many numbers it learns.
    """
    return sum(parameter.numel() for parameter in module.parameters())


def device_of(module: nn.Module) -> torch.device:
    """Say where a module's parameters are.

    Args:
        module: one with parameters.

    Returns:
        The device of its first parameter.
    """
    return next(module.parameters()).device
