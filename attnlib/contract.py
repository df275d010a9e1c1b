"""The contract: what every attention layer and every cache offers, documented once.

A variant's file says only what is its own. Everything that is true of all layers is said here,
and the rest of the package (tests, benchmark, checks, laboratories) relies on nothing else.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor

from attnlib.rope import Rope

#: What ``forward`` returns: the output, or the pair of it and the attention weights.
Attended: TypeAlias = Tensor | tuple[Tensor, Tensor]


@runtime_checkable
class Cache(Protocol):
    """What a layer keeps of the tokens it has seen; one per layer, passed in by the caller.

    A cache is for inference: what it stores is detached from autograd. Its buffers are
    allocated once, to the capacity.

    Attributes:
        seen: tokens that have come so far, T summed over the calls. Setting it back forgets the
            newest tokens.
        capacity: tokens that may come.
    """

    seen: int
    capacity: int

    @property
    def kept(self) -> int:
        """Entries kept; as many as tokens seen, unless the cache drops some."""
        ...

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, filled or not."""
        ...

    def update(self, *new: Any, **positions: Any) -> tuple[Tensor, ...]:
        """Store the entries of new tokens and return all that are kept.

        Args:
            new: the new entries, of the cache's dtype and device, tokens on the last axis but
                one.
            positions: ``positions=`` of the new tokens, shape ``(T,)`` or ``(B, T)``, int64;
                negative marks padding. ``None`` means the positions that follow those seen.

        Returns:
            The kept entries, views that include the new ones, and last their positions:
            shape ``(S,)``, or ``(B, S)`` once sequences differ. If S = T, they are the new
            entries in their order.

        Raises:
            ValueError: if shape, dtype or device is not the cache's, or the tokens do not fit;
                what was stored stays as it was.
        """
        ...

    def reset(self) -> None:
        """Forget all tokens; the buffers stay allocated."""
        ...


class AttentionLayer(Protocol):
    """Self-attention over a residual stream, with an optional cache.

    Parameters carry the names of Hugging Face's transformers, so that its weights load.

    Attributes:
        n_heads: query heads, H.
        n_kv_heads: KV heads, H_kv, of the keys and values that attention sees.
        qk_head_dim: width of one head's query and key.
        v_head_dim: width of one head's value.
        rope: how queries and keys are rotated by position; ``None`` means not at all.

    A layer whose queries see a limited number of keys declares it as ``window``, the query's
    own key included. A layer whose keys and values are not the outputs of ``k_proj`` and
    ``v_proj`` names the projections that give them, head by head, as ``kv_projections``.
    """

    n_heads: int
    n_kv_heads: int
    qk_head_dim: int
    v_head_dim: int
    rope: Rope | None

    def forward(
        self,
        x: Tensor,
        cache: Any = None,
        *,
        positions: Tensor | None = None,
        causal: bool = True,
        key_mask: Tensor | None = None,
        return_weights: bool = False,
    ) -> Attended:
        """Mix each token with the tokens it may see.

        Args:
            x: hidden states of the new tokens, shape ``(B, T, d_model)``.
            cache: what earlier calls stored, from :meth:`new_cache`; the new tokens are added
                to it. Gradients do not flow into what a cache has stored, the new tokens' own
                keys and values included.
            positions: of the new tokens, shape ``(T,)`` or, where sequences differ, ``(B, T)``,
                int64. Negative positions mark padding, which no query sees. ``None`` means
                0, 1, ..., or the positions that follow those in ``cache``.
            causal: whether a token may see only itself and earlier ones.
            key_mask: boolean, shape ``(B, S)`` over earlier and new tokens; False hides padding
                (in ``nn.MultiheadAttention``'s ``key_padding_mask``, True does).
                With ``key_mask``, pad on the left where decoding follows, so that positions
                stay right; with ``positions``, prompts may end anywhere.
            return_weights: whether to return the weights, which takes memory for T x S numbers
                per head; otherwise a fused kernel never holds them.

        Returns:
            The output, shape ``(B, T, d_model)``; with ``return_weights`` the pair of it and
            the weights, shape ``(B, H, T, S)``. A query that sees no key gets zero attention.

        Raises:
            ValueError: if the shape of ``x``, or the kind, shape, dtype or device of ``cache``,
                ``positions`` or ``key_mask`` is wrong, or the cache is full; the cache is then
                as before.
        """
        ...

    def new_cache(
        self,
        batch_size: int,
        capacity: int,
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> Cache:
        """Allocate an empty cache for this layer.

        Args:
            batch_size: sequences in the batch, B.
            capacity: tokens that may come.
            dtype: of the stored numbers; ``None`` means that of the layer's weights, or the one
                that ``torch.autocast`` computes in where that is on.
            device: where they are stored; ``None`` means where the layer's weights are.

        Returns:
            The cache, with no token seen.

        Raises:
            ValueError: if a size is below 1.
        """
        ...
