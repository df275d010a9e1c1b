"""Exercises of the conversion lab: the order of heads, and multi-query attention as MLA."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.book.exercises.grading import Grade, LayerExercise, Mistake, name_of, stopped
from attnlib.rope import Rope
from attnlib.testing import (
    FAILS,
    HOLDS,
    TOLERANCE,
    BrokenError,
    Report,
    Reports,
    kind_of,
    nothing,
)
from attnlib.variants.mha import MultiHeadAttention
from attnlib.variants.mla import MultiHeadLatentAttention
from attnlib.variants.mqa import MultiQueryAttention


def grade_head_order(function: Callable[[MultiHeadAttention, list[int]], nn.Module]) -> Grade:
    """Grade a multi-head layer with its heads in another order (Conversion lab).

    Args:
        function: takes ``(layer, order)``; returns a new layer, the same function, whose head i
            is head ``order[i]`` of ``layer``.

    Returns:
        The grade.
    """
    name, order = name_of(function), [4, 0, 5, 2, 1, 3]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = MultiHeadAttention(22, 6, head_dim=4)
        x = torch.randn(2, 5, 22)
    before = copy.deepcopy(layer)
    expected = before(x)
    try:
        made = function(layer, list(order))
        if made is None:
            raise nothing()
        if not isinstance(made, MultiHeadAttention):
            found = f"expected a MultiHeadAttention, got {kind_of(made)}"
            raise BrokenError(found, "return the layer.")
        made_output = made(x)
    except Exception as error:
        return Grade(name, Reports(), stopped(error))
    weights, after, given = (m.state_dict() for m in (before, made, layer))
    reports = [
        *(moved(key, weights[key], after[key], order) for key in weights),
        verdict(
            "layer given",
            all(torch.equal(given[key], weights[key]) for key in weights),
            "left as it was",
            "make a new layer, or a copy, and write into that one.",
        ),
        verdict(
            "output",
            made_output.shape == expected.shape
            and torch.allclose(made_output, expected, atol=1e-6),
            "the same as before",
            "all four projections have to agree on the order.",
        ),
    ]
    return Grade(name, Reports(reports))


def moved(name: str, before: Tensor, after: Tensor, order: list[int]) -> Report:
    """Check that the 6 heads of one weight are in the new order."""
    axis, lines = (1, "columns") if name.startswith("o_proj") else (0, "rows")
    heads = before.unflatten(axis, (6, 4))

    def ordered(order: list[int]) -> Tensor:
        return heads.index_select(axis, torch.tensor(order)).flatten(axis, axis + 1)

    hint = f"a head is 4 {lines} side by side: unflatten({axis}, (n_heads, head_dim))."
    if torch.equal(after, before):
        hint = f"nothing moved here, and the {lines} of a head have to move with it."
    elif torch.equal(after, ordered([order.index(h) for h in range(6)])):
        hint = "moved the other way: head i of the new layer is head order[i] of the old."
    holds = torch.equal(after, ordered(order))
    return verdict(name, holds, f"{lines} in the order of the heads", hint)


def verdict(check: str, holds: bool, found: str, hint: str) -> Report:
    """A report that says what holds, or that it does not."""
    return Report(check, HOLDS, found) if holds else Report(check, FAILS, f"not {found}", hint)


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
    found = f"{numbers} numbers per token, as MQA has {least}"
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
