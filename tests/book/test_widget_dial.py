"""The RoPE dial in Python: its numbers are attnlib's, its arguments and state are checked."""

from __future__ import annotations

import math

import pytest
import torch

from attnlib import NtkScaling, apply_rope, rope_angles
from attnlib.book.widgets import RopeDial

torch.manual_seed(0)
Q, K = torch.randn(2, 6)
BASES, FACTORS = (100.0, 10_000.0), (1.0, 4.0, 16.0)


def made(**options) -> RopeDial:
    return RopeDial(Q, K, **{"bases": BASES, "factors": FACTORS, **options})


def true_score(m: int, n: int, base: float, factor: float) -> float:
    scaling = NtkScaling(factor) if factor > 1 else None
    cos, sin = rope_angles(torch.tensor([m, n]), 6, base=base, scaling=scaling)
    turned = apply_rope(torch.stack([Q, K]).double(), cos.double(), sin.double())
    return (turned[0] @ turned[1]).item()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("factor", FACTORS)
def test_lengths_directions_and_steps_give_attnlibs_scores(base, factor):
    data = made().data
    steps = data["steps"][data["bases"].index(base)][data["factors"].index(factor)]
    for m, n in ((0, 0), (10, 4), (64, 61), (3, 64), (64, 0)):
        score = sum(
            q * k * math.cos(from_q + m * step - from_k - n * step)
            for (q, from_q), (k, from_k), step in zip(data["q"], data["k"], steps, strict=True)
        )
        assert score == pytest.approx(true_score(m, n, base, factor), abs=5e-4)
        assert made().score(m, n, base, factor) == pytest.approx(
            true_score(m, n, base, factor), abs=1e-6
        )


def test_tokens_a_turn_are_what_the_speeds_say():
    data = made().data
    assert data["turns"][1][0] == [f"{math.tau * 10_000 ** (i / 3):,.0f}" for i in range(3)]
    slowed = [base * 4 ** (6 / 4) for base in BASES]  # the rule for a width of 6
    assert data["turns"][0][1] == [f"{math.tau * slowed[0] ** (i / 3):,.0f}" for i in range(3)]
    assert data["steps"][1][1][-1] == pytest.approx(data["steps"][1][0][-1] / 4, rel=1e-5)


def test_the_pairs_are_half_split():
    dial = RopeDial(torch.tensor([3.0, 0.0, 4.0, 2.0]), torch.ones(4))
    assert dial.data["q"] == [[5.0, 0.927295], [2.0, 1.5708]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q": torch.ones(5)}, r"q must have shape .* got \(5,\)"),
        ({"k": torch.ones(2, 6)}, r"k must have shape .* got \(2, 6\)"),
        ({"q": torch.ones(18)}, r"q must have shape .* got \(18,\)"),
        ({"q": torch.ones(2)}, r"q must have shape .* got \(2,\)"),
        ({"k": torch.full((6,), torch.nan)}, "k must be finite, got .*nan"),
        ({"k": torch.ones(4)}, "q and k must have one width, got 6 and 4"),
        ({"positions": 0}, "positions must be 1 to 256, got 0"),
        ({"positions": 300}, "positions must be 1 to 256, got 300"),
        ({"trained": 65}, "trained must be 1 to positions = 64, got 65"),
        ({"bases": ()}, "bases must hold at least one value"),
        ({"factors": ()}, "factors must hold at least one value"),
        ({"bases": (1.0,)}, "base must be above 1, got 1.0"),
        ({"factors": (0.5,)}, "factor must be at least 1, got 0.5"),
        ({"factors": (4.0, 1.0), "trained": 16}, "factors must begin with 1 .* got 4.0"),
        ({"query_position": 65}, "query_position must be one of .* got 65"),
        ({"key_position": -1}, "key_position must be one of .* got -1"),
        ({"pair": 3}, "pair must be one of 0, 1, 2, got 3"),
        ({"base": 500.0}, "base must be one of 100.0, 10000.0, got 500.0"),
        ({"scaling": 2.0}, "scaling must be one of 1.0, 4.0, 16.0, got 2.0"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        RopeDial(**{"q": Q, "k": K, "bases": BASES, "factors": FACTORS, **options})


def test_state_is_checked_after_construction_too():
    dial = made()
    with pytest.raises(ValueError, match="got 65"):
        dial.query_position = 65
    dial.key_position = 64
    assert dial.state()["key_position"] == 64


def test_the_fallback_shows_equal_scores_at_equal_distances():
    text = made(query_position=20, key_position=13).fallback()
    for base in BASES:
        for factor in FACTORS:
            score = f"{true_score(7, 0, base, factor):.2f}".replace("-", "\N{MINUS SIGN}")
            assert text.count(f"<td>{score}</td>") >= 4  # as given, +1, +10, and at the end
    assert '<th scope="row">64</th><td>57</td><td>7</td>' in text
    assert "base 10,000, NTK-aware scaling by 16" in text


def test_a_score_that_rounds_to_zero_has_no_minus():
    q, k = torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([0.001, 0.0, 0.0, 0.0])
    assert "\N{MINUS SIGN}0.00" not in RopeDial(-q, k).fallback()


def test_equal_dials_give_equal_html_and_other_ones_do_not():
    assert made().html() == made().html()
    assert made().html() != made(key_position=5).html()
    assert repr(made(label="Turn")) == "RopeDial('Turn')"
