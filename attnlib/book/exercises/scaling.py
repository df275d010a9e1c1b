"""Exercises on the scaling: the scale of a fresh layer, and attention with QK-norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attnlib.book.exercises.grading import (
    Exercise,
    FunctionLayer,
    Grade,
    LayerExercise,
    Mistake,
    attention_layer,
    combined,
)
from attnlib.core import attention
from attnlib.testing import FAILS, HOLDS, TOLERANCE, Report

WIDTHS = (
    lambda d_model, H, D: D,
    Mistake("the width of the model. A score has one head's D terms.", lambda d, H, D: d),
    Mistake("d_model / n_heads for a head's width. It is head_dim.", lambda d, H, D: d / H),
    Mistake("the width of all heads. Each has its own softmax.", lambda d, H, D: H * D),
)
SPREADS = (
    lambda q, k: q * k,
    Mistake("entries of variance 1, whatever the spreads are.", lambda q, k: 1),
    Mistake("variances where standard deviations belong. If a query is twice as long, so is"
            " the score, not four times.", lambda q, k: (q * k) ** 2),
    Mistake("the root of the spreads. Divide by q_std and k_std.", lambda q, k: (q * k) ** 0.5),
    Mistake("the spread of the queries alone. Keys are a factor, too.", lambda q, k: q),
    Mistake("the sum of the spreads. Query and key are multiplied.", lambda q, k: q + k),
    Mistake("multiplied by the spreads. Divide by them.", lambda q, k: 1 / (q * k)),
)  # fmt: skip
DIRECTIONS = (
    lambda width, spread: width**-0.5 / spread,
    Mistake("no root. Variances add up, so the size of a sum of D terms grows with the root of"
            " D.", lambda width, spread: 1 / width / spread),
    Mistake("the variance of the scores where its root belongs.",
            lambda width, spread: 1 / (width * spread**2)),
    Mistake("how large a score is. The scale has to undo that: divide by it.",
            lambda width, spread: width**0.5 * spread),
)  # fmt: skip


def scale(width: Callable, spread: Callable, direction: Callable) -> Callable[..., float]:
    """An answer made of three parts."""
    return lambda d_model, n_heads, head_dim, q_std, k_std: direction(
        width(d_model, n_heads, head_dim), spread(q_std, k_std)
    )


SCALE = Exercise(
    answer=lambda d_model, n_heads, head_dim, q_std, k_std: head_dim**-0.5 / (q_std * k_std),
    cases={
        "512 wide, 8 x 64": (512, 8, 64, 1.0, 1.0),
        "3072 wide, 16 x 256": (3072, 16, 256, 1.0, 1.0),
        "queries of spread 2": (512, 8, 64, 2.0, 1.0),
        "keys of spread 0.5": (512, 8, 64, 1.0, 0.5),
        "nn.Linear's start": (2560, 32, 128, 3**-0.5, 3**-0.5),
        "both spreads": (4096, 16, 128, 1.5, 3.0),
    },
    mistakes=combined(scale, WIDTHS, SPREADS, DIRECTIONS),
)


def grade_scale(function: Callable[[int, int, int, float, float], float]) -> Grade:
    """Grade the scale that gives scores of variance 1 (The scaling).

    Args:
        function: takes ``(d_model, n_heads, head_dim, q_std, k_std)``, the last two the
            standard deviations of the entries of queries and keys, which are independent and of
            mean 0; returns the factor on the scores.

    Returns:
        The grade.
    """
    return SCALE.grade(function)


def normed_attention(
    norm_q: Callable[[Tensor], Tensor],
    norm_k: Callable[[Tensor], Tensor],
    *,
    norm_v: Callable[[Tensor], Tensor] = lambda v: v,
    scale: float | None = None,
) -> Callable[..., tuple[Tensor, Tensor]]:
    """Attention with a function on queries, on keys and on values."""
    return lambda q, k, v, mask=None: attention(
        norm_q(q), norm_k(k), norm_v(v), mask=mask, scale=scale
    )


def rms(*axes: int) -> Callable[[Tensor], Tensor]:
    """Division by the root of the mean square over axes."""
    return lambda x: x * x.square().mean(dim=axes, keepdim=True).rsqrt()


def unchanged(x: Tensor) -> Tensor:
    """The tensor itself."""
    return x


def unit(x: Tensor) -> Tensor:
    """Vectors of length 1."""
    return F.normalize(x, dim=-1)


def both(norm: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Attention with one function on queries and keys."""
    return normed_attention(norm, norm)


