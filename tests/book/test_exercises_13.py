"""The graded exercise of chapter 13: right checks are solved, typical mistakes are named.

Catches a grader that takes a check for right which misses a bug, and a hint that names the
wrong mistake.
"""

import pytest
import torch

from attnlib.book.exercises import grade_cache_check

T = 6


def asked(layer, plans, batch=3, dtype=torch.float64):
    """Whether a layer answers in several calls as in one."""
    x = torch.randn(batch, T, layer.o_proj.out_features, dtype=dtype)
    want, answers = layer(x), []
    for sizes in plans:
        cache = layer.new_cache(batch, T)
        answers.append(torch.cat([layer(step, cache) for step in x.split(sizes, dim=1)], dim=1))
    return all(torch.allclose(answer, want) for answer in answers)


def right(layer):
    return asked(layer, ([1] * T, [3, 3]))


def at_once(layer):
    return asked(layer, ([2, 4],))


def one_call(layer):
    return asked(layer, ([T],))


def single_tokens(layer):
    return asked(layer, ([1] * T,))


def single_last(layer):
    return asked(layer, ([T - 1, 1],))


def single_sequence(layer):
    return asked(layer, ([1] * T, [3, 3]), batch=1)


def single_both(layer):
    return asked(layer, ([1] * T,), batch=1)


def exact(layer):
    x = torch.randn(3, T, layer.o_proj.out_features, dtype=torch.float64)
    cache = layer.new_cache(3, T)
    out = torch.cat([layer(step, cache) for step in x.split(1, dim=1)], dim=1)
    return torch.equal(out, layer(x))


def always(layer):
    return True


def in_float32(layer):
    return asked(layer, ([2, 4],), dtype=torch.float32)


@pytest.mark.parametrize("mine", [right, at_once])
def test_a_right_check_solves_it(mine):
    assert grade_cache_check(mine).solved, grade_cache_check(mine)


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (one_call, "a single call."),
        (single_tokens, "a single token at a time"),
        (single_last, "a single token at a time"),
        (single_sequence, "a single sequence. What"),
        (single_both, "a single sequence, and a single token"),
        (exact, "Compare to rounding"),
        (always, "every layer passes"),
        (in_float32, "dtype"),
    ],
)
def test_a_mistake_is_named(mine, words):
    grade = grade_cache_check(mine)
    assert not grade.solved
    assert words in " ".join(repr(grade).split())
