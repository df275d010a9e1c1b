"""Rotary positions: angles, the two pairings, and the two scalings."""

import math

import pytest
import torch
from helpers import B, H, T, close

from attnlib import (
    DynamicNtkScaling,
    LinearScaling,
    Llama3Scaling,
    LongRopeScaling,
    NtkScaling,
    Rope,
    YarnScaling,
    apply_rope,
    rope_angles,
)

D = 8
PAIRINGS = pytest.mark.parametrize("interleaved", [False, True])
# Where half-split pairing finds the numbers that interleaved pairing keeps side by side.
TO_HALVES = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])


def speeds(*, scaling=None, base=500.0, dim=D, length=None):
    """Radians per token of each pair, read off at position 1 (all below pi)."""
    cos, sin = rope_angles(torch.tensor([1]), dim, base=base, scaling=scaling, length=length)
    return torch.atan2(sin, cos)[0].double()


def test_angles_are_position_times_speed():
    """Catches a wrong exponent, such as -i / dim for -2i / dim, and a base left out."""
    positions = torch.tensor([0, 1, 5, 31])
    cos, sin = rope_angles(positions, D, base=500.0)
    assert cos.shape == sin.shape == (4, D // 2)
    assert cos.dtype == sin.dtype == torch.float32
    for row, m in enumerate(positions.tolist()):
        for i in range(D // 2):
            angle = m * 500.0 ** (-2 * i / D)
            assert cos[row, i].item() == pytest.approx(math.cos(angle), abs=1e-5)
            assert sin[row, i].item() == pytest.approx(math.sin(angle), abs=1e-5)


@pytest.mark.parametrize("far", [100_000, 131_071, 1_000_000])
def test_angles_are_exact_far_out(far):
    """Catches angles in float32, whose rounding turns a pair by the position's last bits."""
    cos, sin = rope_angles(torch.tensor([far]), D)
    angle = far * 10000.0 ** (-torch.arange(0, D, 2).double() / D)
    assert cos.dtype == sin.dtype == torch.float32
    assert (cos[0] - angle.cos()).abs().max() < 1e-7
    assert (sin[0] - angle.sin()).abs().max() < 1e-7


def test_only_the_distance_counts_far_out():
    """Catches scores that change with the position although the distance is the same."""
    rope = Rope()
    q, k = torch.randn(2, 1, 1, 1, 64, generator=torch.Generator().manual_seed(0)).double()
    scores = []
    for at in (0, 131_071, 1_000_000):
        turned = [rope.rotate(x, start=s, length=s + 1)[0] for x, s in ((q, at + 9), (k, at))]
        scores.append((turned[0] * turned[1]).sum().item())
    assert max(scores) - min(scores) < 1e-5


def test_turn_is_counter_clockwise():
    """Catches the sign: a quarter turn takes (1, 0) to (0, 1), in both pairings."""
    cos, sin = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])  # pair 0 by 90 degrees
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0]])
    assert torch.equal(apply_rope(x, cos, sin), torch.tensor([[-3.0, 2.0, 1.0, 4.0]]))
    turned = apply_rope(x, cos, sin, interleaved=True)
    assert torch.equal(turned, torch.tensor([[-2.0, 1.0, 3.0, 4.0]]))


@PAIRINGS
def test_turn_is_complex_multiplication(interleaved):
    """Catches numbers paired with the wrong partner or turned at another pair's speed."""
    x = torch.randn(B, H, T, D, dtype=torch.float64)
    cos, sin = rope_angles(torch.arange(3, 3 + T), D)

    def as_complex(numbers):
        pairs = (
            numbers.unflatten(-1, (-1, 2)) if interleaved else numbers.unflatten(-1, (2, -1)).mT
        )
        return torch.view_as_complex(pairs.contiguous())  # (..., T, D / 2)

    turned = apply_rope(x, cos, sin, interleaved=interleaved)
    close(as_complex(turned), as_complex(x) * torch.complex(cos, sin))


def test_pairings_differ_by_a_permutation_only():
    """Catches two layouts that are not the same rotation: permuted, they are equal."""
    x = torch.randn(B, H, T, D, dtype=torch.float64)
    cos, sin = rope_angles(torch.arange(T), D)
    interleaved = apply_rope(x, cos, sin, interleaved=True)[..., TO_HALVES]
    assert torch.equal(apply_rope(x[..., TO_HALVES], cos, sin), interleaved)


