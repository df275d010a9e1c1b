"""Exercises on rotary positions: rotate, stretch the base, and rotate after caching."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from attnlib.book.exercises.grading import Exercise, Grade, LayerExercise, Mistake
from attnlib.core import attention, merge_heads, split_heads
from attnlib.masks import causal_mask
from attnlib.rope import Rope, apply_rope, rope_angles
from attnlib.rope_scaling import DynamicNtkScaling
from attnlib.testing import FAILS, HOLDS, Report
from attnlib.variants.mha import MultiHeadAttention


def rotation(
    *,
    exponent: float = -2.0,
    place: Callable[[Tensor], Tensor] = lambda positions: positions,
    read: str = "halves",
    write: str = "halves",
    signs: tuple[int, int] = (-1, 1),
    reuse: bool = False,
) -> Callable[..., Tensor]:
    """An answer with one thing to get wrong at a time; the right one without arguments."""

    def rotate(x: Tensor, positions: Tensor, base: float) -> Tensor:
        D = x.shape[-1]
        speed = base ** (exponent * torch.arange(D // 2) / D)  # (D / 2,)
        angles = place(positions)[:, None] * speed  # (T, D / 2)
        cos, sin = angles.cos(), angles.sin()
        a, b = x.chunk(2, dim=-1) if read == "halves" else (x[..., 0::2], x[..., 1::2])
        first = a * cos + signs[0] * b * sin
        pair = first, signs[1] * (first if reuse else a) * sin + b * cos
        if write == "halves":
            return torch.cat(pair, dim=-1)
        return torch.stack(pair, dim=-1).flatten(-2)

    return rotate


def angles_of_neighbours(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """A wrong answer: halves make pairs, but two numbers side by side have one angle."""
    cos, sin = rope_angles(positions, x.shape[-1], base=base)
    cos, sin = cos.repeat_interleave(2, dim=-1), sin.repeat_interleave(2, dim=-1)
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin  # (B, H, T, D)


def rotate(x: Tensor, positions: Tensor, base: float) -> Tensor:
    """The right answer."""
    return apply_rope(x, *rope_angles(positions, x.shape[-1], base=base))


X = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))  # (B, H, T, D)

ROTATION = Exercise(
    answer=rotate,
    cases={
        "one pair (1, 0) at 1": (torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([1]), 10000.0),
        "(1, 0, 0, 1) at 3": (
            torch.tensor([[[[1.0, 0.0, 0.0, 1.0]]]]),
            torch.tensor([3]),
            100.0,
        ),
        "positions 0 to 4": (X, torch.arange(5), 10000.0),
        "one token, at 9": (X[:, :, :1], torch.tensor([9]), 10000.0),
        "20, 3, 11, base 500": (X[:, :, :3], torch.tensor([20, 3, 11]), 500.0),
    },
    mistakes=[
        Mistake("pairs of neighbours, the interleaved layout. Here number i pairs with i +"
                " D/2.", rotation(read="neighbours", write="neighbours")),
        Mistake("positions counted from 0 in each call. A token that is decoded alone keeps"
                " its place in the text: use the positions that are passed in.",
                rotation(place=lambda positions: torch.arange(len(positions)))),
        Mistake("turned clockwise: the two signs of the sine are exchanged. A pair (a, b)"
                " becomes (a cos - b sin, a sin + b cos).", rotation(signs=(1, -1))),
        Mistake("speeds that grow from pair to pair. A negative exponent makes later pairs"
                " slower.", rotation(exponent=2)),
        Mistake("one speed for all pairs. Pair i has the speed base^(-2i/D).",
                rotation(exponent=0)),
        Mistake("the exponent -i/D, with i = 0, 1, 2, ... It is -2i/D, from 0 nearly to -1.",
                rotation(exponent=-1)),
        Mistake("the exponent -4i/D: i counts pairs 0, 1, 2, ... and is multiplied by 2 once,"
                " or comes in steps of 2 already.", rotation(exponent=-4)),
        Mistake("halves are paired, but the angles are laid out for neighbours. Join the two"
                " halves with cat, and their angles too.", angles_of_neighbours),
        Mistake("read as halves and written as neighbours. Join them with cat, as they were"
                " cut.", rotation(write="neighbours")),
        Mistake("both signs positive. Then lengths change: a becomes a cos - b sin.",
                rotation(signs=(1, 1))),
        Mistake("the second line uses the a that the first line has turned already. Both need"
                " the old a.", rotation(reuse=True)),
        Mistake("read as neighbours and written as halves. Cut x with chunk, as you join it.",
                rotation(read="neighbours")),
        Mistake("positions counted from 1. The first token is at 0: use them as they are.",
                rotation(place=lambda positions: positions + 1)),
        Mistake("nothing is turned; x comes back as it was.", lambda x, positions, base: x),
    ],
)  # fmt: skip


def grade_rotation(function: Callable[[Tensor, Tensor, float], Tensor]) -> Grade:
    """Grade the rotation of queries or keys by their positions (Rotary positions).

    Args:
        function: takes ``(x, positions, base)``: x of shape ``(B, H, T, D)``, positions
            ``(T,)``, int64, and the base of the speeds; returns x with its half-split pairs
            turned.

    Returns:
        The grade.
    """
    return ROTATION.grade(function)


STRETCH = Exercise(
    answer=lambda base, dim, factor, pair: base * factor ** (dim / (2 * pair)),
    cases={
        "last of 64 pairs, by 4": (10000.0, 128, 4.0, 63),
        "pair 46 of 64, by 4": (10000.0, 128, 4.0, 46),
        "pair 46 of 64, by 1": (10000.0, 128, 1.0, 46),
        "pair 1 of 4, by 3": (100.0, 8, 3.0, 1),
    },
    mistakes=[
        Mistake("the base times the factor. The speed of pair i is base^(-2i/D), so only a"
                " part of the factor reaches it.",
                lambda base, dim, factor, pair: base * factor),
        Mistake("the chapter's base, which slows the last pair by the factor, whichever pair"
                " is wanted.",
                lambda base, dim, factor, pair: base * factor ** (dim / (dim - 2))),
        Mistake("the exponent 2p/D instead of D/(2p). Solve for the new base, then test.",
                lambda base, dim, factor, pair: base * factor ** (2 * pair / dim)),
        Mistake("the pair counted from 1. Pair 0 is the first; no base changes its speed.",
                lambda base, dim, factor, pair: base * factor ** (dim / (2 * (pair + 1)))),
        Mistake("the exponent D/p. A pair is two numbers wide, so i is multiplied by 2.",
                lambda base, dim, factor, pair: base * factor ** (dim / pair)),
        Mistake("a smaller base, which makes the pair faster. The factor is to slow it down.",
                lambda base, dim, factor, pair: base * factor ** (-dim / (2 * pair))),
        Mistake("D // (2p), which rounds the exponent down to a whole number. Divide with /,"
                " and not with //.",
                lambda base, dim, factor, pair: base * factor ** (dim // (2 * pair))),
    ],
)  # fmt: skip


def grade_stretch(function: Callable[[float, int, float, int], float]) -> Grade:
    """Grade the base at which a chosen pair is slowed by a factor (Rotary positions).

    Args:
        function: takes ``(base, dim, factor, pair)``; returns the base to use instead of
            ``base``, so that the pair, counted from 0, is slower by ``factor``.

    Returns:
        The grade.
    """
    return STRETCH.grade(function)


class LateRotation(MultiHeadAttention):
    """A layer that caches its keys unturned, and turns all of them in every call."""

    def forward(self, x: Tensor, cache=None, *, causal: bool = True) -> Tensor:
        """Attend; the arguments are those of every layer."""
        projections = self.q_proj, self.k_proj, self.v_proj
        q, k, v = (split_heads(project(x), self.n_heads) for project in projections)
        start = 0 if cache is None else cache.seen
        if cache is not None:
            k, v, _ = cache.update(k, v)
        S = k.shape[2]
        (q,) = self.rope.rotate(q, start=start, length=S)
        (k,) = self.rope.rotate(k, start=0, length=S)
        mask = causal_mask(torch.arange(start, S), torch.arange(S)) if causal else None
        return self.o_proj(merge_heads(attention(q, k, v, mask=mask)[0]))


def follows_the_base(layer: nn.Module) -> Report:
    """Check that a layer's cached keys follow a base that changes with the text."""
    check, tokens = "base of the moment", 12
    layer = copy.deepcopy(layer)
    layer.rope = Rope(scaling=DynamicNtkScaling(1.0, 4))
    differences = {}
    with torch.no_grad():
        x = 3 * torch.randn(2, tokens, 22, generator=torch.Generator().manual_seed(0))
        expected = layer(x)[:, -1:]
        for capacity in (tokens, 4 * tokens):
            cache = layer.new_cache(2, capacity)
            last = [layer(x[:, t : t + 1], cache) for t in range(tokens)][-1]
            differences[capacity] = (last - expected).abs().max().item()
    wrong = [capacity for capacity, off in differences.items() if off > 1e-4]
    if not wrong:
        found = f"dynamic NTK: the last of {tokens} tokens gets what one pass gives it"
        return Report(check, HOLDS, found)
    found = (
        f"dynamic NTK, {tokens} tokens one by one, a cache for {wrong[0]}: the last output is"
        f" off by {differences[wrong[0]]:.2g} from one pass"
    )
    hint = (
        "keys were turned before they were stored, or with a length that is not the number of"
        " tokens so far, such as the cache's capacity."
    )
    return Report(check, FAILS, found, hint)


LATE_ROTATION = LayerExercise(
    answer=LateRotation,
    build=lambda layer_class: layer_class(22, 6, head_dim=4, rope=Rope()),
    checks=(
        "equals the reference",
        "no future leak",
        "reach",
        "permutation",
        "cached = uncached",
        "batch = its rows",
        "cache bytes",
    ),
    last_check=follows_the_base,
)


def grade_late_rotation(layer_class: Callable[..., nn.Module]) -> Grade:
    """Grade a layer that caches unturned keys and turns them late (Rotary positions).

    Args:
        layer_class: a subclass of :class:`~attnlib.variants.mha.MultiHeadAttention` with its
            own ``forward``.

    Returns:
        The grade. Whether keys follow a changing base is checked once all else is right.
    """
    return LATE_ROTATION.grade(layer_class)
