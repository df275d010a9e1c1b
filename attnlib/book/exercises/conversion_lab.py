# ruff: noqa: D103  The hint of a mistake says what its function does.
"""Exercises of the conversion lab: pool heads, and write multi-query attention as MLA."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.book.exercises.grading import Exercise, Grade, LayerExercise, Mistake
from attnlib.rope import Rope
from attnlib.testing import FAILS, HOLDS, TOLERANCE, BrokenError, Report, kind_of
from attnlib.variants.mla import MultiHeadLatentAttention
from attnlib.variants.mqa import MultiQueryAttention


def grouped(weight: Tensor, head_dim: int, n_kv_heads: int) -> Tensor:
    """A weight with axes for groups and their heads, shape ``(H_kv, G, D, d_model)``."""
    return weight.unflatten(0, (n_kv_heads, -1, head_dim))


def pool_in_turns(weight: Tensor, head_dim: int, n_kv_heads: int) -> Tensor:
    return weight.unflatten(0, (-1, n_kv_heads, head_dim)).mean(dim=0).flatten(0, 1)


def pool_inside_heads(weight: Tensor, head_dim: int, n_kv_heads: int) -> Tensor:
    return weight.unflatten(0, (n_kv_heads, head_dim, -1)).mean(dim=2).flatten(0, 1)


def pool_and_repeat(weight: Tensor, head_dim: int, n_kv_heads: int) -> Tensor:
    heads = grouped(weight, head_dim, n_kv_heads)
    return heads.mean(dim=1, keepdim=True).expand_as(heads).flatten(0, 2)


WEIGHT = torch.randn(24, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

POOL = Exercise(
    answer=lambda *arguments: grouped(*arguments).mean(dim=1).flatten(0, 1),
    cases={
        "6 heads of 4 to 3": (WEIGHT, 4, 3),
        "6 heads of 4 to 2": (WEIGHT, 4, 2),
        "4 heads of 6 to 1": (WEIGHT, 6, 1),
        "6 heads of 4 to 6": (WEIGHT, 4, 6),
    },
    mistakes=[
        Mistake("heads dealt out in turns. A group is made of neighbours: with 6 heads and 2"
                " groups they are 0, 1, 2 and 3, 4, 5.", pool_in_turns),
        Mistake("rows averaged across the width of a head. The rows of one head lie together:"
                " the axis of the group comes before that of the head's width.",
                pool_inside_heads),
        Mistake("a sum, not a mean. Keys would be as many times too long as a group has heads.",
                lambda *arguments: grouped(*arguments).sum(dim=1).flatten(0, 1)),
        Mistake("the first head of each group. That is another start, and not the mean.",
                lambda *arguments: grouped(*arguments)[:, 0].flatten(0, 1)),
        Mistake("one mean for each group, but not as one matrix: put the heads below each"
                " other again.", lambda *arguments: grouped(*arguments).mean(dim=1)),
        Mistake("the means repeated for every query head. The point is to keep one per group.",
                pool_and_repeat),
    ],
)  # fmt: skip


def grade_pool(function: Callable[[Tensor, int, int], Tensor]) -> Grade:
    """Grade the pooling of key or value heads (Conversion lab).

    Args:
        function: takes a projection's weight, shape ``(heads * head_dim, d_model)``,
            ``head_dim`` and ``n_kv_heads``; returns ``(n_kv_heads * head_dim, d_model)``.

    Returns:
        The grade.
    """
    return POOL.grade(function)


def mqa_as_mla(
    layer: MultiQueryAttention,
    *,
    stretch: bool = True,
    norm: bool = False,
    swapped: bool = False,
    own_rope: bool = True,
) -> MultiHeadLatentAttention:
    """Write a multi-query layer with rotary positions as MLA: the key rotary, the value latent.

    Args:
        layer: without biases.
        stretch: whether queries are stretched for MLA's wider head. False is a mistake, and so
            is the other value of each argument below.
        norm: whether the latent is normalised.
        swapped: whether the value is rotated and the key is the latent's value.
        own_rope: whether MLA gets the layer's rope instead of a default one.

    Returns:
        The layer of MLA.
    """
    d_model, H, D = layer.q_proj.in_features, layer.n_heads, layer.head_dim
    mla = MultiHeadLatentAttention(
        d_model,
        H,
        kv_lora_rank=D,
        qk_nope_head_dim=1,
        qk_rope_head_dim=D,
        v_head_dim=D,
        rope=layer.rope if own_rope else Rope(),
    ).to(layer.q_proj.weight)
    k, v = layer.k_proj.weight, layer.v_proj.weight
    with torch.no_grad():
        if not norm:
            mla.kv_a_layernorm = nn.Identity()
        q = layer.q_proj.weight.view(H, D, d_model) * (((D + 1) / D) ** 0.5 if stretch else 1)
        mla.q_proj.weight.copy_(F.pad(q, (0, 0, 1, 0)).flatten(0, 1))
        mla.kv_a_proj_with_mqa.weight.copy_(torch.cat([k, v] if swapped else [v, k]))
        up = torch.eye(D).expand(H, -1, -1)
        mla.kv_b_proj.weight.copy_(F.pad(up, (0, 0, 1, 0)).flatten(0, 1))
        mla.o_proj.weight.copy_(layer.o_proj.weight)
    return mla


def multi_query_layer() -> MultiQueryAttention:
    """The layer to convert, the same at every call; its attention is far from uniform."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = MultiQueryAttention(22, 6, head_dim=4, rope=Rope(base=100.0))
    layer.requires_grad_(False).q_proj.weight.mul_(4)
    return layer


