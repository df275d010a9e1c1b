"""Where sharing halves a step, by the cost model."""

from attnlib import Geometry
from attnlib.book.exercises import grade_half_step
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
