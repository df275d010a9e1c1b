"""Rings and sinks: what is graded is what the library does."""

import torch
from grades import hint_of

from attnlib.book.exercises import grade_ring, grade_sink
from attnlib.variants.swa import RingCache


def test_the_ring_is_the_librarys():
    """Catches a grader that asks for other rows than the cache has."""

    def by_cache(seen, window, first):
        cache = RingCache(1, 1, 99, 1, window, first=first)
        for _ in range(seen):
            cache.update(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
        rows = torch.full((first + window,), -1)
        rows[: cache.kept] = cache.row_positions()
        return rows

    assert grade_ring(by_cache).solved


def test_a_sink_may_be_written_as_a_ratio():
    """Catches a grader that knows one form only."""

    def as_ratio(out, lse, sinks):
        keys, sink = lse.exp(), sinks.exp()[:, None]
        return out * (keys / (keys + sink))[..., None]

    assert grade_sink(as_ratio).solved
    hint = hint_of(
        grade_sink(lambda out, lse, s: out * torch.sigmoid(s[:, None] - lse)[..., None])
    )
    assert "the sink's share" in hint
