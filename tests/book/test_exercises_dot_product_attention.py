"""Batches and merges: right code is solved, other answers are described."""

import pytest
import torch
from grades import one_line

from attnlib.book.exercises import grade_batched_attention


def lowest_and_zeros(q, k, v, mask=None, scale=None):
    scores = q @ k.transpose(-2, -1) * (q.size(-1) ** -0.5 if scale is None else scale)
    if mask is None:
        return scores.softmax(-1) @ v, scores.softmax(-1)
    weights = torch.where(mask, scores, torch.finfo(scores.dtype).min).softmax(-1)
    weights = torch.where(mask, weights, 0.0)
    return weights @ v, weights


def cleaned(q, k, v, mask=None, scale=None):
    scores = torch.einsum("bhtd,bhsd->bhts", q, k) * (scale or q.shape[-1] ** -0.5)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = scores.softmax(dim=-1).nan_to_num()
    return weights @ v, weights


@pytest.mark.parametrize("function", [lowest_and_zeros, cleaned])
def test_right_batched_attention_solves_it(function):
    grade = grade_batched_attention(function)
    assert grade.solved
    assert [r.check for r in grade.reports][-2:] == ["no visible key", "scale argument"]


def test_zeros_in_the_output_alone_are_not_enough():
    """Catches a check of an empty row that does not read the weights."""

    def half(q, k, v, mask=None, scale=None):
        out, weights = lowest_and_zeros(q, k, v, mask, scale)
        return out, weights if mask is None else weights / weights.sum(dim=-1, keepdim=True)

    grade = grade_batched_attention(half)
    assert "no visible key" in grade.reports.failed
    assert "its output or its weights have NaN" in one_line(grade)


def test_a_function_without_scale_is_told():
    grade = grade_batched_attention(lambda q, k, v, mask=None: lowest_and_zeros(q, k, v, mask))
    assert grade.reports.failed == ["scale argument"]
    assert "unexpected keyword argument 'scale'" in one_line(grade)


def test_weights_that_do_not_come_back_are_asked_for():
    grade = grade_batched_attention(
        lambda *given, **options: lowest_and_zeros(*given, **options)[0]
    )
    assert "only the output came back" in one_line(grade)
