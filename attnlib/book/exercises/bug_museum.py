"""Exercise of the bug museum: write a check that a cache changes no output."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from attnlib.book.exercises.grading import Exercise, Grade, Mistake
from attnlib.book.museum import (
    BUGS,
    GROUPED,
    LATENT,
    ReferenceAttention,
    ReferenceLatentAttention,
)
from attnlib.rope import Rope
from attnlib.testing import CHECKS, HOLDS, TOKENS, hidden, in_steps, prepared


def layers() -> dict[str, tuple[nn.Module]]:
    """The layers to check, in float64; those that are wrong elsewhere have right caches."""
    with torch.random.fork_rng(devices=[]):
        made = {
            "right": ReferenceAttention(**GROUPED),
            "right, with RoPE": ReferenceAttention(**GROUPED, rope=Rope()),
            "right, latents": ReferenceLatentAttention(**LATENT),
            "tiled heads": BUGS["repeat for repeat_interleave"].build(),
            "expanded cache": BUGS["cache of expanded heads"].build(),
            "RoPE restarts": BUGS["RoPE restarts at decode"].build(),
            "mask restarts": BUGS["mask restarts with a cache"].build(),
            "no mask in a chunk": BUGS["no mask with a cache"].build(),
            "one memory for all": BUGS["one memory for all sequences"].build(),
            "latents not normed": BUGS["latent cached before norm"].build(),
            "rotary keys lost": BUGS["rotary key not cached"].build(),
        }
    return {name: (prepared(layer),) for name, layer in made.items()}


def in_calls_of(*plans: list[int], batch_size: int = 3) -> Callable[[nn.Module], bool]:
    """A check of some ways to split the tokens into calls."""

    def check(layer: nn.Module) -> bool:
        x = hidden(layer)[:batch_size]
        with torch.no_grad():
            expected = layer(x)
            return all(torch.allclose(in_steps(layer, x, plan), expected) for plan in plans)

    return check


CACHE_CHECK = Exercise(
    answer=lambda layer: CHECKS["cached = uncached"](layer).verdict == HOLDS,
    cases=layers(),
    mistakes=[
        Mistake("every layer passes. Let the tokens come in several calls, and compare with"
                " one call.", lambda layer: True),
        Mistake("no layer passes. Compare to rounding, with torch.allclose, and take a new"
                " cache for each try.", lambda layer: False),
        Mistake("a single call. A cache shows its mistakes when it is read, so at least two"
                " calls are needed.", in_calls_of([TOKENS])),
        Mistake("a single token at a time after the cached ones, or only the last output"
                " compared. Neither can miss a mask: take steps of several tokens, and compare"
                " all outputs.", in_calls_of([1] * TOKENS)),
        Mistake("a single sequence. What the sequences of a batch share shows only if there"
                " are two.", in_calls_of([1] * TOKENS, [3, TOKENS - 3], batch_size=1)),
        Mistake("a single sequence, and a single token at a time. Take a batch, and steps of"
                " several tokens too.", in_calls_of([1] * TOKENS, batch_size=1)),
    ],
)  # fmt: skip


def grade_cache_check(function: Callable[[nn.Module], bool]) -> Grade:
    """Grade a check that a cache changes no output (The bug museum).

    Args:
        function: takes a layer; returns whether tokens that come in several calls, with a
            cache, get the outputs that they get in one call.

    Returns:
        The grade. Wrong layers whose caches are right have to pass.
    """
    return CACHE_CHECK.grade(function)
