"""What a device keeps: the grader's rule is that of the library."""

from attnlib import Geometry, cache_size
from attnlib.book.exercises import grade_part
from attnlib.labs.devices import kv_heads_held, sequences_held


def test_the_rule_is_the_librarys():
    """Catches a grader that counts other copies than the cost model and the real processes."""

    def by_library(n_heads, n_kv_heads, batch_size, tokens, devices, split):
        try:
            if split == "heads":
                kv_heads_held(n_heads, n_kv_heads, devices)
            elif split == "sequences":
                sequences_held(batch_size, devices)
        except ValueError:
            return None
        size = cache_size(
            Geometry(1, n_heads, n_kv_heads, 1), tokens, batch_size=batch_size,
            devices=devices, split=split, dtype="int8",
        )  # fmt: skip
        return size.per_device // 2  # one byte each of a key and a value

    assert grade_part(by_library).solved
