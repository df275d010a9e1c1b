"""The floor of a decode step: the library's own is solved, and a reader's is recognised."""

from grades import hint_of

from attnlib import attention_params, kv_cache_bytes
from attnlib.book.exercises import grade_floor
from attnlib.costs import decode_cost, roofline_seconds


def test_the_librarys_floor_solves_it():
    """Catches a grader whose own floor is not the library's."""

    def floor(geometry, tokens, batch_size, bytes_per_second, flops_per_second):
        cost = decode_cost(geometry, tokens, batch_size=batch_size)
        return roofline_seconds(
            cost.flops,
            cost.bytes,
            bytes_per_second=bytes_per_second,
            flops_per_second=flops_per_second,
        )

    assert grade_floor(floor).solved


def test_a_floor_without_the_batch_is_recognised():
    """Catches hints that only the exercise's own code gets."""

    def floor(g, tokens, batch_size, bytes_per_second, flops_per_second):
        params = attention_params(g)
        core = g.n_layers * g.n_heads * 2 * g.head_dim * tokens
        n_bytes = 2 * params + kv_cache_bytes(g, tokens, batch_size=batch_size)
        return max(n_bytes / bytes_per_second, 2 * (params + core) / flops_per_second)

    assert "arithmetic of one sequence" in hint_of(grade_floor(floor))