@PAIRINGS
def test_scores_depend_on_distance_alone(interleaved):
    """Catches queries and keys turned in opposite senses: shifted together, no score moves."""
    q, k = torch.randn(2, T, D, dtype=torch.float64)

    def scores(start):
        rope = Rope(interleaved=interleaved)
        q_turned, k_turned = rope.rotate(q, k, start=start, length=start + T)
        return q_turned @ k_turned.T

    close(scores(50), scores(0), tolerance=1e-5)  # angles are rounded to float32
    assert (scores(0) - q @ k.T).abs().max() > 0.1


@PAIRINGS
def test_length_of_vectors_stays(interleaved):
    """Catches a rotation that is none, and position 0 that moves."""
    x = torch.randn(B, H, T, D, dtype=torch.float64)
    cos, sin = rope_angles(torch.arange(T), D)
    turned = apply_rope(x, cos, sin, interleaved=interleaved)
    close(turned.norm(dim=-1), x.norm(dim=-1), tolerance=1e-6)
    assert torch.equal(turned[:, :, 0], x[:, :, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_result_has_the_dtype_of_x_and_its_accuracy(dtype):
    """Catches arithmetic in bfloat16: the result must be the float64 one, rounded once."""
    x = torch.randn(B, H, T, D).to(dtype)
    cos, sin = rope_angles(torch.arange(T), D)
    turned = apply_rope(x, cos, sin)
    assert turned.dtype == dtype
    exact = apply_rope(x.double(), cos, sin)
    error = (turned.double() - exact).abs()
    assert (error <= torch.finfo(dtype).eps * exact.abs() + 1e-6).all()


def test_rotate_starts_where_it_is_told():
    """Catches new tokens turned from position 0 instead of behind the cached ones."""
    x = torch.randn(B, H, T, D, dtype=torch.float64)
    rope = Rope(base=500.0, interleaved=True)
    (whole,) = rope.rotate(x, start=0, length=T)
    (tail,) = rope.rotate(x[:, :, 4:], start=4, length=T)
    assert torch.equal(tail, whole[:, :, 4:])


def test_rope_is_a_value():
    """Catches a mutable or identity-compared Rope; it is shared as a default argument."""
    assert Rope(500.0) == Rope(base=500.0) != Rope(500.0, interleaved=True)
    assert hash(Rope(scaling=NtkScaling(2.0))) == hash(Rope(scaling=NtkScaling(2.0)))
    with pytest.raises(AttributeError):
        Rope().base = 1.0


@pytest.mark.parametrize("factor", [1.0, 2.0, 8.0])
def test_ntk_aware_scaling_by_its_formula(factor):
    """Catches the exponent: base' = base * s^(d / (d - 2)), Peng et al. 2023, section 3.1."""
    base = 500.0 * factor ** (D / (D - 2))
    expected = torch.tensor([base ** (-2 * i / D) for i in range(D // 2)], dtype=torch.float64)
    close(speeds(scaling=NtkScaling(factor)), expected, tolerance=1e-5)


def test_ntk_aware_scaling_slows_the_last_pair_by_the_factor():
    """Catches d for d - 2: the slowest pair slows by s exactly, the fastest not at all."""
    plain, scaled = speeds(), speeds(scaling=NtkScaling(4.0))
    assert (plain / scaled)[0].item() == pytest.approx(1.0, rel=1e-6)
    assert (plain / scaled)[-1].item() == pytest.approx(4.0, rel=1e-4)
    assert (scaled[1:] < plain[1:]).all()


def test_ntk_aware_scaling_ignores_the_length():
    """Catches static and dynamic scaling mixed up."""
    scaling = NtkScaling(4.0)
    assert torch.equal(speeds(scaling=scaling, length=2), speeds(scaling=scaling, length=2000))


@pytest.mark.parametrize(("length", "stretch"), [(5, 1), (16, 1), (17, 17 / 16), (64, 4)])
def test_dynamic_scaling_by_its_formula(length, stretch):
    """Catches a base that grows before the trained length is reached, or by another rule."""
    base = 500.0 * (3 * stretch - (3 - 1)) ** (D / (D - 2))
    expected = torch.tensor([base ** (-2 * i / D) for i in range(D // 2)], dtype=torch.float64)
    scaling = DynamicNtkScaling(3.0, original_length=16)
    close(speeds(scaling=scaling, length=length), expected, tolerance=1e-5)


def test_dynamic_scaling_takes_the_length_from_the_last_position():
    """Catches an off-by-one: the token at position 31 is the 32nd."""
    scaling = DynamicNtkScaling(3.0, original_length=16)
    positions = torch.tensor([31, 2, 7])
    close(
        torch.stack(rope_angles(positions, D, scaling=scaling)),
        torch.stack(rope_angles(positions, D, scaling=scaling, length=32)),
    )
    shorter, _ = rope_angles(positions, D, scaling=scaling, length=31)
    assert not torch.equal(rope_angles(positions, D, scaling=scaling)[0], shorter)


def test_linear_scaling_slows_all_pairs_alike():
    """Catches scaled positions that miss a pair, or a factor applied the wrong way round."""
    close(speeds() / speeds(scaling=LinearScaling(4.0)), torch.full((4,), 4.0).double(), 1e-6)


def slowing(scaling, *, base=10_000.0, dim=128):
    """By which factor each pair gets slower."""
    return speeds(base=base, dim=dim) / speeds(base=base, dim=dim, scaling=scaling)


def test_llama3_scaling_goes_by_the_turns_in_training():
    """Catches high and low exchanged, and wavelengths where turns are meant."""
    turns = 8192 / (2 * math.pi * 500_000.0 ** (torch.arange(0, 128, 2).double() / 128))
    slowed = slowing(Llama3Scaling(8.0, 8192), base=500_000.0)
    assert (turns > 4).sum() == (turns < 1).sum() == 29  # 6 pairs lie between
    close(slowed[turns > 4], torch.ones(29).double(), 1e-5)
    close(slowed[turns < 1], torch.full((29,), 8.0).double(), 1e-5)
    between = slowed[(turns > 1) & (turns < 4)]
    assert (between.diff() > 0).all() and between[0] > 1 and between[-1] < 8


def test_yarn_scaling_leaves_fast_pairs_and_slows_slow_ones():
    """Catches beta_fast and beta_slow exchanged: for DeepSeek-V3's 32 pairs."""
    slowed = slowing(YarnScaling(40.0, 4096), dim=64)
    assert slowed[:11].tolist() == pytest.approx([1.0] * 11, rel=1e-5)
    assert slowed[23:].tolist() == pytest.approx([40.0] * 9, rel=1e-5)
    assert (slowed[10:24].diff() > 0).all()


def test_yarn_sharpens_the_softmax_once():
    """Catches a factor on rotated numbers and on scores, where one of them is meant."""
    m = 0.1 * math.log(40) + 1
    paper, deepseek = YarnScaling(40.0, 4096), YarnScaling(40.0, 4096, mscale_all_dim=1.0)
    assert (paper.rotation_factor, paper.score_factor) == (pytest.approx(m), 1.0)
    assert (deepseek.rotation_factor, deepseek.score_factor) == (1.0, pytest.approx(m * m))
    x = torch.randn(B, H, T, D, dtype=torch.float64)
    for scaling in (paper, deepseek):
        (turned,) = Rope(scaling=scaling).rotate(x, length=T)
        longer = turned.norm(dim=-1) / x.norm(dim=-1)  # (B, H, T)
        close(longer, torch.full_like(longer, scaling.rotation_factor), tolerance=1e-6)
        scale = Rope(scaling=scaling).softmax_scale(192)
        assert scale == pytest.approx(scaling.score_factor / math.sqrt(192))
    assert Rope().softmax_scale(16) == 0.25


@pytest.mark.parametrize(("length", "expected"), [(16, [1.0, 1, 2, 2]), (17, [1.0, 2, 3, 5])])
def test_longrope_chooses_its_factors_by_the_length(length, expected):
    """Catches the two lists exchanged, and an off-by-one at the original length."""
    scaling = LongRopeScaling(4.0, 16, (1.0, 1.0, 2.0, 2.0), (1.0, 2.0, 3.0, 5.0))
    slowed = speeds() / speeds(scaling=scaling, length=length)
    close(slowed, torch.tensor(expected).double(), tolerance=1e-5)
    assert scaling.rotation_factor == pytest.approx(math.sqrt(1.5))  # 1 + ln 4 / ln 16


@PAIRINGS
def test_a_part_of_a_head_is_rotated_as_a_narrower_head(interleaved):
    """Catches speeds of the whole width, and numbers beyond the part that move."""
    x = torch.randn(B, H, T, D, dtype=torch.float64)
    (turned,) = Rope(interleaved=interleaved, rotary_dim=4).rotate(x, start=9, length=9 + T)
    (narrow,) = Rope(interleaved=interleaved).rotate(x[..., :4], start=9, length=9 + T)
    assert torch.equal(turned, torch.cat([narrow, x[..., 4:]], dim=-1))
    (whole,) = Rope(rotary_dim=D).rotate(x, length=T)
    assert torch.equal(whole, Rope().rotate(x, length=T)[0])
