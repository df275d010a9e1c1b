"""A language model of Llama's kind, in plain blocks around grouped-query attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.checks import check_size
from attnlib.contract import Cache
from attnlib.linear import Linear
from attnlib.rope import Rope
from attnlib.variants.gqa import GroupedQueryAttention

AT_ONCE = 256  # tokens whose logits are held at a time: 50 MB for a vocabulary of 49,152


@dataclass(frozen=True)
class LlamaSizes:
    """The sizes of a model.

    Args:
        vocabulary: tokens that there are, V.
        d_model: width of the residual stream.
        n_layers: number of blocks.
        n_heads: query heads, H.
        n_kv_heads: KV heads, H_kv.
        head_dim: width of one head, D.
        d_ff: width inside the feed-forward part.
        rope: how queries and keys are rotated.
        norm_eps: added to the mean square in each norm.
    """

    vocabulary: int
    d_model: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    d_ff: int
    rope: Rope = Rope()
    norm_eps: float = 1e-5


class LlamaBlock(nn.Module):
    """One layer: attention, then SwiGLU, each after a norm and added to its input.

    Source: Touvron et al. 2023, arXiv 2302.13971, section 2.2.

    Args:
        sizes: of the model.
    """

    def __init__(self, sizes: LlamaSizes):
        super().__init__()
        d_model, d_ff = sizes.d_model, sizes.d_ff
        self.attention_norm = nn.RMSNorm(d_model, eps=sizes.norm_eps)
        self.attention = GroupedQueryAttention(
            d_model, sizes.n_heads, sizes.n_kv_heads, head_dim=sizes.head_dim, rope=sizes.rope
        )
        self.mlp_norm = nn.RMSNorm(d_model, eps=sizes.norm_eps)
        self.gate = Linear(d_model, d_ff, bias=False)
        self.up = Linear(d_model, d_ff, bias=False)
        self.down = Linear(d_ff, d_model, bias=False)  # fmt: skip

    def forward(self, x: Tensor, cache: Cache | None = None, *,
                positions: Tensor | None = None) -> Tensor:  # fmt: skip
        """Return x with what attention and feed-forward part add to it.

        Args:
            x: shape ``(B, T, d_model)``.
            cache: of this block's attention, or ``None``.
            positions: of the tokens, as for every layer of attnlib.

        Returns:
            Shape ``(B, T, d_model)``.
        """
        x = x + self.attention(self.attention_norm(x), cache, positions=positions)
        return x + self.feed_forward(self.mlp_norm(x))  # (B, T, d_model)

    def feed_forward(self, h: Tensor) -> Tensor:
        """Return SwiGLU of normed states, shape ``(B, T, d_model)`` as ``h``.

        Args:
            h: shape ``(B, T, d_model)``.

        Returns:
            Shape ``(B, T, d_model)``.
        """
        out: Tensor = self.down(F.silu(self.gate(h)) * self.up(h))  # (B, T, d_model)
        return out


class Llama(nn.Module):
    """A decoder that predicts the next token; the embedding also makes the logits.

    Args:
        sizes: of the model.
    """

    def __init__(self, sizes: LlamaSizes):
        super().__init__()
        self.sizes = sizes
        self.embed = nn.Embedding(sizes.vocabulary, sizes.d_model)
        self.blocks: Any = nn.ModuleList(LlamaBlock(sizes) for _ in range(sizes.n_layers))
        self.norm = nn.RMSNorm(sizes.d_model, eps=sizes.norm_eps)

    def forward(self, tokens: Tensor, caches: Sequence[Cache] | None = None, *,
                positions: Tensor | None = None, last: bool = False) -> Tensor:  # fmt: skip
        """Predict the token after each token.

        Args:
            tokens: int64, shape ``(B, T)``.
            caches: one for each block, of :meth:`new_caches`; ``None`` keeps nothing.
            positions: shape ``(T,)`` or ``(B, T)``; negative marks padding.
            last: whether only the last token's logits are wanted, which saves V numbers for
                each of the others.

        Returns:
            Logits, shape ``(B, T, V)``, or ``(B, 1, V)`` with ``last``.
        """
        x = self.states(tokens, caches, positions=positions)  # (B, T, d_model)
        return F.linear(x[:, -1:] if last else x, self.embed.weight)  # (B, T, V)

    def states(self, tokens: Tensor, caches: Sequence[Cache] | None = None, *,
               positions: Tensor | None = None) -> Tensor:  # fmt: skip
        """Return the hidden states that logits are made of, shape ``(B, T, d_model)``.

        Args:
            tokens: int64, shape ``(B, T)``.
            caches: as for :meth:`forward`.
            positions: as for :meth:`forward`.

        Returns:
            Shape ``(B, T, d_model)``.
        """
        x = self.embed(tokens)  # (B, T, d_model)
        for i, block in enumerate(self.blocks):
            x = block(x, None if caches is None else caches[i], positions=positions)
        out: Tensor = self.norm(x)  # (B, T, d_model)
        return out

    def new_caches(self, batch_size: int, capacity: int) -> list[Any]:
        """Allocate an empty cache for each block.

        Args:
            batch_size: sequences, B.
            capacity: tokens that fit.

        Returns:
            A list for :meth:`forward`.
        """
        return [attention.new_cache(batch_size, capacity) for attention in self.attentions()]

    def attentions(self) -> list[GroupedQueryAttention]:
        """Return the attention of each block."""
        return [block.attention for block in self.blocks]

    @torch.no_grad()
    def weights(self, tokens: Tensor) -> Tensor:
        """Return where every head of every block looks.

        Args:
            tokens: int64, shape ``(B, T)``.

        Returns:
            Attention weights, shape ``(n_layers, B, H, T, T)``.
        """
        x, seen = self.embed(tokens), []  # (B, T, d_model)
        for block in self.blocks:
            out, weights = block.attention(block.attention_norm(x), return_weights=True)
            seen.append(weights)  # (B, H, T, T)
            x = x + out
            x = x + block.feed_forward(block.mlp_norm(x))  # (B, T, d_model)
        return torch.stack(seen)

    @torch.no_grad()
    def losses(self, tokens: Tensor) -> Tensor:
        """Return the surprise at each token but the first.

        Args:
            tokens: int64, shape ``(B, T)``.

        Returns:
            Cross entropy in nats, shape ``(B, T - 1)``.
        """
        return self.losses_of(self.states(tokens[:, :-1]), tokens)

    def losses_of(self, states: Tensor, tokens: Tensor) -> Tensor:
        """Return the surprise at tokens, given the states that predict them.

        Args:
            states: of :meth:`states`, for all tokens but the last, ``(B, T - 1, d_model)``.
            tokens: int64, shape ``(B, T)``.

        Returns:
            Cross entropy in nats, shape ``(B, T - 1)``.
        """
        parts = zip(
            states.split(AT_ONCE, dim=1), tokens[:, 1:].split(AT_ONCE, dim=1), strict=True
        )
        losses = []
        for x, targets in parts:  # so that few logits are held at a time
            logits = F.linear(x, self.embed.weight)  # (B, some of T, V)
            losses.append(F.cross_entropy(logits.mT, targets, reduction="none"))
        return torch.cat(losses, dim=1)  # (B, T - 1)


@torch.no_grad()
def generate(
    model: Llama, prompts: Sequence[Sequence[int]], steps: int, *, stop: int | None = None
) -> list[list[int]]:
    """Continue prompts, each by the most probable token, with a cache.

    Prompts of different lengths go through the model together: the shorter ones are padded on
    the left, and their padding has negative positions, so no token sees it.

    Args:
        model: predicts.
        prompts: one or more lists of tokens, none empty.
        steps: tokens to add to each, at most.
        stop: a token at which a text ends; ``None`` means none.

    Returns:
        The new tokens of each prompt, without ``stop``.

    Raises:
        ValueError: if there is no prompt, one is empty, or ``steps`` is below 1.
    """
    steps = check_size("steps", steps)
    lengths = torch.tensor([len(prompt) for prompt in prompts])  # (B,)
    if not len(lengths) or lengths.min() < 1:
        raise ValueError(f"prompts must hold at least one token each, got {list(prompts)}")
    longest, device = int(lengths.max()), model.embed.weight.device
    padded = [[0] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    tokens = torch.tensor(padded, device=device)  # (B, T)
    start = (longest - lengths)[:, None].to(device)  # (B, 1), padding of each
    positions = torch.arange(longest, device=device) - start  # (B, T), negative where padded
    ragged = int(lengths.min()) < longest
    caches = model.new_caches(len(lengths), longest + steps)
    made = []
    for _ in range(steps):
        logits = model(tokens, caches, positions=positions if ragged else None, last=True)
        tokens = logits.argmax(dim=-1)  # (B, 1)
        made.append(tokens)
        positions = positions[:, -1:] + 1  # (B, 1)
        if stop is not None and all((torch.cat(made, dim=1) == stop).any(dim=1)):
            break
    texts = torch.cat(made, dim=1).tolist()
    return [text[: text.index(stop)] if stop in text else text for text in texts]
