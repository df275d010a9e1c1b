"""The check of a cache: right ones are solved, and typical ones that miss a bug recognised."""

import pytest
import torch
from grades import hint_of, one_line

from attnlib.book.exercises import grade_cache_check

T = 6


def silent(*plans, batch_size=3, dtype=torch.float64, equal=torch.allclose):
    """A check that a layer answers in several calls as in one."""

    def check(layer):
        x = torch.randn(batch_size, T, layer.o_proj.out_features, dtype=dtype)
        expected, answers = layer(x), []
        for sizes in plans:
            cache = layer.new_cache(batch_size, T)
            steps = [layer(step, cache) for step in x.split(sizes, dim=1)]
            answers.append(torch.cat(steps, dim=1))
        return all(equal(answer, expected) for answer in answers)

    return check


@pytest.mark.parametrize("check", [silent([1] * T, [3, 3]), silent([2, 4])])
def test_a_right_check_solves_it(check):
    assert grade_cache_check(check).solved


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (silent([T - 1, 1]), "a single token at a time"),
        (silent([1] * T, [3, 3], batch_size=1), "a single sequence. What"),
        (silent([1] * T, equal=torch.equal), "Compare to rounding"),
    ],
)
def test_checks_that_readers_write_are_recognised(check, words):
    """Catches hints that only the exercise's own code gets."""
    assert words in hint_of(grade_cache_check(check))


def test_a_check_in_another_dtype_is_told_why():
    assert "dtype" in one_line(grade_cache_check(silent([2, 4], dtype=torch.float32)))
