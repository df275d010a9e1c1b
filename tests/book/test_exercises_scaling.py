"""QK-norm: right norms are solved, and the checks tell queries from keys."""

import pytest
import torch.nn.functional as F
from grades import hint_of, one_line

from attnlib import attention
from attnlib.book.exercises import grade_qk_norm, grade_scale


def sized(x, dim=-1):
    return x / x.pow(2).mean(dim, keepdim=True).sqrt()


def with_norms(norm_q, norm_k=None, factor=None):
    def by_hand(q, k, v, mask=None):
        scale = q.shape[-1] ** -0.5 if factor is None else factor
        scores = norm_q(q) @ (norm_k or norm_q)(k).transpose(-2, -1) * scale
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(-1)
        return weights @ v, weights

    return by_hand


def test_two_mistakes_in_the_scale_are_named_together():
    hint = hint_of(grade_scale(lambda d_model, n_heads, D, q_std, k_std: 1 / D))
    assert "(1) entries of variance 1" in hint and "(2) no root" in hint


@pytest.mark.parametrize(
    "function",
    [with_norms(sized), with_norms(lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-6))],
    ids=["by hand", "F.rms_norm"],
)
def test_right_norm(function):
    grade = grade_qk_norm(function)
    assert grade.solved
    assert [r.check for r in grade.reports][-2:] == ["longer queries", "longer keys"]


def test_a_scale_before_the_norm_is_named():
    """Catches a hint that only the exercise's own code gets."""
    halved = with_norms(lambda q: sized(q / 2), sized, factor=1.0)
    assert "no scale after the norm" in hint_of(grade_qk_norm(halved))


def test_a_norm_of_one_side_is_noticed_by_the_other():
    """Catches a check of longer keys that lengthens the queries, and the reverse."""
    failed = grade_qk_norm(with_norms(sized, lambda x: x)).reports.failed
    assert "longer keys" in failed
    assert "longer queries" not in failed


def test_norm_without_a_mask_leaks():
    grade = grade_qk_norm(lambda q, k, v, mask=None: attention(sized(q), sized(k), v))
    assert "no future leak" in grade.reports.failed


def test_norm_that_stops_is_told_where():
    grade = grade_qk_norm(lambda q, k, v, mask=None: sized(q) @ sized(k))
    assert "It stopped at the line" in one_line(grade)
