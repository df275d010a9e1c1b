"""Graders of chapters 2 to 4: the right answer is solved, and each known mistake is named.

The wrong answers are written here as a newcomer would write them, and not taken from the
graders, so a hint that belongs to another mistake fails.
"""

import pytest
import torch
import torch.nn.functional as F

from attnlib import MultiHeadAttention, Rope, attention, causal_mask, merge_heads, split_heads
from attnlib.book.exercises import (
    grade_cache_gib,
    grade_cached_layer,
    grade_heads,
    grade_qk_norm,
    grade_scale,
    grade_shares,
    mistakes,
)


def one_line(grade):
    """What a grade says, without the line breaks."""
    return " ".join(grade.text.split())


def named(grade, words):
    """Whether a wrong answer was recognised, and its hint says these words."""
    _, _, remark = one_line(grade).partition("those of a known mistake: ")
    return not grade.solved and words in remark


def test_mistakes_come_one_by_one_before_two_at_once():
    """Catches a hint for two mistakes where one explains the answer."""
    ways = mistakes({"": 0, "a": 1, "b": 2}, {"": 0, "c": 3})
    assert ways == [
        ("c", (0, 3)),
        ("a", (1, 0)),
        ("b", (2, 0)),
        ("two at once: (1) a (2) c", (1, 3)),
        ("two at once: (1) b (2) c", (2, 3)),
    ]
    assert mistakes({"": 0, "a": 1}, {"": 0, "b": 1}, {"": 0, "c": 1}, at_most=3)[-1] == (
        "three at once: (1) a (2) b (3) c",
        (1, 1, 1),
    )


# Chapter 2: the scale that a layer starts with.

