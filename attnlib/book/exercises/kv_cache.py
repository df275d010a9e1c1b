# ruff: noqa: D103  The hint of a mistake says what its function does.
"""Exercises on the KV cache: its size in GiB, and the forward of a layer that has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.book.exercises.grading import Exercise, Grade, LayerExercise, Mistake, combined
from attnlib.core import merge_heads, split_heads
from attnlib.costs import Geometry, kv_cache_bytes
from attnlib.models import MODELS
from attnlib.rope import Rope
from attnlib.testing import TOKENS, hidden, in_steps, output, prepared
from attnlib.variants.mha import MultiHeadAttention

HEADS = (
    lambda g: g.n_kv_heads,
    Mistake("the query heads. Keys and values are cached: n_kv_heads.", lambda g: g.n_heads),
    Mistake("a single KV head. Each of the n_kv_heads stores its own.", lambda g: 1),
)
WIDTHS = (
    lambda g: g.head_dim,
    Mistake("d_model / n_heads for a head's width. Take head_dim.",
            lambda g: g.d_model / g.n_heads),
    Mistake("the width of the model. A head stores head_dim numbers.", lambda g: g.d_model),
)  # fmt: skip
FACTORS = (
    lambda g, users, bits: 2 * g.n_layers * users * bits / 8,
    Mistake("K or V is missing. A token leaves a key and a value: two tensors.",
            lambda g, users, bits: g.n_layers * users * bits / 8),
    Mistake("one layer. Every layer has its own cache.",
            lambda g, users, bits: users * bits / 4),
    Mistake("one user. Every sequence has its own cache.",
            lambda g, users, bits: 2 * g.n_layers * bits / 8),
    Mistake("bits taken for bytes. A byte has 8 bits.",
            lambda g, users, bits: 2 * g.n_layers * users * bits),
    Mistake("bits // 8, which rounds: a number of 4 bits then takes no memory at all.",
            lambda g, users, bits: 2 * g.n_layers * users * (bits // 8)),
    Mistake("2 bytes per number, whatever the bits.",
            lambda g, users, bits: 2 * g.n_layers * users * 2),
)  # fmt: skip
UNITS = (
    2**30,
    Mistake("GB, which are 10^9 bytes. A GiB is 2^30.", 10**9),
    Mistake("MiB. A GiB is 2^30 bytes.", 2**20),
    Mistake("bytes. Divide by 2^30.", 1),
)


def gib(n_heads: Callable, width: Callable, factor: Callable, unit: int) -> Callable:
    """An answer made of four parts."""
    return lambda g, tokens, users, bits: (
        n_heads(g) * width(g) * factor(g, users, bits) * tokens / unit
    )


def cache_gib(g: Geometry, tokens: int, users: int, bits: int) -> float:
    """The right answer."""
    return kv_cache_bytes(g, tokens, batch_size=users) * bits / 16 / 2**30


CACHE_GIB = Exercise(
    answer=cache_gib,
    cases={
        "Llama-2 7B": (MODELS["Llama-2 7B"].geometry, 4096, 1, 16),
        "Llama-3 8B, 3 users": (MODELS["Llama-3 8B"].geometry, 8192, 3, 16),
        "Gemma 7B": (MODELS["Gemma 7B"].geometry, 8192, 1, 16),
        "Qwen3-4B, 8 bits": (MODELS["Qwen3-4B"].geometry, 32_768, 1, 8),
        "Qwen2.5-72B, 4 bits": (MODELS["Qwen2.5-72B"].geometry, 131_072, 2, 4),
    },
    mistakes=[
        *combined(gib, HEADS, WIDTHS, FACTORS, UNITS, at_most=3),
        Mistake("rounded down to whole GiB. Divide with /, and not with //.",
                lambda *arguments: cache_gib(*arguments) // 1),
    ],
)  # fmt: skip


def grade_cache_gib(function: Callable[[Geometry, int, int, int], float]) -> Grade:
    """Grade the size of a KV cache in GiB (The KV cache).

    Args:
        function: takes ``(geometry, tokens, users, bits)``, the tokens of each user and the
            bits of a stored number; returns the GiB that the caches of all layers take.

    Returns:
        The grade.
    """
    return CACHE_GIB.grade(function)


def causal(T: int, S: int, offset: int) -> Tensor:
    """A mask whose query t sees the keys up to t + offset."""
    return torch.arange(T)[:, None] + offset >= torch.arange(S)


def everything(T: int, S: int) -> Tensor:
    return torch.ones(T, S, dtype=torch.bool)


STARTS = (
    lambda past, T: past,
    Mistake("every call turns its tokens as if the first stood at 0. New tokens come after"
            " cache.seen old ones.", lambda past, T: 0),
    Mistake("new tokens are placed after themselves, at cache.seen + T. The first of them"
            " stands at the cache.seen from before the update.", lambda past, T: past + T),
    Mistake("the first new token is placed one too late, at cache.seen + 1. Count from 0.",
            lambda past, T: past + (past > 0)),
)  # fmt: skip
MASKS = (
    lambda T, S, cached: causal(T, S, S - T),
    Mistake("with S > T keys, is_causal=True and tril(T, S) begin at the upper left corner:"
            " the first new token then sees key 0 alone. It stands at S - T and may see keys 0"
            " to S - T.", lambda T, S, cached: causal(T, S, 0)),
    Mistake("causal only among several new tokens, counted from the upper left corner. A chunk"
            " after cached tokens then sees too little.",
            lambda T, S, cached: causal(T, S, S - T if T == 1 else 0)),
    Mistake("no mask once there is a cache. Several new tokens must not see each other's"
            " future.", lambda T, S, cached: everything(T, S) if cached else causal(T, S, 0)),
    Mistake("no mask once something is cached. A chunk must not see its own future.",
            lambda T, S, cached: everything(T, S) if S > T else causal(T, S, 0)),
    Mistake("no mask at all.", lambda T, S, cached: everything(T, S)),
    Mistake("a mask that hides the query's own key. Query t sees keys 0 to S - T + t.",
            lambda T, S, cached: causal(T, S, S - T - 1)),
    Mistake("True taken for hidden. In this mask True = may attend.",
            lambda T, S, cached: ~causal(T, S, S - T)),
    Mistake("a mask of numbers, which is added to the scores and hides nothing. Make it"
            " boolean.", lambda T, S, cached: causal(T, S, S - T).float()),
    Mistake("a mask that is one column off: a query sees the token after its own.",
            lambda T, S, cached: causal(T, S, S - T + 1)),
)  # fmt: skip
STORES = (
    "rotated",
    Mistake("what is stored is never read, so attention sees the new tokens only. Use the keys"
            " and values that update returns.", "unread"),
    Mistake("keys are turned after they are read, by the positions of the new tokens. Turn the"
            " new keys, then store them.", "unrotated"),
    Mistake("keys are stored before they are turned, and only the new ones are ever turned."
            " Turn the new keys, then store them.", "never rotated"),
)  # fmt: skip


def cached_layer(start: Callable, mask: Callable, store: str) -> type[nn.Module]:
    """An answer made of three parts."""

    class Layer(MultiHeadAttention):
        def forward(self, x: Tensor, cache=None) -> Tensor:
            T, past = x.shape[1], 0 if cache is None else cache.seen
            projections = self.q_proj, self.k_proj, self.v_proj
            q, k, v = (split_heads(project(x), self.n_heads) for project in projections)
            first = start(past, T)

            def turned(x: Tensor) -> Tensor:
                return self.rope.rotate(x, start=first, length=first + x.shape[2])[0]

            raw, q, k = k, turned(q), turned(k)
            if cache is not None and store in ("unrotated", "never rotated"):
                old, v, _ = cache.update(raw, v)
                only_new = torch.cat([old[:, :, :past], k], dim=2)
                k = turned(old) if store == "unrotated" else only_new
            elif cache is not None:
                stored = cache.update(k, v)[:2]
                k, v = (k, v) if store == "unread" else stored
            seen = mask(T, k.shape[2], cache is not None)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
            return self.o_proj(merge_heads(out))

    return Layer


def in_chunks(layer: nn.Module) -> Iterator[Tensor]:
    """The outputs of a layer in two chunks, token by token, in one chunk, and uncached."""
    layer = prepared(layer)
    x = hidden(layer)
    for sizes in ([3, TOKENS - 3], [1] * TOKENS, [TOKENS]):
        yield in_steps(layer, x, sizes)
    yield output(layer, x)


CACHED_LAYER = LayerExercise(
    answer=cached_layer(STARTS[0], MASKS[0], STORES[0]),
    build=lambda layer_class: layer_class(22, 6, head_dim=4, rope=Rope()),
    checks=(
        "equals the reference",
        "no future leak",
        "reach",
        "cached = uncached",
        "batch = its rows",
    ),
    mistakes=combined(cached_layer, STARTS, MASKS, STORES),
    outputs=in_chunks,
    if_it_stops=(
        "It stops once something is cached. Then T queries meet S > T keys: a mask needs T rows"
        " and S columns, and what is turned in one call of rotate must have the same positions."
    ),
)


def grade_cached_layer(layer_class: Callable[..., nn.Module]) -> Grade:
    """Grade the forward of a layer with rotary positions and a cache (The KV cache).

    Args:
        layer_class: a subclass of :class:`~attnlib.variants.mha.MultiHeadAttention` with its
            own causal ``forward(x, cache=None)``, which returns the output.

    Returns:
        The grade.
    """
    return CACHED_LAYER.grade(layer_class)
