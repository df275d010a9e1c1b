"""The KV cache: what readers write is recognised, and right code may take another order."""

import pytest
import torch
import torch.nn.functional as F
from grades import hint_of, one_line

from attnlib import MultiHeadAttention, Rope, causal_mask, merge_heads, split_heads
from attnlib.book.exercises import grade_cache_gib, grade_cached_layer


def gib(g, tokens, users, bits):
    return 2 * g.n_layers * g.n_kv_heads * g.head_dim * tokens * users * bits / 8 / 2**30


def test_right_gib():
    assert grade_cache_gib(gib).solved


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda g, t, u, b: gib(g, t, u, b) * 2**30 / 1e9 / 2, ["(1) K or V", "(2) GB, which"]),
        (
            lambda g, t, u, b: g.n_layers * g.n_heads * g.head_dim * t * u * b / 8 / 1e9,
            ["three at once: (1) the query heads", "(2) K or V", "(3) GB, which"],
        ),
    ],
)
def test_several_mistakes_are_named_together(function, words):
    hint = hint_of(grade_cache_gib(function))
    assert all(word in hint for word in words), hint


def cached_layer(*, how=None, first=lambda past, T: past):
    """A layer as readers write it; ``how`` gives options of SDPA from T, S and the cache."""

    def right_mask(T, S, cache):
        positions = torch.arange(S)
        return {"attn_mask": causal_mask(positions[S - T :], positions)}

    class MyLayer(MultiHeadAttention):
        def forward(self, x, cache=None):
            T = x.shape[1]
            q, k, v = (
                split_heads(p(x), self.n_heads) for p in (self.q_proj, self.k_proj, self.v_proj)
            )
            past = 0 if cache is None else cache.seen
            q, k = self.rope.rotate(q, k, start=first(past, T), length=T)
            if cache is not None:
                k, v, _ = cache.update(k, v)
            options = (how or right_mask)(T, k.shape[2], cache)
            return self.o_proj(merge_heads(F.scaled_dot_product_attention(q, k, v, **options)))

    return MyLayer


def test_right_cached_layer():
    assert grade_cached_layer(cached_layer()).solved


WRITTEN = {
    "the first new token then sees key 0 alone": lambda T, S, cache: {"is_causal": True},
    "causal only among several": lambda T, S, cache: {"is_causal": T > 1},
    "no mask once there is a cache": lambda T, S, cache: {"is_causal": cache is None},
    "no mask once something is cached": lambda T, S, cache: {"is_causal": S == T},
    "True taken for hidden": lambda T, S, cache: {
        "attn_mask": torch.ones(T, S).triu(S - T + 1).bool()
    },
    "a mask of numbers": lambda T, S, cache: {"attn_mask": torch.ones(T, S).tril(S - T)},
}


@pytest.mark.parametrize("words", WRITTEN)
def test_options_of_sdpa_are_recognised(words):
    """Catches hints that only the exercise's own masks get."""
    assert words in hint_of(grade_cached_layer(cached_layer(how=WRITTEN[words])))


def test_two_mistakes_of_a_cached_layer_are_named_together():
    wrong = cached_layer(
        how=WRITTEN["the first new token then sees key 0 alone"], first=lambda past, T: 0
    )
    hint = hint_of(grade_cached_layer(wrong))
    assert "(1) every call turns its tokens as if the first stood at 0" in hint
    assert "(2) with S > T keys" in hint


def test_keys_turned_after_they_are_read_by_their_own_positions_are_right():
    """Catches a grader that wants one order of the steps where another is right as well."""

    class MyLayer(MultiHeadAttention):
        def forward(self, x, cache=None):
            q, k, v = (
                split_heads(p(x), self.n_heads) for p in (self.q_proj, self.k_proj, self.v_proj)
            )
            if cache is not None:
                k, v, _ = cache.update(k, v)
            T, S = q.shape[2], k.shape[2]
            (q,) = self.rope.rotate(q, start=S - T, length=S)
            (k,) = self.rope.rotate(k, start=0, length=S)
            mask = torch.ones(T, S, dtype=torch.bool).tril(S - T)
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return self.o_proj(merge_heads(out))

    assert grade_cached_layer(MyLayer).solved


def test_a_mask_of_the_wrong_shape_stops_with_a_line():
    """Catches a grade without a word on the mask of T x T, the bug of the first attempt."""
    grade = grade_cached_layer(
        cached_layer(how=lambda T, S, cache: {"attn_mask": torch.ones(T, T).tril().bool()})
    )
    assert "cached = uncached" in grade.reports.failed
    assert "a mask needs T rows and S columns" in one_line(grade)


def test_cached_layer_needs_the_rope():
    """Catches a grade that a layer without positions passes."""

    class MyLayer(MultiHeadAttention):
        def __init__(self, *sizes, rope=None, **options):
            super().__init__(*sizes, rope=Rope(), **options)
            self.rope = None

    assert "equals the reference" in grade_cached_layer(MyLayer).reports.failed
