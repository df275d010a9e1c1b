"""Exercise on multi-head latent attention: one decode step in absorbed form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from attnlib.book.exercises.grading import Exercise, Grade, Mistake, combined

LAYOUTS = (
    lambda weight, H, n: weight.view(H, -1, weight.shape[1]).tensor_split([n], dim=1),
    Mistake(
        "the value rows read as key rows. In each head W_UK comes first.",
        lambda weight, H, n: weight.view(H, -1, weight.shape[1]).split(
            [len(weight) // H - n, n], dim=1
        )[::-1],
    ),
    Mistake(
        "W_UK of all heads first, then W_UV. The rows go head by head, W_UK and then W_UV.",
        lambda weight, H, n: (
            weight[: H * n].view(H, n, -1),
            weight[H * n :].view(H, -1, weight.shape[1]),
        ),
    ),
    Mistake(
        "heads innermost in the rows of weight. They are outermost: view(H, d_h + D_v, d_c).",
        lambda weight, H, n: (
            weight.view(-1, H, weight.shape[1]).transpose(0, 1).tensor_split([n], dim=1)
        ),
    ),
    Mistake(
        "the width d_c before the rows of a head. It is the last axis: (H, d_h + D_v, d_c).",
        lambda weight, H, n: weight.view(H, weight.shape[1], -1).mT.tensor_split([n], dim=1),
    ),
    Mistake("W_UK for the result as well. Mixed latents go through W_UV.",
            lambda weight, H, n: (weight.view(H, -1, weight.shape[1])[:, :n],) * 2),
)  # fmt: skip
ROWS = (
    lambda entries, d_c: (entries[..., :d_c], entries[..., d_c:]),
    Mistake("the rotary key read as the first part of a row. The latent comes first.",
            lambda entries, d_c: (entries[..., -d_c:], entries[..., :-d_c])),
    Mistake("only the first row is seen, as with is_causal=True and one query. Use no mask.",
            lambda entries, d_c: (entries[:, :, :1, :d_c], entries[:, :, :1, d_c:])),
)  # fmt: skip
ROTARY = (
    lambda scores: scores,
    Mistake("the rotary part is left out. Add its scores.", torch.zeros_like),
)
SCALES = (  # content and position are divided by the roots of these
    lambda n, d_r, d_c: (n + d_r, n + d_r),
    Mistake("the scale of the latent key, d_c + d_r. The scores are those of the expanded"
            " heads, so divide by the square root of d_h + d_r.",
            lambda n, d_r, d_c: (d_c + d_r, d_c + d_r)),
    Mistake("the scale of the latent alone. Divide by the square root of d_h + d_r.",
            lambda n, d_r, d_c: (d_c, d_c)),
    Mistake("a scale without the rotary width: use d_h + d_r.", lambda n, d_r, d_c: (n, n)),
    Mistake("scores that are not scaled. Divide by the square root of d_h + d_r.",
            lambda n, d_r, d_c: (1, 1)),
    Mistake("the scale without its root. Divide by the square root of d_h + d_r.",
            lambda n, d_r, d_c: ((n + d_r) ** 2, (n + d_r) ** 2)),
    Mistake("each part scaled by its own width. Add both, then divide by root (d_h + d_r).",
            lambda n, d_r, d_c: (n, d_r)),
)  # fmt: skip
SOFTMAX = (
    lambda scores: scores.softmax(dim=-1),
    Mistake("no softmax. It turns the scores into weights.", lambda scores: scores),
    Mistake("softmax over the heads, not the cached rows.",
            lambda scores: scores.softmax(dim=1)),
    Mistake("softmax over the one query, not the rows.", lambda scores: scores.softmax(dim=2)),
    Mistake("softmax over axis 0, the sequences of the batch, and not over the cached rows.",
            lambda scores: scores.softmax(dim=0)),
)  # fmt: skip
PARTS = (LAYOUTS, ROWS, ROTARY, SCALES, SOFTMAX)


def decode_step(
    layout: Callable, rows: Callable, rotary: Callable, scale: Callable, softmax: Callable
) -> Callable[..., Tensor]:
    """An answer made of five parts."""

    def step(q_nope: Tensor, q_rope: Tensor, entries: Tensor, weight: Tensor) -> Tensor:
        H, n, d_r, d_c = q_nope.shape[1], q_nope.shape[3], q_rope.shape[3], weight.shape[1]
        w_uk, w_uv = layout(weight, H, n)  # (H, d_h, d_c), (H, D_v, d_c)
        latent, k_rope = rows(entries[:, None], d_c)  # (B, 1, S, ...)
        of_content, of_position = scale(n, d_r, d_c)
        scores = q_nope @ w_uk @ latent.mT / of_content**0.5  # (B, H, 1, S)
        scores = scores + rotary(q_rope @ k_rope.mT) / of_position**0.5
        return softmax(scores) @ latent @ w_uv.mT

    return step


def arguments(B: int, H: int, n: int, d_r: int, v: int, d_c: int, S: int) -> tuple[Tensor, ...]:
    """Random arguments of a step of these sizes."""
    generator = torch.Generator().manual_seed(S)
    shapes = (B, H, 1, n), (B, H, 1, d_r), (B, S, d_c + d_r), (H * (n + v), d_c)
    return tuple(torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)


ABSORBED = Exercise(
    answer=decode_step(*(part[0] for part in PARTS)),
    cases={
        "one head": arguments(1, 1, 4, 2, 4, 5, 6),
        "4 heads": arguments(1, 4, 6, 2, 6, 5, 9),
        "2 rows, other widths": arguments(2, 3, 4, 2, 6, 7, 8),
    },
    mistakes=combined(decode_step, *PARTS),
)


def grade_absorbed(function: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Grade:
    """Grade one decode step of latent attention in absorbed form (Multi-head latent attention).

    Args:
        function: takes ``(q_nope, q_rope, entries, weight)``, the queries of one new token,
            the rows of the cache and the weight of ``kv_b_proj``, with the shapes that
            :class:`~attnlib.variants.mla.MultiHeadLatentAttention` gives them; returns the
            output, shape ``(B, H, 1, v_head_dim)``.

    Returns:
        The grade. Only results are compared, so an expanded step that is right passes too.
    """
    return ABSORBED.grade(function)
