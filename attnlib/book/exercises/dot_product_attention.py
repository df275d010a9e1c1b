"""Exercise on dot-product attention: from one head to a batch, and rows without a key."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from attnlib.book.exercises.grading import (
    ATTENTION_CHECKS,
    FunctionLayer,
    Grade,
    LayerExercise,
    Mistake,
    attention_layer,
    output_and_weights,
    whole_output,
)
from attnlib.core import attention
from attnlib.testing import FAILS, HOLDS, TOLERANCE, BrokenError, Report, in_words

EMPTY_ROW, OTHER_SCALE = 2, 0.3  # of the calls below
SHAPE = (2, 6, 7, 4)  # B, H, T = S, D

Attention = Callable[..., tuple[Tensor, Tensor]]


def attend(
    *,
    factor: Callable[[Tensor, float | None], float] = lambda q, scale: (
        scale or q.shape[3] ** -0.5
    ),
    mask_of: Callable[[Tensor], Tensor] = lambda mask: mask,
    hidden_score: float = float("-inf"),
    hide_after: bool = False,
    axis: int = -1,
    empty: Callable[[Tensor, Tensor], Tensor] = lambda weights, mask: weights * mask,
) -> Attention:
    """An answer made of its steps, of which any may be wrong.

    Args:
        factor: of the scores, from q and the argument ``scale``.
        mask_of: the mask that is used, from the one that is given.
        hidden_score: what replaces a hidden score.
        hide_after: whether weights are hidden instead of scores.
        axis: of the softmax.
        empty: the weights in the end, from those of the softmax and the mask.

    Returns:
        A function ``(q, k, v, mask=None, scale=None)``.
    """

    def answer(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, scale: float | None = None
    ) -> tuple[Tensor, Tensor]:
        scores = q @ k.mT * factor(q, scale)  # (B, H, T, S)
        shown = torch.ones_like(scores).bool() if mask is None else mask_of(mask)
        if not hide_after:
            scores = scores.masked_fill(~shown, hidden_score)
        weights = empty(scores.softmax(dim=axis), shown)  # (B, H, T, S)
        return weights @ v, weights

    return answer


def zeros(weights: Tensor, mask: Tensor) -> Tensor:
    """The weights with zeros where the mask hides a key, also where the softmax gave NaN."""
    return weights.masked_fill(~mask, 0.0)


def called(layer: FunctionLayer, **options: object) -> tuple[Tensor, Tensor]:
    """Call the function of a layer with random q, k and v; return its output and weights."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, *SHAPE, generator=generator, dtype=torch.float64)
    result = layer.function(q, k, v, **options)
    out, weights = output_and_weights(result, q.shape, n_keys=k.shape[2])
    return out, out if weights is None else weights


def empty_row() -> Tensor:
    """A causal mask, one row of which hides all keys, shape ``(T, S)``."""
    mask = torch.ones(SHAPE[2], SHAPE[2]).tril().bool()
    mask[EMPTY_ROW] = False
    return mask


def no_visible_key(layer: FunctionLayer) -> Report:
    """Check that a query that sees no key gets zeros in its output and its weights."""
    name = "no visible key"
    try:
        out, weights = called(layer, mask=empty_row())
    except BrokenError as finding:
        return Report(name, FAILS, str(finding), finding.hint)
    rows = torch.cat([out[..., EMPTY_ROW, :], weights[..., EMPTY_ROW, :]], dim=-1)
    if rows.isnan().any():
        found = "its output or its weights have NaN"
    elif rows.abs().max() > 0:
        found = f"its weights are up to {weights[..., EMPTY_ROW, :].max():.2f}"
    else:
        return Report(name, HOLDS, "zeros in its output and in its weights")
    return Report(name, FAILS, found, "make zeros of its weights after the softmax.")


