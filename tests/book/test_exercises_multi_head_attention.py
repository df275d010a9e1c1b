"""Split and merge heads: the checks tell the view traps apart."""

import torch.nn.functional as F
from grades import hint_of

from attnlib import MultiHeadAttention
from attnlib.book.exercises import grade_heads


def heads_layer(split, merge, causal=True):
    class MyHeads(MultiHeadAttention):
        def forward(self, x):
            B, T, _ = x.shape
            H, D = self.n_heads, self.head_dim
            q, k, v = (split(p(x), B, T, H, D) for p in (self.q_proj, self.k_proj, self.v_proj))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            return self.o_proj(merge(out, B, T, H, D))

    return MyHeads


def split_by_view(x, B, T, H, D):
    return x.view(B, H, T, D)


def right_split(x, B, T, H, D):
    return x.view(B, T, H, D).transpose(1, 2)


def merge_by_view(x, B, T, H, D):
    return x.reshape(B, T, H * D)


def right_merge(x, B, T, H, D):
    return x.transpose(1, 2).reshape(B, T, H * D)


def test_right_heads():
    assert grade_heads(heads_layer(right_split, right_merge)).solved


def test_checks_tell_the_three_view_traps_apart():
    """Catches checks that see a lost transpose and not which one is lost."""
    grades = {
        where: grade_heads(heads_layer(split, merge))
        for where, split, merge in (
            ("split", split_by_view, right_merge),
            ("merge", right_split, merge_by_view),
            ("both", split_by_view, merge_by_view),
        )
    }
    assert "split by a view alone" in hint_of(grades["split"])
    assert "merged without swapping" in hint_of(grades["merge"])
    assert "on both sides" in hint_of(grades["both"])
    failed = {where: grade.reports.failed for where, grade in grades.items()}
    assert "no future leak" in failed["split"]
    assert "no future leak" in failed["merge"]
    assert "no future leak" not in failed["both"]
    assert "reach" in failed["both"]


def test_heads_that_see_the_future_are_not_solved():
    grade = grade_heads(heads_layer(right_split, right_merge, causal=False))
    assert "no future leak" in grade.reports.failed
