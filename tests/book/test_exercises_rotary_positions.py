"""Rotary positions: right rotations and bases, and layers that turn their keys late."""

import math

import pytest
import torch
from grades import hint_of, one_line

from attnlib import MultiHeadAttention, attention, causal_mask, merge_heads, split_heads
from attnlib.book.exercises import grade_late_rotation, grade_rotation, grade_stretch


def rotation(exponents=-1.0, in_place=False):
    def rotate(x, positions, base):
        D = x.shape[-1]
        angles = positions[:, None] * base ** (exponents * torch.arange(0, D, 2) / D)
        a, b = x.chunk(2, dim=-1)  # views: with in_place the next line changes a
        first = a * angles.cos() - b * angles.sin()
        if in_place:
            x[..., : D // 2] = first
            x[..., D // 2 :] = a * angles.sin() + b * angles.cos()
            return x
        return torch.cat([first, a * angles.sin() + b * angles.cos()], dim=-1)

    return rotate


def test_rotation_by_hand():
    """Catches a case whose answer is not RoPE's."""
    assert grade_rotation(rotation()).solved


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (rotation(in_place=True), "has turned already"),  # written over the case's own numbers
        (rotation(exponents=-0.5), "the exponent -i/D"),
        (rotation(exponents=-2.0), "the exponent -4i/D"),
    ],
)
def test_rotations_that_readers_write_are_recognised(function, words):
    """Catches hints that only the exercise's own code gets."""
    assert words in hint_of(grade_rotation(function))


def test_stretch_slows_the_pair():
    """Catches an answer that does not do to the pair's speed what the exercise asks."""

    def solve(base, dim, factor, pair):
        def speed(base):
            return base ** (-2 * pair / dim)

        low, high = base, 1e12
        for _ in range(200):  # by bisection, without the formula
            middle = math.sqrt(low * high)
            too_small = speed(base) / speed(middle) < factor
            low, high = (middle, high) if too_small else (low, middle)
        return low

    assert grade_stretch(solve).solved


def test_an_exponent_that_is_rounded_in_two_steps_is_recognised():
    wrong = grade_stretch(lambda base, dim, f, pair: base * f ** (dim // 2 // pair))
    assert "not with //" in hint_of(wrong)


def late_rotation(*, turned_before=False, by_capacity=False):
    """A layer that turns its keys late, or does not."""

    class MyLayer(MultiHeadAttention):
        def forward(self, x, cache=None, *, causal=True):
            projections = (self.q_proj, self.k_proj, self.v_proj)
            q, k, v = (split_heads(project(x), self.n_heads) for project in projections)
            start = 0 if cache is None else cache.seen
            S = start + x.shape[1]
            length = cache.capacity if by_capacity and cache is not None else S
            (q,) = self.rope.rotate(q, start=start, length=length)
            if turned_before:
                (k,) = self.rope.rotate(k, start=start, length=length)
            if cache is not None:
                k, v, _ = cache.update(k, v)
            if not turned_before:
                (k,) = self.rope.rotate(k, start=0, length=length)
            mask = causal_mask(torch.arange(start, S), torch.arange(S)) if causal else None
            return self.o_proj(merge_heads(attention(q, k, v, mask=mask)[0]))

    return MyLayer


def test_late_rotation_is_solved():
    """Catches a grader that asks for more than the text."""
    assert grade_late_rotation(late_rotation()).solved


@pytest.mark.parametrize(
    "options", [{"turned_before": True}, {"by_capacity": True}], ids=["early", "capacity"]
)
def test_keys_turned_early_or_by_the_capacity_are_found(options):
    """Catches a grader that is content with cached == uncached, which holds for these too."""
    grade = grade_late_rotation(late_rotation(**options))
    assert grade.reports.failed == ["base of the moment"]
    assert "keys were turned before they were stored" in one_line(grade)


def test_the_librarys_own_layer_turns_early():
    """Catches a grader that a layer without its own forward passes."""
    assert not grade_late_rotation(MultiHeadAttention).solved
