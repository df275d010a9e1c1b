"""Heads in another order, and multi-query attention as MLA: right ways and wrong ones."""

import copy

import pytest
import torch
from grades import hint_of, one_line
from torch import nn

from attnlib import MultiHeadLatentAttention, Rope
from attnlib.book.exercises import grade_head_order, grade_mqa_to_mla
from attnlib.book.exercises.conversion_lab import mqa_as_mla


def head_order(moved=("q", "k", "v", "o"), *, in_place=False, backwards=False):
    """Put heads into another order, with one thing to get wrong at a time."""

    def reorder(layer, order):
        if backwards:
            order = [order.index(h) for h in range(len(order))]
        other = layer if in_place else copy.deepcopy(layer)
        with torch.no_grad():
            for name in moved:
                weight = getattr(other, f"{name}_proj").weight
                axis = 1 if name == "o" else 0
                heads = weight.unflatten(axis, (layer.n_heads, layer.head_dim))
                chosen = heads.index_select(axis, torch.tensor(order))
                weight.copy_(chosen.flatten(axis, axis + 1))
        return other

    return reorder


def test_head_order_is_solved():
    """Catches a grader that moves heads the other way."""
    grade = grade_head_order(head_order())
    assert grade.solved, grade


@pytest.mark.parametrize(
    ("function", "failed", "hint"),
    [
        (head_order("qkv"), ["o_proj.weight", "output"], "nothing moved here"),
        (head_order("kvo"), ["q_proj.weight", "output"], "nothing moved here"),
        (
            head_order(backwards=True),
            ["q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight"],
            "moved the other way",
        ),
        (head_order(in_place=True), ["layer given"], "make a new layer"),
    ],
    ids=["without o", "without q", "backwards", "in place"],
)
def test_head_order_names_the_mistake(function, failed, hint):
    """Catches a grader that is content with the same output, or blames another projection."""
    grade = grade_head_order(function)
    assert grade.reports.failed == failed
    assert hint in one_line(grade)


def test_another_kind_of_layer_is_named():
    grade = grade_head_order(lambda layer, order: nn.Linear(2, 2))
    assert "Expected a MultiHeadAttention, got Linear: return the layer." in one_line(grade)


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
        (too_wide, "10 numbers per token"),
        (lambda layer: layer, "got MultiQueryAttention"),
    ],
)
def test_other_conversions_are_not_solved_and_say_why(wrong, words):
    grade = grade_mqa_to_mla(wrong)
    assert hint_of(grade) == ""
    assert words in one_line(grade)
