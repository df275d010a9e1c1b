"""Parts merged, and keys in one pass: right answers of any kind, and wrong ones named."""

import pytest
import torch
from grades import hint_of, one_line

from attnlib.blocks import attention_in_blocks
from attnlib.book.exercises import grade_merge, grade_one_pass


def test_the_librarys_blocks_solve_it():
    """Catches a grader that wants another log-sum-exp or another output."""

    def by_library(scores, values, block_size):
        q = torch.eye(len(scores)).to(scores)[None, None]  # so that q k^T are the scores
        out, lse = attention_in_blocks(
            q, scores.T.contiguous()[None, None], values[None, None], scale=1.0,
            block_size=block_size,
        )  # fmt: skip
        return out[0, 0], lse[0, 0]

    assert grade_one_pass(by_library).solved


def right(out_a, lse_a, out_b, lse_b):
    lse = torch.logaddexp(lse_a, lse_b)
    return out_a * (lse_a - lse).exp()[:, None] + out_b * (lse_b - lse).exp()[:, None]


def over_one_maximum(out_a, lse_a, out_b, lse_b):
    a, b = (torch.exp(lse - max(lse_a.max(), lse_b.max()))[:, None] for lse in (lse_a, lse_b))
    return (a * out_a + b * out_b) / (a + b)


@pytest.mark.parametrize("merge", [right, over_one_maximum])
def test_a_right_merge_solves_it(merge):
    assert grade_merge(merge).solved


def test_a_softmax_along_the_last_axis_is_named():
    """Catches a hint that only the exercise's own code gets."""

    def merge(out_a, lse_a, out_b, lse_b):
        share = torch.stack([lse_a, lse_b]).softmax(dim=-1)[..., None]
        return share[0] * out_a + share[1] * out_b

    assert "softmax over the queries" in hint_of(grade_merge(merge))


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        (lambda *given: right(*given).T, "the shape is (6, 4), expected (4, 6)"),
        (lambda *given: right(*given)[None], "expected (4, 6); the numbers are right"),
        (lambda *given: right(*given).tolist(), "a tensor of shape (4, 6), got a list of 4"),
        (lambda *given: right(*given).long(), "their dtype is torch.int64"),
        (lambda a, x, b, y: a @ b, "with RuntimeError"),
    ],
)
def test_other_answers_are_described(merge, words):
    grade = grade_merge(merge)
    assert hint_of(grade) == ""
    assert words in one_line(grade)