def longer(what: str) -> Callable[[FunctionLayer], Report]:
    """A check that three times longer queries, or keys, change no output."""

    def check(layer: FunctionLayer) -> Report:
        generator = torch.Generator().manual_seed(0)
        q, k, v = torch.randn(3, 2, 6, 7, 4, generator=generator, dtype=torch.float64)
        mask = torch.ones(7, 7).tril().bool()
        results = [
            layer.function(q, k, v, mask=mask),
            layer.function(*((3 * q, k) if what == "queries" else (q, 3 * k)), v, mask=mask),
        ]
        before, after = (r[0] if isinstance(r, tuple) else r for r in results)
        change = (after - before).abs().max().item()
        name, text = f"longer {what}", f"{what} three times as long"
        if change < 100 * TOLERANCE:  # a norm may add a little before it divides
            return Report(name, HOLDS, f"{text} change no output")
        hint = f"the {what} have to be normalised before they are compared."
        return Report(name, FAILS, f"{text} move the output by {change:.2g}", hint)

    return check


QK_NORM = LayerExercise(
    answer=both(rms(-1)),
    build=attention_layer,
    checks=(
        "equals the reference",
        "no future leak",
        "rows sum to one",
        "scale",
        longer("queries"),
        longer("keys"),
    ),
    mistakes=[
        Mistake("queries and keys are used as they came.", both(unchanged)),
        Mistake("the queries are normalised and the keys are not. One long key would win every"
                " query.", normed_attention(rms(-1), unchanged)),
        Mistake("the keys are normalised and the queries are not.",
                normed_attention(unchanged, rms(-1))),
        Mistake("vectors of length 1, and then the scale 1 / sqrt(D) as well. Scores stay"
                " within 1 / sqrt(D), and the weights are nearly equal. Normalised entries have"
                " a mean square of 1, so the length is sqrt(D).", both(unit)),
        Mistake("vectors of length 1 without a scale. Normalised entries have a mean square of"
                " 1, so the length is sqrt(D), and the scores are divided by sqrt(D).",
                normed_attention(unit, unit, scale=1.0)),
        Mistake("no scale after the norm. The norm undoes a scale that the query got before"
                " it.", normed_attention(rms(-1), rms(-1), scale=1.0)),
        Mistake("the values are normalised as well. They carry what is mixed; scores come from"
                " queries and keys alone.", normed_attention(rms(-1), rms(-1), norm_v=rms(-1))),
        Mistake("the mean is subtracted first. That is layer norm; here only the size is"
                " changed.", both(lambda x: rms(-1)(x - x.mean(dim=-1, keepdim=True)))),
        Mistake("normalised along the tokens. Then a token changes its neighbours, later ones"
                " as well. The entries of one vector lie along the last axis.", both(rms(2))),
        Mistake("normalised along the heads. The entries of one head's vector lie along the"
                " last axis.", both(rms(1))),
        Mistake("one size for all heads of a token. Each head's vector is normalised by"
                " itself.", both(rms(1, 3))),
        Mistake("one size for the whole tensor, later tokens included. Each vector of D"
                " numbers is normalised by itself, along the last axis.",
                both(rms(0, 1, 2, 3))),
        Mistake("divided by the mean of the squares instead of its root.",
                both(lambda x: x / x.square().mean(dim=-1, keepdim=True))),
    ],
)  # fmt: skip


def grade_qk_norm(function: Callable[..., object]) -> Grade:
    """Grade attention that normalises queries and keys (The scaling).

    Args:
        function: as in :class:`attnlib.book.exercises.grading.FunctionLayer`.

    Returns:
        The grade.
    """
    return QK_NORM.grade(function)
