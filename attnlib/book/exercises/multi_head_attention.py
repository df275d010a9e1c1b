# ruff: noqa: D103  The hint of a mistake says what its function does.
"""Exercise on multi-head attention: split and merge heads."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from attnlib.book.exercises.grading import Grade, LayerExercise, Mistake
from attnlib.core import fused_attention, merge_heads, split_heads
from attnlib.variants.mha import MultiHeadAttention


def layer_with(
    split: Callable[[Tensor, int], Tensor], merge: Callable[[Tensor], Tensor]
) -> type[nn.Module]:
    """A multi-head layer with its own way to split and to merge the heads."""

    class Layer(MultiHeadAttention):
        def forward(self, x: Tensor) -> Tensor:
            projections = self.q_proj, self.k_proj, self.v_proj
            q, k, v = (split(project(x), self.n_heads) for project in projections)
            return self.o_proj(merge(fused_attention(q, k, v, causal=True)))

    return Layer


def split_by_view(x: Tensor, H: int) -> Tensor:
    return x.reshape(len(x), H, x.shape[1], -1)


def merge_by_view(x: Tensor) -> Tensor:
    return x.reshape(len(x), x.shape[2], -1)


def split_in_turns(x: Tensor, H: int) -> Tensor:
    return x.unflatten(-1, (-1, H)).permute(0, 3, 1, 2)


def merge_in_turns(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).flatten(2)


HEADS = LayerExercise(
    answer=layer_with(split_heads, merge_heads),
    build=lambda layer_class: layer_class(22, 6, head_dim=4),
    checks=("equals the reference", "no future leak", "reach", "permutation", "head grouping"),
    mistakes=[
        Mistake("one head as wide as all of them together: nothing is split.",
                layer_with(lambda x, H: x[:, None], merge_heads)),
        Mistake("the axes are never swapped. Attention runs over the second-to-last axis, so"
                " here the heads of one token attend to each other, and no token to another.",
                layer_with(lambda x, H: x.unflatten(-1, (H, -1)), lambda x: x.flatten(2))),
        Mistake("heads are split by a view alone, and merged right. View to (B, T, H, D), then"
                " swap the axes 1 and 2.", layer_with(split_by_view, merge_heads)),
        Mistake("heads are split right, and merged without swapping the axes back. (B, H, T,"
                " D) has to become (B, T, H, D) before the last two axes are joined.",
                layer_with(split_heads, merge_by_view)),
        Mistake("a view without a transpose on both sides. The two mistakes hide each other"
                " from the leak check: the sequence falls into blocks that do not see each"
                " other.", layer_with(split_by_view, merge_by_view)),
        Mistake("every H-th number goes to one head. A head has D numbers side by side: view"
                " to (B, T, H, D), not (B, T, D, H).", layer_with(split_in_turns, merge_heads)),
        Mistake("heads are split right, and merged number by number in turns. Each head's D"
                " numbers stay side by side.", layer_with(split_heads, merge_in_turns)),
        Mistake("every H-th number goes to one head, on both sides. The layer would train, but"
                " in the weights that others have stored a head is D rows side by side.",
                layer_with(split_in_turns, merge_in_turns)),
    ],
)  # fmt: skip


def grade_heads(layer_class: Callable[..., nn.Module]) -> Grade:
    """Grade a multi-head layer that splits and merges its heads itself (Multi-head attention).

    Args:
        layer_class: a subclass of :class:`~attnlib.variants.mha.MultiHeadAttention` with its
            own ``forward(x)``, causal, which returns the output.

    Returns:
        The grade.
    """
    return HEADS.grade(layer_class)
