"""Pooled heads and multi-query attention as MLA: other right ways, and other wrong ones."""

import pytest
import torch
from grades import hint_of, one_line
from torch import nn

from attnlib import MultiHeadLatentAttention, Rope
from attnlib.book.exercises import grade_mqa_to_mla, grade_pool
from attnlib.book.exercises.conversion_lab import mqa_as_mla


def test_pooling_by_hand_is_solved():
    def pooled(weight, head_dim, n_kv_heads):
        rows = [weight[i : i + head_dim] for i in range(0, len(weight), head_dim)]
        group = len(rows) // n_kv_heads
        means = [sum(rows[i : i + group]) / group for i in range(0, len(rows), group)]
        return torch.cat(means)

    assert grade_pool(pooled).solved


def test_pooling_that_is_wrong_in_another_way_has_no_false_name():
    for wrong in (lambda w, D, n: w[: n * D], lambda w, D, n: None, lambda w, D, n: w.mean()):
        assert hint_of(grade_pool(wrong)) == ""


@torch.no_grad()
def as_mla_by_hand(layer):
    """Another way than the exercise's own: the unused part is wider and zero."""
    d_model, H, D = layer.q_proj.in_features, layer.n_heads, layer.head_dim
    mla = MultiHeadLatentAttention(
        d_model, H, kv_lora_rank=D, qk_nope_head_dim=3, qk_rope_head_dim=D, v_head_dim=D,
        rope=layer.rope,
    )  # fmt: skip
    for parameter in mla.parameters():
        parameter.zero_()
    mla.kv_a_layernorm = nn.Identity()
    mla.kv_a_proj_with_mqa.weight[:D] = layer.v_proj.weight
    mla.kv_a_proj_with_mqa.weight[D:] = layer.k_proj.weight
    for h in range(H):
        rows = layer.q_proj.weight[h * D : (h + 1) * D]
        mla.q_proj.weight[h * (3 + D) + 3 : (h + 1) * (3 + D)] = rows * ((3 + D) / D) ** 0.5
        mla.kv_b_proj.weight[h * (3 + D) + 3 : (h + 1) * (3 + D)] = torch.eye(D)
    mla.o_proj.weight[:] = layer.o_proj.weight
    return mla


def test_multi_query_attention_as_mla_by_hand_is_solved():
    grade = grade_mqa_to_mla(as_mla_by_hand)
    assert grade.solved, grade
    assert len(grade.reports) == 4


def with_random_rest(layer):
    mla = mqa_as_mla(layer)
    with torch.no_grad():
        mla.kv_b_proj.weight.view(6, 5, 4)[:, 0] = 0.5
        mla.q_proj.weight.view(6, 5, -1)[:, 0] = 0.5
    return mla


def too_wide(layer):
    sizes = {"kv_lora_rank": 8, "qk_nope_head_dim": 4, "qk_rope_head_dim": 2, "v_head_dim": 4}
    return MultiHeadLatentAttention(22, 6, **sizes, rope=Rope())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (with_random_rest, "must be zero"),
        (too_wide, "10 numbers a token"),
        (lambda layer: layer, "got MultiQueryAttention"),
    ],
)
def test_other_conversions_are_not_solved_and_say_why(wrong, words):
    grade = grade_mqa_to_mla(wrong)
    assert hint_of(grade) == ""
    assert words in one_line(grade)
