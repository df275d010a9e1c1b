"""Where sharing halves a step, by the cost model, and heads in another order."""

import copy

import pytest
import torch
from grades import one_line
from torch import nn

from attnlib import Geometry
from attnlib.book.exercises import grade_half_step, grade_head_order
from attnlib.costs import decode_cost


def test_half_step_agrees_with_the_cost_model():
    """Catches a formula that counts other bytes than the library does."""

    def half_step(d_model, n_heads, n_kv_heads):
        def read(kv_heads, S):
            return decode_cost(Geometry(1, n_heads, kv_heads, 128, d_model=d_model), S).bytes

        if 2 * n_kv_heads >= n_heads:
            return None
        low, high = 0, 2**20
        while low < high:
            S = (low + high) // 2
            enough = 2 * read(n_kv_heads, S) <= read(n_heads, S)
            low, high = (low, S) if enough else (S + 1, high)
        return low

    assert grade_half_step(half_step).solved


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
