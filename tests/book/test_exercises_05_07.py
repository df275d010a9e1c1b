"""Graders of chapters 5 to 7: the right answer is solved, and each known mistake is named."""

import copy
import math

import pytest
import torch
from torch import nn

from attnlib import (
    Geometry,
    MultiHeadAttention,
    attention,
    causal_mask,
    merge_heads,
    split_heads,
)
from attnlib.book.exercises import (
    grade_half_step,
    grade_head_order,
    grade_late_rotation,
    grade_rotation,
    grade_stretch,
    grade_unrepeated,
)
from attnlib.costs import decode_cost


def rotation(
    *, cut="halves", joined="halves", exponents=-1.0, offset=None, sign=1, plus=-1, reuse=False
):
    """A rotation with one thing to get wrong at a time."""

    def rotate(x, positions, base):
        D = x.shape[-1]
        at = positions if offset is None else offset(positions)
        angles = at[:, None] * base ** (exponents * torch.arange(0, D, 2) / D)
        cos, sin = angles.cos(), sign * angles.sin()
        a, b = x.chunk(2, dim=-1) if cut == "halves" else (x[..., 0::2], x[..., 1::2])
        new = a * cos + plus * b * sin
        pair = new, (new if reuse else a) * sin + b * cos
        if joined == "halves":
            return torch.cat(pair, dim=-1)
        return torch.stack(pair, dim=-1).flatten(-2)

    return rotate


def rotate_half_with_neighbours_angles(x, positions, base):
    D = x.shape[-1]
    angles = positions[:, None] * base ** (-torch.arange(0, D, 2) / D)
    cos, sin = (f(angles).repeat_interleave(2, dim=-1) for f in (torch.cos, torch.sin))
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-b, a], dim=-1) * sin


ROTATIONS = {
    "the interleaved layout": rotation(cut="neighbours", joined="neighbours"),
    "counted from 0 in each call": rotation(offset=lambda at: torch.arange(len(at))),
    "counted from 1": rotation(offset=lambda at: at + 1),
    "turned clockwise": rotation(sign=-1),
    "speeds that grow": rotation(exponents=1.0),
    "one speed for all pairs": rotation(exponents=0.0),
    "the exponent -i/D": rotation(exponents=-0.5),
    "the exponent -4i/D": rotation(exponents=-2.0),
    "angles are laid out for neighbours": rotate_half_with_neighbours_angles,
    "read as halves and written as neighbours": rotation(joined="neighbours"),
    "read as neighbours and written as halves": rotation(cut="neighbours"),
    "both signs positive": rotation(plus=1),
    "has turned already": rotation(reuse=True),
    "nothing is turned": lambda x, positions, base: x,
}


def one_line(grade):
    """What a grade says, without the line breaks."""
    return " ".join(grade.text.split())


def test_rotation_is_solved():
    """Catches a case whose answer is not RoPE's."""
    assert grade_rotation(rotation()).solved


@pytest.mark.parametrize("hint", ROTATIONS)
def test_rotation_names_the_mistake(hint):
    """Catches cases that cannot tell two mistakes apart, and hints for another one."""
    grade = grade_rotation(ROTATIONS[hint])
    assert not grade.solved
    assert hint in one_line(grade)


