"""The grader of chapter 10: right code is solved, and each typical mistake is named."""

import pytest

from attnlib import attention_params, kv_cache_bytes
from attnlib.book.exercises import grade_floor
from attnlib.costs import decode_cost, roofline_seconds


def my_floor(geometry, tokens, batch_size, bytes_per_second, flops_per_second):
    """By the library: another way than the grader's own."""
    cost = decode_cost(geometry, tokens, batch_size=batch_size)
    rates = {"bytes_per_second": bytes_per_second, "flops_per_second": flops_per_second}
    return roofline_seconds(cost.flops, cost.bytes, **rates)


def by_hand(
    join=max, weight_bytes=2, macs=2, cache_batch=True, factor=1, heads=lambda g: g.n_heads
):
    """The floor with one mistake."""

    def wrong(g, tokens, batch_size, reads, calculates):
        params = attention_params(g)
        cached = kv_cache_bytes(g, tokens, batch_size=batch_size if cache_batch else 1)
        core = g.n_layers * heads(g) * 2 * g.head_dim * tokens
        flops = macs * batch_size * (params + core)
        return factor * join((weight_bytes * params + cached) / reads, flops / calculates)

    return wrong


def test_right_code_is_solved():
    """Catches a grader whose own floor is not the library's."""
    assert grade_floor(my_floor).solved
    assert grade_floor(by_hand()).solved


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"join": lambda a, b: a + b}, "added"),
        ({"join": min}, "shorter"),
        ({"weight_bytes": 0}, "left out"),
        ({"weight_bytes": 4}, "four bytes"),
        ({"macs": 1}, "one FLOP"),
        ({"cache_batch": False}, "its own"),
        ({"heads": lambda g: g.n_kv_heads}, "key/value heads"),
        ({"heads": lambda g: g.d_model // g.head_dim}, "d_model"),
        ({"heads": lambda g: 0}, "core is left out"),
        ({"factor": 1000}, "milliseconds"),
    ],
)
def test_a_mistake_is_named(mistake, words):
    grade = grade_floor(by_hand(**mistake))
    assert not grade.solved
    assert words in grade.text.partition("known mistake")[2], grade


def test_a_start_is_told_from_a_mistake():
    def start(*arguments):
        raise NotImplementedError

    assert "still the start" in grade_floor(start).text