SCALES = {
    "the width of the model under the root": lambda m, H, D, q, k: m**-0.5 / (q * k),
    "d_model / n_heads for the width": lambda m, H, D, q, k: (m // H) ** -0.5 / (q * k),
    "all heads together": lambda m, H, D, q, k: (H * D) ** -0.5 / (q * k),
    "entries of variance 1, whatever": lambda m, H, D, q, k: D**-0.5,
    "not four times": lambda m, H, D, q, k: D**-0.5 / (q**2 * k**2),
    "no root": lambda m, H, D, q, k: 1 / (D * q * k),
    "the variance of the scores where its root": lambda m, H, D, q, k: 1 / (D * q**2 * k**2),
    "divide by it": lambda m, H, D, q, k: D**0.5 * q * k,
    "Keys are multiplied in as well": lambda m, H, D, q, k: D**-0.5 / q,
    "Query and key are multiplied": lambda m, H, D, q, k: D**-0.5 / (q + k),
    "multiplied by the spreads": lambda m, H, D, q, k: q * k / D**0.5,
    "(1) the width of the model": lambda m, H, D, q, k: m**-0.5,
    "(2) no root": lambda m, H, D, q, k: 1 / D,
}


def test_right_scale():
    assert grade_scale(lambda m, H, D, q, k: 1 / (D**0.5 * q * k)).solved


@pytest.mark.parametrize("words", SCALES)
def test_wrong_scales_are_named(words):
    assert named(grade_scale(SCALES[words]), words)


# Chapter 2: attention with normalised queries and keys.


def sized(x, dim=-1):
    return x / x.pow(2).mean(dim, keepdim=True).sqrt()


def with_norms(norm_q, norm_k=None, norm_v=lambda v: v, factor=None, inside=1.0):
    def wrong(q, k, v, mask=None):
        factor_ = q.shape[-1] ** -0.5 if factor is None else factor
        scores = norm_q(q * inside) @ (norm_k or norm_q)(k).transpose(-2, -1) * factor_
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(-1)
        return weights @ norm_v(v), weights

    return wrong


def centred(x):
    return sized(x - x.mean(-1, keepdim=True))


def length_one(x):
    return x / x.norm(dim=-1, keepdim=True)


def per_token(x):
    return sized(x.transpose(1, 2).flatten(2)).unflatten(-1, x.shape[1::2]).transpose(1, 2)


NORMS = {
    "used as they came": with_norms(lambda x: x),
    "the queries are normalised and the keys are not": with_norms(sized, lambda x: x),
    "the keys are normalised and the queries are not": with_norms(lambda x: x, sized),
    "the weights are nearly equal": with_norms(length_one),
    "vectors of length 1 without a scale": with_norms(length_one, factor=1.0),
    "no scale behind the norm": with_norms(sized, factor=1.0, inside=0.5),
    "the values are normalised as well": with_norms(sized, norm_v=sized),
    "That is layer norm": with_norms(centred),
    "normalised along the tokens": with_norms(lambda x: sized(x, -2)),
    "normalised along the heads": with_norms(lambda x: sized(x, 1)),
    "one size for all heads": with_norms(per_token),
    "one size for the whole tensor": with_norms(lambda x: x / x.pow(2).mean().sqrt()),
    "and not by its root": with_norms(lambda x: x / x.pow(2).mean(-1, keepdim=True)),
}


@pytest.mark.parametrize(
    "function",
    [with_norms(sized), with_norms(lambda x: F.rms_norm(x, x.shape[-1:], eps=1e-6))],
    ids=["by hand", "F.rms_norm"],
)
def test_right_norm(function):
    grade = grade_qk_norm(function)
    assert grade.solved
    assert [r.check for r in grade.reports][-2:] == ["longer queries", "longer keys"]


@pytest.mark.parametrize("words", NORMS)
def test_wrong_norms_are_named(words):
    assert named(grade_qk_norm(NORMS[words]), words)


def test_a_norm_of_one_side_is_noticed_by_the_other():
    """Catches a check of longer keys that lengthens the queries, and the reverse."""
    grade = grade_qk_norm(with_norms(sized, lambda x: x))
    assert "longer keys" in grade.reports.failed
    assert "longer queries" not in grade.reports.failed


def test_norm_without_a_mask_leaks():
    grade = grade_qk_norm(lambda q, k, v, mask=None: attention(sized(q), sized(k), v))
    assert "no future leak" in grade.reports.failed


def test_norm_that_stops_is_told_where():
    grade = grade_qk_norm(lambda q, k, v, mask=None: sized(q) @ sized(k))
    assert "It stopped at the line" in one_line(grade)


# Chapter 3: split and merge.


def heads_layer(cut, join, causal=True):
    class MyHeads(MultiHeadAttention):
        def forward(self, x):
            B, T, _ = x.shape
            H, D = self.n_heads, self.head_dim
            q, k, v = (cut(p(x), B, T, H, D) for p in (self.q_proj, self.k_proj, self.v_proj))
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
            return self.o_proj(join(out, B, T, H, D))

    return MyHeads


def view_cut(x, B, T, H, D):
    return x.view(B, H, T, D)


def right_cut(x, B, T, H, D):
    return x.view(B, T, H, D).transpose(1, 2)


def turns_cut(x, B, T, H, D):
    return x.view(B, T, D, H).permute(0, 3, 1, 2)


def view_join(x, B, T, H, D):
    return x.reshape(B, T, H * D)


def right_join(x, B, T, H, D):
    return x.transpose(1, 2).reshape(B, T, H * D)


def turns_join(x, B, T, H, D):
    return x.permute(0, 2, 3, 1).reshape(B, T, H * D)


HEADS = {
    "split by a view alone, and merged right": heads_layer(view_cut, right_join),
    "split right, and merged without swapping": heads_layer(right_cut, view_join),
    "on both sides. The two mistakes hide": heads_layer(view_cut, view_join),
    "goes to one head. A head has D numbers": heads_layer(turns_cut, right_join),
    "merged number by number in turns": heads_layer(right_cut, turns_join),
    "goes to one head, on both sides": heads_layer(turns_cut, turns_join),
    "the axes are never swapped": heads_layer(
        lambda x, B, T, H, D: x.view(B, T, H, D), lambda x, B, T, H, D: x.reshape(B, T, H * D)
    ),
    "nothing is split": heads_layer(lambda x, *sizes: x, lambda x, *sizes: x),
}


def test_right_heads():
    assert grade_heads(heads_layer(right_cut, right_join)).solved


@pytest.mark.parametrize("words", HEADS)
def test_wrong_heads_are_named(words):
    assert named(grade_heads(HEADS[words]), words)


def test_checks_tell_the_three_view_traps_apart():
    """Catches checks that see a lost transpose and not which one is lost."""
    failed = {
        where: grade_heads(heads_layer(cut, join)).reports.failed
        for where, cut, join in (
            ("split", view_cut, right_join),
            ("merge", right_cut, view_join),
            ("both", view_cut, view_join),
        )
    }
    assert "no future leak" in failed["split"]
    assert "no future leak" in failed["merge"]
    assert "no future leak" not in failed["both"]
    assert "reach" in failed["both"]


def test_heads_that_see_the_future_are_not_solved():
    assert "no future leak" in grade_heads(heads_layer(right_cut, right_join, False)).text


def test_start_of_heads_is_no_mistake():
    class MyHeads(MultiHeadAttention):
        def forward(self, x):
            raise NotImplementedError

    assert "still the start" in one_line(grade_heads(MyHeads))


# Chapter 3: the share of each head.


def shares(heads, w_o):
    D = heads.shape[-1]
    each = [heads[:, h] @ w_o[:, h * D : h * D + D].T for h in range(heads.shape[1])]
    return torch.stack(each, dim=1)


def shares_of_rows(heads, w_o):
    D = heads.shape[-1]
    each = [heads[:, h] @ w_o[h * D : h * D + D] for h in range(heads.shape[1])]
    return torch.stack(each, dim=1)


def shares_by_view(heads, w_o):
    B, H, T, D = heads.shape
    each = []
    for h in range(H):
        alone = torch.zeros_like(heads)
        alone[:, h] = heads[:, h]
        each.append(alone.reshape(B, T, H * D) @ w_o.T)
    return torch.stack(each, dim=1)


SHARES = {
    "rows of W_O": shares_of_rows,
    "every H-th column": lambda a, w: torch.stack(
        [a[:, h] @ w[:, h :: a.shape[1]].T for h in range(a.shape[1])], dim=1
    ),
    "begins with the heads": lambda a, w: torch.einsum(
        "bhtd,hdm->bhtm", a, w.view(a.shape[1], a.shape[3], -1)
    ),
    "equal parts": lambda a, w: torch.stack([merge_heads(a) @ w.T / a.shape[1]] * 3, dim=1),
    "tokens in front of heads": lambda a, w: shares(a, w).transpose(1, 2),
    "the sum over the heads": lambda a, w: shares(a, w).sum(dim=1),
    "joined by a view alone": shares_by_view,
    "divided by the number": lambda a, w: shares(a, w) / a.shape[1],
}


def test_right_shares():
    assert grade_shares(shares).solved


@pytest.mark.parametrize("words", SHARES)
def test_wrong_shares_are_named(words):
    assert named(grade_shares(SHARES[words]), words)


# Chapter 4: how large the cache is.


def gib(g, tokens, users, bits):
    return 2 * g.n_layers * g.n_kv_heads * g.head_dim * tokens * users * bits / 8 / 2**30


GIBS = {
    "the query heads": lambda g, t, u, b: gib(g, t, u, b) * g.n_heads / g.n_kv_heads,
    "d_model / n_heads for the width": lambda g, t, u, b: (
        2 * g.n_layers * g.n_kv_heads * (g.d_model // g.n_heads) * t * u * b / 8 / 2**30
    ),
    "K or V is missing": lambda g, t, u, b: gib(g, t, u, b) / 2,
    "one layer": lambda g, t, u, b: gib(g, t, u, b) / g.n_layers,
    "one user": lambda g, t, u, b: gib(g, t, 1, b),
    "bits taken for bytes": lambda g, t, u, b: gib(g, t, u, 8 * b),
    "bits // 8": lambda g, t, u, b: gib(g, t, u, b // 8 * 8),
    "whatever the bits": lambda g, t, u, b: gib(g, t, u, 16),
    "GB, which are": lambda g, t, u, b: gib(g, t, u, b) * 2**30 / 1e9,
    "MiB. A GiB": lambda g, t, u, b: gib(g, t, u, b) * 2**10,
    "Divide by 2^30": lambda g, t, u, b: gib(g, t, u, b) * 2**30,
    "(1) the query heads. Cached are keys and values: count n_kv_heads. (2) d_model / n": (
        lambda g, t, u, b: 2 * g.n_layers * g.d_model * t * u * b / 8 / 2**30
    ),
    "rounded down": lambda g, t, u, b: gib(g, t, u, b) // 1,
    "three at once: (1) the query heads": lambda g, t, u, b: (
        g.n_layers * g.n_heads * g.head_dim * t * u * b / 8 / 1e9
    ),
    "(2) GB, which": lambda g, t, u, b: gib(g, t, u, b) * 2**30 / 1e9 / 2,
}


def test_right_gib():
    assert grade_cache_gib(gib).solved


@pytest.mark.parametrize("words", GIBS)
def test_wrong_gib_are_named(words):
    assert named(grade_cache_gib(GIBS[words]), words)


# Chapter 4: the forward of a layer with a cache.


def cached_layer(*, options=None, first=lambda past, T: past, order="turn, store", use=True):
    """A layer with one thing to get wrong at a time; options are SDPA's, by T, S and cache."""

    def right_mask(T, S, cache):
        at = torch.arange(S)
        return {"attn_mask": causal_mask(at[S - T :], at)}

    class MyLayer(MultiHeadAttention):
        def forward(self, x, cache=None):
            T = x.shape[1]
            q, k, v = (
                split_heads(p(x), self.n_heads) for p in (self.q_proj, self.k_proj, self.v_proj)
            )
            past = 0 if cache is None else cache.length
            start = {"start": first(past, T), "length": T}
            if order == "turn, store":
                q, k = self.rope.rotate(q, k, **start)
            if cache is not None and use:
                k, v = cache.update(k, v)
            elif cache is not None:
                cache.update(k, v)
            if order == "store, turn":
                (q,), (k,) = self.rope.rotate(q, **start), self.rope.rotate(k, **start)
            how = (options or right_mask)(T, k.shape[2], cache)
            return self.o_proj(merge_heads(F.scaled_dot_product_attention(q, k, v, **how)))

    return MyLayer


def top_left(T, S, cache):
    return {"is_causal": True}


CACHED = {
    "the first new token then sees key 0 alone": cached_layer(options=top_left),
    "causal only among several": cached_layer(options=lambda T, S, c: {"is_causal": T > 1}),
    "no mask once there is a cache": cached_layer(
        options=lambda T, S, c: {"is_causal": c is None}
    ),
    "no mask once something is cached": cached_layer(
        options=lambda T, S, c: {"is_causal": S == T}
    ),
    "no mask at all": cached_layer(options=lambda T, S, c: {}),
    "the token behind its own": cached_layer(
        options=lambda T, S, c: {"attn_mask": torch.ones(T, S).tril(S - T + 1).bool()}
    ),
    "True taken for hidden": cached_layer(
        options=lambda T, S, c: {"attn_mask": torch.ones(T, S).triu(S - T + 1).bool()}
    ),
    "a mask of numbers": cached_layer(
        options=lambda T, S, c: {"attn_mask": torch.ones(T, S).tril(S - T)}
    ),
    "hides the query's own key": cached_layer(
        options=lambda T, S, c: {"attn_mask": torch.ones(T, S).tril(S - T - 1).bool()}
    ),
    "as if the first stood at 0": cached_layer(first=lambda past, T: 0),
    "placed behind themselves": cached_layer(first=lambda past, T: past + T),
    "one too late": cached_layer(first=lambda past, T: past + 1 if past else 0),
    "attention sees the new tokens only": cached_layer(use=False),
    "stored first and turned after": cached_layer(order="store, turn"),
    "(1) every call turns its tokens as if the first stood at 0": cached_layer(
        options=top_left, first=lambda past, T: 0
    ),
}


def test_right_cached_layer():
    assert grade_cached_layer(cached_layer()).solved


@pytest.mark.parametrize("words", CACHED)
def test_wrong_cached_layers_are_named(words):
    grade = grade_cached_layer(CACHED[words])
    assert words.lower() in one_line(grade).lower()
    assert not grade.solved


def test_keys_turned_after_they_are_read_by_their_own_positions_are_right():
    """Catches a grader that wants one order of the steps where another is right as well."""

    class MyLayer(MultiHeadAttention):
        def forward(self, x, cache=None):
            q, k, v = (
                split_heads(p(x), self.n_heads) for p in (self.q_proj, self.k_proj, self.v_proj)
            )
            if cache is not None:
                k, v = cache.update(k, v)
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
        cached_layer(options=lambda T, S, c: {"attn_mask": torch.ones(T, T).tril().bool()})
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