def test_rotation_written_into_x_is_recognised():
    """Catches a hint that is lost because the case's own numbers were written over."""

    def rotate(x, positions, base):
        D = x.shape[-1]
        angles = positions[:, None] * base ** (-torch.arange(0, D, 2) / D)
        cos, sin = angles.cos(), angles.sin()
        a, b = x.chunk(2, dim=-1)  # views: the next line changes a
        x[..., : D // 2] = a * cos - b * sin
        x[..., D // 2 :] = a * sin + b * cos
        return x

    assert "has turned already" in one_line(grade_rotation(rotate))


def test_stretch_slows_the_pair():
    """Catches an answer that does not do to the pair's speed what was asked."""

    def solve(base, dim, factor, pair):
        def speed(base):
            return base ** (-2 * pair / dim)

        low, high = base, 1e12
        for _ in range(200):  # by bisection, without the formula
            middle = math.sqrt(low * high)
            low, high = (
                (middle, high) if speed(base) / speed(middle) < factor else (low, middle)
            )
        return low

    assert grade_stretch(solve).solved


@pytest.mark.parametrize(
    ("hint", "wrong"),
    [
        ("the base times the factor", lambda base, dim, factor, pair: base * factor),
        ("whatever pair", lambda base, dim, f, pair: base * f ** (dim / (dim - 2))),
        ("the exponent 2p/D", lambda base, dim, f, pair: base * f ** (2 * pair / dim)),
        ("counted from 1", lambda base, dim, f, pair: base * f ** (dim / (2 * pair + 2))),
        ("the exponent D/p", lambda base, dim, f, pair: base * f ** (dim / pair)),
        ("a smaller base", lambda base, dim, f, pair: base * f ** (-dim / (2 * pair))),
        ("not with //", lambda base, dim, f, pair: base * f ** (dim // (2 * pair))),
        ("not with //", lambda base, dim, f, pair: base * f ** (dim // 2 // pair)),
    ],
)
def test_stretch_names_the_mistake(hint, wrong):
    """Catches cases that cannot tell two mistakes apart."""
    grade = grade_stretch(wrong)
    assert not grade.solved
    assert hint in one_line(grade)


def late_rotation(*, turned_before=False, by_capacity=False):
    """A layer that turns keys late, or does not."""

    class Mine(MultiHeadAttention):
        def forward(self, x, cache=None, *, causal=True):
            projections = (self.q_proj, self.k_proj, self.v_proj)
            q, k, v = (split_heads(project(x), self.n_heads) for project in projections)
            start = 0 if cache is None else cache.length
            S = start + x.shape[1]
            length = cache.capacity if by_capacity and cache is not None else S
            (q,) = self.rope.rotate(q, start=start, length=length)
            if turned_before:
                (k,) = self.rope.rotate(k, start=start, length=length)
            if cache is not None:
                k, v = cache.update(k, v)
            if not turned_before:
                (k,) = self.rope.rotate(k, start=0, length=length)
            mask = causal_mask(torch.arange(start, S), torch.arange(S)) if causal else None
            return self.o_proj(merge_heads(attention(q, k, v, mask=mask)[0]))

    return Mine


def test_late_rotation_is_solved():
    """Catches a grader that asks for more than the text."""
    grade = grade_late_rotation(late_rotation())
    assert grade.solved, grade


@pytest.mark.parametrize(
    "options", [{"turned_before": True}, {"by_capacity": True}], ids=["early", "capacity"]
)
def test_keys_turned_early_or_by_the_capacity_are_found(options):
    """Catches a grader that is content with cached == uncached, which holds for these too."""
    grade = grade_late_rotation(late_rotation(**options))
    assert grade.reports.failed == ["base of the moment"]


def test_the_librarys_own_layer_turns_early():
    """Catches a grader that a layer without a forward of its own passes."""
    assert not grade_late_rotation(MultiHeadAttention).solved


def shared(scores_of, values_of):
    """Attention from two products over groups."""

    def attend(q, k, v, mask=None):
        scores = scores_of(q, k) * q.shape[-1] ** -0.5  # (B, H, T, S)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=-1)
        return values_of(weights, v).reshape(q.shape), weights

    return attend


def folded(a, b):
    B, H, T, _ = a.shape
    return (a.reshape(B, b.shape[1], -1, a.shape[-1]) @ b).reshape(B, H, T, -1)


def stretched(a, b):
    groups = a.unflatten(1, (b.shape[1], -1))  # (B, H_kv, G, T, ...)
    return (groups @ b[:, :, None]).flatten(1, 2)


def repeated(a, b):
    return a @ b.repeat_interleave(a.shape[1] // b.shape[1], dim=1)


def in_turns(a, b):
    return a @ b.repeat(1, a.shape[1] // b.shape[1], 1, 1)


def by_index(a, b):
    heads, kv_heads = a.shape[1], b.shape[1]
    return a @ b[:, torch.arange(heads) // (heads // kv_heads)]


def with_product(product):
    return shared(lambda q, k: product(q, k.mT), product)


@pytest.mark.parametrize("n_kv_heads", [1, 2, 3])
def test_folded_queries_repeat_nothing(n_kv_heads):
    """Catches a witness that takes scores, views or k itself for a copy."""
    assert grade_unrepeated(with_product(folded), n_kv_heads=n_kv_heads).solved


@pytest.mark.parametrize("product", [stretched, repeated, by_index])
@pytest.mark.parametrize("n_kv_heads", [1, 2, 3])
def test_copies_are_found(product, n_kv_heads):
    """Catches a witness that misses a copy, such as that of a product that broadcasts."""
    grade = grade_unrepeated(with_product(product), n_kv_heads=n_kv_heads)
    assert [report.check for report in grade.reports if not report] == ["nothing repeated"]
    line = {
        stretched: "(groups @ b[:, :, None])",
        repeated: "repeat_interleave(",
        by_index: "b[:, torch.arange(",
    }
    assert line[product] in one_line(grade)


def test_copies_of_values_alone_are_found():
    """Catches a witness that looks at the keys only."""
    attend = shared(lambda q, k: folded(q, k.mT), repeated)
    grade = grade_unrepeated(attend, n_kv_heads=3)
    assert grade.reports.failed == ["nothing repeated"]


def test_wrong_order_is_found_before_copies():
    """Catches a grade that is solved by heads in turns, and one that hides why it is not."""
    grade = grade_unrepeated(with_product(in_turns), n_kv_heads=3)
    assert "head grouping" in grade.reports.failed
    assert "in turns" in one_line(grade)


def half_step(d_model, n_heads, n_kv_heads):
    """From the cost model, by trying."""

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


def test_half_step_agrees_with_the_cost_model():
    """Catches a formula that counts other bytes than the library does."""
    grade = grade_half_step(half_step)
    assert grade.solved, grade


def equal_weights(d_model, n_heads, n_kv_heads):
    saved = n_heads - 2 * n_kv_heads
    return -(-2 * d_model * n_heads // saved) if saved > 0 else None


@pytest.mark.parametrize(
    ("hint", "wrong"),
    [
        ("rounded down", lambda d, H, K: 2 * d * K // (H - 2 * K) if H > 2 * K else None),
        ("no whole number", lambda d, H, K: 2 * d * K / (H - 2 * K) if H > 2 * K else None),
        ("the cache alone", lambda d, H, K: 0 if 2 * K <= H else None),
        ("the cache alone", lambda d, H, K: 1 if 2 * K <= H else None),
        ("the same weights", equal_weights),
        ("keys without values", lambda d, H, K: half_step(2 * d, H, K)),
        ("the size of a group", lambda d, H, K: half_step(d, H, H // K)),
    ],
)  # fmt: skip
def test_half_step_names_the_mistake(hint, wrong):
    """Catches cases that cannot tell two mistakes apart."""
    grade = grade_half_step(wrong)
    assert not grade.solved
    assert hint in one_line(grade)


def head_order(moved=("q", "k", "v", "o"), *, in_place=False, backwards=False):
    """Put heads into another order, with one thing to get wrong at a time."""

    def mine(layer, order):
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

    return mine


def test_head_order_is_solved():
    """Catches a grader that moves heads the other way."""
    grade = grade_head_order(head_order())
    assert grade.solved, grade


@pytest.mark.parametrize(
    ("mine", "failed", "hint"),
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
def test_head_order_names_the_mistake(mine, failed, hint):
    """Catches a grader that is content with the same output, or blames another projection."""
    grade = grade_head_order(mine)
    assert grade.reports.failed == failed
    assert hint in one_line(grade)


@pytest.mark.parametrize(
    "grade",
    [
        grade_rotation,
        grade_stretch,
        grade_half_step,
        grade_head_order,
        grade_late_rotation,
        lambda mine: grade_unrepeated(mine, n_kv_heads=3),
    ],
)
@pytest.mark.parametrize(
    "mine",
    [
        lambda *_, **__: None,
        lambda: 1,
        lambda *_, **__: nn.Linear(2, 2),
        lambda *_: nn.Identity(),
    ],
    ids=["nothing", "a number", "a layer", "a layer without weights"],
)
def test_nonsense_is_not_solved_and_stops_nothing(grade, mine):
    """Catches a grader that raises because of the code it is given."""
    assert not grade(mine).solved


def test_code_that_stops_at_the_last_question_is_told_where():
    """Catches a grader that raises what code raises after it has passed the first checks."""

    def attend(q, k, v, mask=None):
        if q.shape[2] == 1:
            raise RuntimeError("one query is too few")
        return with_product(folded)(q, k, v, mask)

    grade = grade_unrepeated(attend, n_kv_heads=3)
    assert not grade.solved
    assert "one query is too few" in grade.text


def test_head_order_leaves_random_numbers_alone():
    """Catches a grader that moves the reader's seed."""
    torch.manual_seed(3)
    want = torch.rand(1)
    torch.manual_seed(3)
    grade_head_order(lambda layer, order: layer)
    assert torch.equal(torch.rand(1), want)
