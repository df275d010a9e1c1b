"""The floor of a decode step: the library's own is solved, and a reader's is recognised."""

from grades import hint_of

from attnlib import attention_params, kv_cache_bytes
from attnlib.book.exercises import grade_floor
from attnlib.costs import decode_cost, roofline_seconds


def test_the_librarys_floor_solves_it():
    """Catches a grader whose own floor is not the library's."""

    def floor(geometry, tokens, batch_size, bytes_per_second, flops_per_second):
        cost = decode_cost(geometry, tokens, batch_size=batch_size)
        rates = {"bytes_per_second": bytes_per_second, "flops_per_second": flops_per_second}
        return cost.floor(**rates).seconds

    assert grade_floor(floor).solved


def test_one_roofline_for_the_whole_step_is_recognised():
    """Catches cases in which weights and core wait for the same, so that both floors agree."""

    def floor(geometry, tokens, batch_size, bytes_per_second, flops_per_second):
        cost = decode_cost(geometry, tokens, batch_size=batch_size)
        rates = {"bytes_per_second": bytes_per_second, "flops_per_second": flops_per_second}
        return roofline_seconds(cost.flops, cost.bytes, **rates)

    assert "one roofline for the whole step" in hint_of(grade_floor(floor))


def test_a_floor_without_the_batch_is_recognised():
    """Catches hints that only the exercise's own code gets."""

    def floor(g, tokens, batch_size, bytes_per_second, flops_per_second):
        params = attention_params(g)
        core = g.n_layers * g.n_heads * 2 * g.head_dim * tokens
        cache = kv_cache_bytes(g, tokens, batch_size=batch_size)
        weights = max(2 * params / bytes_per_second, 2 * params / flops_per_second)
        return weights + max(cache / bytes_per_second, 2 * core / flops_per_second)

    assert "arithmetic of one sequence" in hint_of(grade_floor(floor))
