"""Graders of chapter 11: right answers are solved, and each known mistake is named."""

import pytest
import torch
from torch import nn

from attnlib import MultiHeadLatentAttention, Rope
from attnlib.book.exercises import grade_mqa_to_mla, grade_pool, mqa_as_mla

NAMED = "Your answers are those of a known mistake:"


def split(weight, *sizes):
    return weight.unflatten(0, sizes)


def pooled(weight, head_dim, n_kv_heads):
    rows = [weight[i : i + head_dim] for i in range(0, len(weight), head_dim)]
    group = len(rows) // n_kv_heads
    return torch.cat([sum(rows[i : i + group]) / group for i in range(0, len(rows), group)])


POOL_MISTAKES = {
    "dealt out in turns": lambda w, D, n: split(w, -1, n, D).mean(0).flatten(0, 1),
    "across the width of a head": lambda w, D, n: split(w, n, D, -1).mean(2).flatten(0, 1),
    "a sum, not a mean": lambda w, D, n: split(w, n, -1, D).sum(1).flatten(0, 1),
    "the first head": lambda w, D, n: split(w, n, -1, D)[:, 0].flatten(0, 1),
    "not as one": lambda w, D, n: split(w, n, -1, D).mean(1),
    "repeated for every query head": lambda w, D, n: (
        split(pooled(w, D, n), n, D).repeat_interleave(len(w) // D // n, 0).flatten(0, 1)
    ),
}


def test_pooling_by_hand_is_solved():
    grade = grade_pool(pooled)
    assert grade.solved and NAMED not in grade.text


@pytest.mark.parametrize("hint", POOL_MISTAKES)
def test_mistakes_of_pooling_are_named(hint):
    grade = grade_pool(POOL_MISTAKES[hint])
    assert not grade.solved
    remark = " ".join(grade.text.partition(NAMED)[2].split())
    assert hint in remark


def test_pooling_that_is_wrong_in_another_way_has_no_false_name():
    for wrong in (lambda w, D, n: w[: n * D], lambda w, D, n: None, lambda w, D, n: w.mean()):
        grade = grade_pool(wrong)
        assert not grade.solved and NAMED not in grade.text


@torch.no_grad()
def as_mla_by_hand(layer):
    """Another way than the grader's own: the unused part is wider and zero."""
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


@pytest.mark.parametrize("convert", [mqa_as_mla, as_mla_by_hand])
def test_multi_query_attention_as_mla_is_solved(convert):
    grade = grade_mqa_to_mla(convert)
    assert grade.solved and NAMED not in grade.text, grade
    assert len(grade.reports) == 4


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"stretch": False}, "queries that are not stretched. MLA"),
        ({"norm": True}, "a norm that is still on. The value"),
        ({"swapped": True}, "in each other's place"),
        ({"handed": False}, "rope=layer.rope"),
        ({"stretch": False, "norm": True}, "not stretched, and a norm"),
    ],
)
def test_mistakes_of_the_conversion_are_named(options, hint):
    grade = grade_mqa_to_mla(lambda layer: mqa_as_mla(layer, **options))
    assert not grade.solved
    assert hint in " ".join(grade.text.partition(NAMED)[2].split())


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
    ("wrong", "hint"),
    [
        (with_random_rest, "must be zero"),
        (too_wide, "10 numbers a token"),
        (lambda layer: layer, "got MultiQueryAttention"),
        (lambda layer: None, "Nothing came back (None): is a `return` missing?"),
        (lambda layer: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_other_answers_are_not_solved_and_say_why(wrong, hint):
    grade = grade_mqa_to_mla(wrong)
    assert not grade.solved and NAMED not in grade.text
    assert hint in " ".join(grade.text.split())
