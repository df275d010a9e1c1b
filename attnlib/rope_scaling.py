"""Rules that stretch rotary positions beyond the length a model was trained on.

Each rule takes the speeds of the pairs and returns slower ones; a model names one in the
``rope_scaling`` or ``rope_parameters`` of its configuration.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from attnlib.scalars import check_size


class RopeScaling(ABC):
    """What :class:`~attnlib.rope.Rope` takes as ``scaling=``."""

    @abstractmethod
    def scale_speeds(self, speeds: Tensor, *, base: float, length: int) -> Tensor:
        """Slow down the pairs.

        Args:
            speeds: of the unscaled pairs, in radians per token, shape ``(dim / 2,)``, at least
                two of them.
            base: the base that these speeds come from.
            length: tokens in the whole sequence.

        Returns:
            The new speeds, of the same shape, dtype and device.
        """

    @property
    def rotation_factor(self) -> float:
        """Factor on the rotated queries and on the rotated keys."""
        return 1.0

    @property
    def score_factor(self) -> float:
        """Factor on the scores of layers that rotate only a part of each head (MLA)."""
        return 1.0


def check_stretch(factor: float, original_length: int | None = None) -> None:
    """Check what most rules are given.

    Args:
        factor: how many times longer the context becomes.
        original_length: tokens the model was trained on, or ``None``.

    Raises:
        ValueError: if ``factor`` is below 1 or ``original_length`` is not a positive integer.
    """
    if not factor >= 1:
        raise ValueError(f"factor must be at least 1, got {factor}")
    if original_length is not None:
        check_size("original_length", original_length)


def check_range(low_name: str, low: float, high_name: str, high: float) -> None:
    """Check the two ends of a ramp.

    Args:
        low_name: the argument's name, for the message.
        low: the lower end.
        high_name: the argument's name, for the message.
        high: the upper end.

    Raises:
        ValueError: unless 0 < low < high.
    """
    if not 0 < low < high:
        expected = f"{low_name} and {high_name} must be positive and rising"
        raise ValueError(f"{expected}, got {low} and {high}")


@dataclass(frozen=True)
class LinearScaling(RopeScaling):
    """Position interpolation: all pairs are slower by one factor.

    Source: Chen et al. 2023, arXiv 2306.15595. Gemma-3 does it in its global layers.

    Args:
        factor: s, how many times longer the context becomes; at least 1.

    Raises:
        ValueError: if ``factor`` is below 1.
    """

    factor: float

    def __post_init__(self) -> None:
        """Check the factor."""
        check_stretch(self.factor)

    def scale_speeds(self, speeds: Tensor, *, base: float, length: int) -> Tensor:
        """Divide every speed by the factor."""
        return speeds / self.factor


@dataclass(frozen=True)
class NtkScaling(RopeScaling):
    """NTK-aware scaling: a larger base, whatever the length.

    Source: the rule base' = base * s^(d / (d - 2)) as given in Peng et al. 2023, arXiv
    2309.00071, section 3.1. The slowest pair is slowed by exactly ``factor``, the fastest keeps
    its speed.

    Args:
        factor: s, how many times longer the context becomes; at least 1.

    Raises:
        ValueError: if ``factor`` is below 1.
    """

    factor: float

    def __post_init__(self) -> None:
        """Check the factor."""
        check_stretch(self.factor)

    def scale_speeds(self, speeds: Tensor, *, base: float, length: int) -> Tensor:
        """Enlarge the base."""
        return enlarge_base(speeds, self.factor)


@dataclass(frozen=True)
class DynamicNtkScaling(RopeScaling):
    """Dynamic NTK scaling: the base grows once a sequence outgrows the trained length.

    Source: ``_compute_dynamic_ntk_parameters`` in Hugging Face transformers,
    ``modeling_rope_utils.py``.

    Args:
        factor: how strongly the base grows; at least 1.
        original_length: tokens the model was trained on; up to there nothing changes.

    Raises:
        ValueError: if ``factor`` or ``original_length`` is below 1.
    """

    factor: float
    original_length: int

    def __post_init__(self) -> None:
        """Check the factor and the length."""
        check_stretch(self.factor, self.original_length)

    def scale_speeds(self, speeds: Tensor, *, base: float, length: int) -> Tensor:
        """Enlarge the base with the length."""
        stretch = max(length, self.original_length) / self.original_length
        return enlarge_base(speeds, self.factor * stretch - (self.factor - 1))


def enlarge_base(speeds: Tensor, factor: float) -> Tensor:
    """Speeds of the base that slows the last pair by a factor and pair 0 not at all.

    base' = base * factor^(d / (d - 2)) turns base^(-2i / d) into itself divided by
    factor^(2i / (d - 2)), so the base itself is not needed.

    Args:
        speeds: of the unscaled pairs, shape ``(d / 2,)``, at least two.
        factor: by which the last pair is slowed.

    Returns:
        The new speeds.
    """
    last = len(speeds) - 1  # d / 2 - 1
    pair = torch.arange(last + 1, dtype=speeds.dtype, device=speeds.device)  # (d / 2,)
    return speeds / factor ** (pair / last)


@dataclass(frozen=True)
class Llama3Scaling(RopeScaling):
    """Llama-3.1's rule: pairs that turned often in training keep their speed.

    A pair that made ``high_freq_factor`` turns or more keeps its speed. One that made
    ``low_freq_factor`` or fewer is slowed by ``factor``. In between, the speed is a mixture of
    the two.

    Source: ``apply_scaling`` in Meta's meta-llama/llama-models, ``models/llama3/model.py``, and
    ``_compute_llama3_parameters`` in Hugging Face transformers; the models are those of arXiv
    2407.21783. Llama-3.1 has the factor 8, Llama-3.2 the factor 32.

    Args:
        factor: how many times slower the slowest pairs become; at least 1.
        original_length: tokens the model was trained on before it was stretched.
        low_freq_factor: turns in training up to which a pair is slowed by the whole factor.
        high_freq_factor: turns in training from which a pair keeps its speed.

    Raises:
        ValueError: if ``factor`` or ``original_length`` is below 1, or unless
            0 < ``low_freq_factor`` < ``high_freq_factor``.
    """

    factor: float = 8.0
    original_length: int = 8192
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        """Check the factor, the length and the ends of the ramp."""
        check_stretch(self.factor, self.original_length)
        check_range("low_freq_factor", self.low_freq_factor,
                    "high_freq_factor", self.high_freq_factor)  # fmt: skip

    def scale_speeds(self, speeds: Tensor, *, base: float, length: int) -> Tensor:
        """Slow the pairs by their turns."""
        low, high = self.low_freq_factor, self.high_freq_factor
        turns = self.original_length * speeds / (2 * math.pi)  # (dim / 2,), in training
        kept = ((turns - low) / (high - low)).clamp(0, 1)  # 1 = keeps its speed
        return speeds * kept + speeds / self.factor * (1 - kept)  # (dim / 2,)


@dataclass(frozen=True)
class YarnScaling(RopeScaling):
    """YaRN: slow the pairs that turned little in training, and sharpen the softmax.

    A pair that made ``beta_fast`` turns or more in training keeps its speed, one that made
    ``beta_slow`` or fewer is slowed by ``factor``, and between the two lies a ramp. The ramp is
    linear in the number of the pair, as in published code; in the paper, in the turns.

    The softmax gets sharper by m(x) = 0.1 x ln(factor) + 1. With the defaults, rotated queries
    and keys are multiplied by m(1) each: this is the paper's rule, and gpt-oss's. DeepSeek sets
    ``mscale = mscale_all_dim``, because its layers rotate only a part of each head: rotation
    then multiplies by nothing, and MLA multiplies whole scores by m(mscale_all_dim)^2. As in
    transformers, the other variants have no factor on whole scores.

    Source: Peng et al. 2023, arXiv 2309.00071, sections 3.2 to 3.4; checked against
    ``_compute_yarn_parameters`` and DeepSeek-V3's layer in Hugging Face transformers.

    Args:
        factor: s, how many times longer the context becomes; at least 1.
        original_length: tokens the model was trained on before it was stretched.
        beta_fast: turns in training from which a pair keeps its speed.
        beta_slow: turns in training up to which a pair is slowed by the whole factor.
        mscale: x of the factor on the rotated numbers; at least 0.
        mscale_all_dim: x of the factor on all numbers of a head; at least 0.
        truncate: whether the ramp begins and ends at whole pairs; False in gpt-oss.

    Raises:
        ValueError: if ``factor`` or ``original_length`` is below 1, ``mscale`` or
            ``mscale_all_dim`` is negative, or unless 0 < ``beta_slow`` < ``beta_fast``.
    """

    factor: float
    original_length: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0
    truncate: bool = True

    def __post_init__(self) -> None:
        """Check the factor, the length, the ends of the ramp and the two scales."""
        check_stretch(self.factor, self.original_length)
        check_range("beta_slow", self.beta_slow, "beta_fast", self.beta_fast)
        for name in ("mscale", "mscale_all_dim"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")

    def scale_speeds(self, speeds: Tensor, *, base: float, length: int) -> Tensor:
        """Slow the pairs along a ramp."""
        dim = 2 * len(speeds)
        first = self.pair_with_turns(self.beta_fast, dim, base)
        last = self.pair_with_turns(self.beta_slow, dim, base)
        if self.truncate:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, dim - 1)
        pair = torch.arange(len(speeds), dtype=speeds.dtype, device=speeds.device)
        slowed = ((pair - first) / max(last - first, 0.001)).clamp(0, 1)  # 0 = keeps its speed
        return speeds * (1 - slowed) + speeds / self.factor * slowed  # (dim / 2,)

    def pair_with_turns(self, turns: float, dim: int, base: float) -> float:
        """Number of the pair that makes so many turns in training; rarely a whole one.

        Args:
            turns: within ``original_length`` tokens.
            dim: width that is rotated.
            base: of the unscaled speeds.

        Returns:
            The i for which base^(-2i / dim) * original_length = 2 pi * turns.
        """
        speed = 2 * math.pi * turns / self.original_length  # radians per token
        return -dim * math.log(speed) / (2 * math.log(base))

    def sharpening(self, mscale: float) -> float:
        """m(mscale) = 0.1 mscale ln(factor) + 1.

        Args:
            mscale: 0 for none.

        Returns:
            The factor on queries and on keys.
        """
        return 0.1 * mscale * math.log(self.factor) + 1

    @property
    def rotation_factor(self) -> float:
        """Factor on the rotated queries and on the rotated keys."""
        return self.sharpening(self.mscale) / self.sharpening(self.mscale_all_dim)

    @property
    def score_factor(self) -> float:
        """Factor on the scores of MLA."""
        return self.sharpening(self.mscale_all_dim) ** 2


@dataclass(frozen=True)
class LongRopeScaling(RopeScaling):
    """LongRoPE: one factor for each pair, found by search and published with the model.

    Source: Ding et al. 2024, arXiv 2402.13753; ``_compute_longrope_parameters`` in Hugging Face
    transformers. Phi-3 mini (128k) and Phi-4-mini use it.

    Args:
        factor: s, how many times longer the context becomes; at least 1.
        original_length: tokens the model was trained on before it was stretched; at least 2.
        short_factors: by which each pair is slowed up to the original length.
        long_factors: by which each pair is slowed in longer sequences.

    Raises:
        ValueError: if ``factor`` is below 1 or ``original_length`` below 2, or if the two lists
            have different lengths or hold a number that is not positive.
    """

    factor: float
    original_length: int
    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the factor, the length and the lists."""
        check_stretch(self.factor)
        check_size("original_length", self.original_length, least=2)
        short, long = self.short_factors, self.long_factors
        if len(short) != len(long):
            raise ValueError(
                "short_factors and long_factors must have the same length, got"
                f" {len(short)} and {len(long)}"
            )
        if not all(number > 0 for number in (*short, *long)):
            raise ValueError(f"factors of pairs must be positive, got {short} and {long}")

    def scale_speeds(self, speeds: Tensor, *, base: float, length: int) -> Tensor:
        """Divide each speed by its own factor.

        Args:
            speeds: of the unscaled pairs, shape ``(dim / 2,)``.
            base: not used by this rule.
            length: decides which list applies.

        Returns:
            The new speeds.

        Raises:
            ValueError: if there are not as many pairs as factors.
        """
        factors = self.long_factors if length > self.original_length else self.short_factors
        if len(factors) != len(speeds):
            raise ValueError(
                f"scaling has factors for {len(factors)} pairs, got {len(speeds)} pairs"
            )
        return speeds / torch.tensor(factors, dtype=speeds.dtype, device=speeds.device)

    @property
    def rotation_factor(self) -> float:
        """Factor on the rotated queries and on the rotated keys."""
        return math.sqrt(1 + math.log(self.factor) / math.log(self.original_length))