def tokens() -> Tensor:
    """Hidden states, shape ``(3, 7, 22)``, the same at every call."""
    return torch.randn(3, 7, 22, generator=torch.Generator().manual_seed(0))


def converted(convert: Callable[[MultiQueryAttention], nn.Module]) -> nn.Module:
    """The layer that a conversion makes.

    Raises:
        BrokenError: if it makes something else than a layer of MLA.
    """
    layer = convert(multi_query_layer())
    if layer is not None and not isinstance(layer, MultiHeadLatentAttention):
        found = f"expected a MultiHeadLatentAttention, got {kind_of(layer)}"
        raise BrokenError(found, "return the layer that you have made.")
    return layer


def kind(layer: nn.Module) -> Report:
    """Report the class, which ``converted`` has checked."""
    return Report("kind", HOLDS, "a MultiHeadLatentAttention")


def in_one_pass(layer: nn.Module) -> Tensor:
    """The output for all tokens at once, shape ``(3, 7, 22)``."""
    with torch.no_grad():
        return layer(tokens())


def token_by_token(layer: nn.Module) -> Tensor:
    """The output for one token after the other, with a cache, shape ``(3, 7, 22)``."""
    x = tokens()
    cache = layer.new_cache(len(x), x.shape[1])
    with torch.no_grad():
        return torch.cat([layer(token, cache) for token in x.split(1, dim=1)], dim=1)


def equals_the_layer(layer: nn.Module, name: str, run: Callable[..., Tensor]) -> Report:
    """Check that MLA gives the output of the layer it was made from."""
    expected = in_one_pass(multi_query_layer())
    error = ((run(layer) - expected).norm() / expected.norm()).item()
    if error < TOLERANCE:
        return Report(name, HOLDS, f"the output of the layer, relative error {error:.3f}")
    hint = (
        "check in this order: the rows of each weight (the part without position first), the"
        " factor on the queries, rope, and what you did not set: new weights are random, and"
        " what is not used must be zero."
    )
    return Report(name, FAILS, f"another output, relative error {error:.3f}", hint)


def cache_size(layer: nn.Module) -> Report:
    """Check that MLA caches no more than multi-query attention."""
    numbers, least = layer.kv_lora_rank + layer.qk_rope_head_dim, 2 * 4
    found = f"{numbers} numbers a token, as MQA has {least}"
    return Report("cache", HOLDS if numbers == least else FAILS, found)


MQA_TO_MLA = LayerExercise(
    answer=mqa_as_mla,
    build=converted,
    checks=(
        kind,
        partial(equals_the_layer, name="one pass", run=in_one_pass),
        partial(equals_the_layer, name="token by token", run=token_by_token),
        cache_size,
    ),
    outputs=lambda layer: [in_one_pass(layer)],
    mistakes=[
        Mistake("queries that are not stretched. MLA divides by the root of nope + rope, which"
                " is wider than D here.", partial(mqa_as_mla, stretch=False)),
        Mistake("a norm that is still on. The value is the latent, so it must come through as"
                " it is.", partial(mqa_as_mla, norm=True)),
        Mistake("key and value are exchanged. What is rotated is the key; the latent holds"
                " what is mixed.", partial(mqa_as_mla, swapped=True)),
        Mistake("other angles than the layer's. Pass its rope on: rope=layer.rope.",
                partial(mqa_as_mla, own_rope=False)),
        Mistake("queries that are not stretched, and a norm that is still on.",
                partial(mqa_as_mla, stretch=False, norm=True)),
    ],
)  # fmt: skip


def grade_mqa_to_mla(function: Callable[[MultiQueryAttention], nn.Module]) -> Grade:
    """Grade a conversion of multi-query attention with RoPE to MLA (Conversion lab).

    Args:
        function: takes a :class:`~attnlib.variants.mqa.MultiQueryAttention` without biases and
            returns a :class:`~attnlib.variants.mla.MultiHeadLatentAttention` that computes the
            same.

    Returns:
        The grade.
    """
    return MQA_TO_MLA.grade(function)