def scale_argument(layer: FunctionLayer) -> Report:
    """Check that the argument ``scale`` replaces the usual scale."""
    name, reference = "scale argument", attention_layer(attention)
    hint = "the function takes `scale=None`; a number is used as it is, None means 1 / sqrt(D)."
    try:
        out, _ = called(layer, scale=OTHER_SCALE)
    except BrokenError as finding:
        return Report(name, FAILS, str(finding), finding.hint)
    except TypeError as error:
        return Report(name, FAILS, in_words(error), hint)
    off = (out - called(reference, scale=OTHER_SCALE)[0]).abs().max().item()
    if off < TOLERANCE:
        return Report(name, HOLDS, f"scale={OTHER_SCALE} is used as given")
    return Report(name, FAILS, f"with scale={OTHER_SCALE} the output is off by {off:.2g}", hint)


def three_calls(layer: nn.Module) -> Iterator[object]:
    """The outputs that tell mistakes apart: a whole pass, an empty row, another scale."""
    assert isinstance(layer, FunctionLayer)
    yield from whole_output(layer)
    yield called(layer, mask=empty_row())
    yield called(layer, scale=OTHER_SCALE)


BATCHED_ATTENTION = LayerExercise(
    answer=attend(empty=zeros),
    build=attention_layer,
    checks=(*ATTENTION_CHECKS, no_visible_key, scale_argument),
    outputs=three_calls,
    mistakes=[
        Mistake("a row without a visible key is NaN, because softmax divides 0 by 0 there.",
                attend()),
        Mistake("hidden scores are large negative numbers, and a query that sees no key gives"
                " equal weights to all of them. Set hidden weights to 0 after the softmax too.",
                attend(hidden_score=-1e9, empty=lambda weights, mask: weights)),
        Mistake("hidden scores are 0, which is a score like any other. Use -infinity.",
                attend(hidden_score=0.0, empty=lambda weights, mask: weights)),
        Mistake("hidden after the softmax. The visible weights of a row then sum to less than"
                " 1, so hide scores before it.", attend(hide_after=True, empty=zeros)),
        Mistake("the mask is inverted. Here True = may attend.",
                attend(mask_of=torch.logical_not, empty=zeros)),
        Mistake("the mask is not used.", attend(mask_of=torch.ones_like, empty=zeros)),
        Mistake("softmax over the queries. The weights of one query sum to 1, so it runs along"
                " the last axis, over the keys.", attend(axis=-2, empty=zeros)),
        Mistake("no scale unless one is given. None means 1 / sqrt(D).",
                attend(factor=lambda q, scale: scale or 1.0, empty=zeros)),
        Mistake("1 / sqrt of the number of heads. In a batch the width is the last axis of q.",
                attend(factor=lambda q, scale: scale or q.shape[1] ** -0.5, empty=zeros)),
        Mistake("1 / sqrt of the number of tokens. The width is the last axis of q.",
                attend(factor=lambda q, scale: scale or q.shape[2] ** -0.5, empty=zeros)),
        Mistake("the argument scale is not used.",
                attend(factor=lambda q, scale: q.shape[3] ** -0.5, empty=zeros)),
        Mistake("1 / sqrt(D) as well as the given scale. A given scale replaces it.",
                attend(factor=lambda q, scale: (scale or 1.0) * q.shape[3] ** -0.5,
                       empty=zeros)),
        Mistake("divided by the given scale. Scores are multiplied by it.",
                attend(factor=lambda q, scale: 1 / (scale or q.shape[3] ** 0.5), empty=zeros)),
    ],
)  # fmt: skip


def grade_batched_attention(function: Attention) -> Grade:
    """Grade attention over a batch, with empty rows and a scale (Dot-product attention).

    Args:
        function: as in :class:`attnlib.book.exercises.grading.FunctionLayer`, with one more
            argument, ``scale``: the factor on the scores; ``None`` means 1 / sqrt(D).

    Returns:
        The grade.
    """
    return BATCHED_ATTENTION.grade(function)
