"""A small model for a page: its weights, for pagemodel.js to run without a kernel."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from attnlib.checks import check_size
from attnlib.rope import Rope
from attnlib.variants.mha import MultiHeadAttention

MAX_PARAMETERS = 200_000  # about 0.5 MB of page
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")


def page_model(
    embed: Tensor,
    layers: Sequence[MultiHeadAttention],
    predict: Tensor,
    vocabulary: str,
    *,
    longest: int = 32,
) -> dict[str, Any]:
    """Return a model of attention layers alone, for ``AttentionHeatmap(..., model=...)``.

    The page computes ``x = x + layer(rms_norm(x))`` for each layer, causal, and at the end
    ``predict @ rms_norm(x)``, the scores of the next token. The norms have no weight, and
    PyTorch's epsilon for float32. Parameters are rounded to float16.

    Args:
        embed: one row per token, ``(V, d_model)``, any float dtype.
        layers: without bias, all of one size, with the same ``Rope(base)`` or none.
        predict: one row per token, ``(V, d_model)``, any float dtype.
        vocabulary: the V tokens, one character each. If it has no lower-case letters, the
            page takes them for their capitals.
        longest: tokens that the page's model reads at most.

    Returns:
        A dictionary for the page; the parameters are in the order of the arguments.

    Raises:
        ValueError: if shapes do not match, a layer is of another kind, characters of the
            vocabulary repeat, there are more than 200,000 parameters, or one is too large for
            float16.
    """
    V, d_model = check_table("embed", embed, len(vocabulary))
    if len(set(vocabulary)) < V:
        raise ValueError(f"vocabulary must not repeat a character, got {vocabulary!r}")
    if not len(layers):
        raise ValueError("layers must have at least one layer, got none")
    for layer in layers:
        check_layer(layer, layers[0], d_model)
    check_table("predict", predict, V, d_model)
    first = layers[0]
    projections = [getattr(layer, name).weight for layer in layers for name in PROJECTIONS]
    numbers = torch.cat(
        [part.detach().flatten().cpu() for part in (embed, *projections, predict)]
    )
    if numbers.numel() > MAX_PARAMETERS:
        raise ValueError(
            f"layers must have at most {MAX_PARAMETERS:,} parameters, with embed and predict,"
            f" got {numbers.numel():,}"
        )
    return {
        "vocabulary": vocabulary,
        "longest": check_size("longest", longest, least=2),
        "complaint": f"Type 2 to {longest} characters from {ranges(vocabulary)}.",
        "width": d_model,
        "layers": len(layers),
        "heads": first.n_heads,
        "head_width": first.head_dim,
        "base": first.rope and first.rope.base,
        "parameters": pack_halves(numbers),
    }


def check_table(
    name: str, table: Tensor, V: int, d_model: int | None = None
) -> tuple[int, int]:
    """Check that a tensor has one row per token.

    Args:
        name: the argument's name, for the message.
        table: the tensor.
        V: tokens of the vocabulary.
        d_model: the width of a row; ``None`` means any.

    Returns:
        Its shape.

    Raises:
        ValueError: if it has another shape.
    """
    if table.ndim != 2 or table.shape != (V, d_model or table.shape[1]):
        raise ValueError(
            f"{name} must have shape (V, d_model) = ({V}, {d_model or 'd_model'}), one row per"
            f" character of the vocabulary, got {tuple(table.shape)}"
        )
    return table.shape[0], table.shape[1]


def check_layer(layer: MultiHeadAttention, first: MultiHeadAttention, d_model: int) -> None:
    """Check that pagemodel.js can compute a layer.

    Args:
        layer: to be checked.
        first: whose heads and rope it must share.
        d_model: its width.

    Raises:
        ValueError: if it is of another kind or size.
    """
    if not isinstance(layer, MultiHeadAttention):
        raise ValueError(f"layers must be of MultiHeadAttention, got {type(layer).__name__}")
    if any(getattr(layer, name).bias is not None for name in PROJECTIONS):
        raise ValueError("layers must have no bias, got one with bias=True")
    if layer.q_proj.in_features != d_model:
        raise ValueError(
            f"layers must be as wide as embed, d_model = {d_model}, got"
            f" {layer.q_proj.in_features}"
        )
    sizes, expected = ((one.n_heads, one.head_dim, one.rope) for one in (layer, first))
    if sizes != expected:
        raise ValueError(
            f"layers must have the same n_heads, head_dim and rope, {expected}, got {sizes}"
        )
    if layer.rope is not None and layer.rope != Rope(layer.rope.base):
        raise ValueError(f"layers must have rope=Rope(base) or None, got {layer.rope}")


def pack_halves(numbers: Tensor) -> str:
    """Pack numbers into two bytes each, for ``unpackHalves`` in pagemodel.js.

    Args:
        numbers: any shape and float dtype.

    Returns:
        ``f16:`` and, in base64, the numbers in float16, little-endian.

    Raises:
        ValueError: if one is not finite in float16.
    """
    halves = numbers.half()
    if not halves.isfinite().all():
        largest = numbers.abs().max().item()
        raise ValueError(f"layers must have parameters below 65,520, got {largest:,.6g}")
    little = halves.numpy().astype("<f2").tobytes()
    return "f16:" + base64.b64encode(little).decode("ascii")


def ranges(vocabulary: str) -> str:
    """Return which characters a vocabulary has, in words such as "A to Z or 0 to 5".

    Args:
        vocabulary: the characters.

    Returns:
        Each run of neighbours by its ends, and the other characters one by one.
    """
    runs = []
    for _, run in itertools.groupby(enumerate(vocabulary), lambda item: ord(item[1]) - item[0]):
        letters = [letter for _, letter in run]
        runs += [f"{letters[0]} to {letters[-1]}"] if len(letters) > 2 else letters
    *some, last = runs
    return f"{', '.join(some)} or {last}" if some else last
