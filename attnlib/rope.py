"""Rotary position embedding: turn queries and keys by their positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from attnlib.checks import check_even, check_positions, check_size


@dataclass(frozen=True)
class NtkScaling:
    """NTK-aware scaling: a larger base, whatever the length.

    Source: the rule base' = base * s^(d / (d - 2)) as given in Peng et al. 2023, arXiv
    2309.00071, section 3.1. The slowest pair is slowed by exactly ``factor``, the fastest is
    left alone.

    Args:
        factor: s, how many times longer the context shall be; at least 1.

    Raises:
        ValueError: if ``factor`` is below 1.
    """

    factor: float

    def __post_init__(self) -> None:
        """Check the factor."""
        if not self.factor >= 1:
            raise ValueError(f"factor must be at least 1, got {self.factor}")

    def scaled_base(self, base: float, dim: int, length: int) -> float:
        """Return the base to use in place of ``base``.

        Args:
            base: the base the model was trained with.
            dim: width that is rotated, at least 4.
            length: tokens in the sequence; not used by this rule.

        Returns:
            The scaled base.
        """
        return float(base * self.factor ** (dim / (dim - 2)))


@dataclass(frozen=True)
class DynamicNtkScaling:
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
        if not self.factor >= 1:
            raise ValueError(f"factor must be at least 1, got {self.factor}")
        check_size("original_length", self.original_length)

    def scaled_base(self, base: float, dim: int, length: int) -> float:
        """Return the base to use in place of ``base``.

        Args:
            base: the base the model was trained with.
            dim: width that is rotated, at least 4.
            length: tokens in the sequence.

        Returns:
            The scaled base.
        """
        stretch = max(length, self.original_length) / self.original_length
        return float(base * (self.factor * stretch - (self.factor - 1)) ** (dim / (dim - 2)))


def rope_angles(
    positions: Tensor,
    dim: int,
    *,
    base: float = 10000.0,
    scaling: NtkScaling | DynamicNtkScaling | None = None,
    length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angle by which each pair of each position is turned.

    Pair i of a token at position m is turned by m * base^(-2i / dim) radians. The angles are
    computed in float64: in float32 they are off by 0.02 radians at a million tokens.

    Source: Su et al. 2021, arXiv 2104.09864, section 3.2.2.

    Args:
        positions: shape ``(T,)`` or ``(B, T)``, int64, in tokens.
        dim: width that is rotated, even; dim / 2 pairs. Scaling needs at least 4.
        base: the larger, the slower the last pairs turn.
        scaling: how to stretch a trained model to longer contexts, or ``None``.
        length: tokens in the sequence, for scaling that depends on it; ``None`` means up to the
            last of ``positions``.

    Returns:
        ``(cos, sin)``, each of shape ``(T, dim / 2)`` or ``(B, T, dim / 2)``, float32, on the
        device of ``positions``.

    Raises:
        ValueError: if ``dim`` is odd or too small, ``base`` is not above 1, or the positions
            are not integers of one or two dimensions.
    """
    check_positions("positions", positions)
    check_even("dim", dim)
    if not base > 1:
        raise ValueError(f"base must be above 1, got {base}")
    if scaling is not None:
        check_size("dim", dim, least=4)  # the rule divides by dim - 2
        length = int(positions.max()) + 1 if length is None else length
        base = scaling.scaled_base(base, dim, length)
    return pair_angles(positions, dim, base)


def pair_angles(positions: Tensor, dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each pair's angle; the arguments are not checked.

    Args:
        positions: shape ``(T,)`` or ``(B, T)``, int64, in tokens.
        dim: width that is rotated, even.
        base: above 1.

    Returns:
        ``(cos, sin)``, each of shape ``(T, dim / 2)`` or ``(B, T, dim / 2)``, float32.
    """
    on_mps = positions.device.type == "mps"  # Apple's GPUs have no float64
    exact = torch.float32 if on_mps else torch.float64
    pair = torch.arange(0, dim, 2, device=positions.device)  # (dim / 2,)
    speed = base ** (-pair.to(exact) / dim)  # (dim / 2,), radians per token
    angles = positions[..., None].to(exact) * speed  # (T, dim / 2), radians
    return angles.cos().float(), angles.sin().float()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """Turn every pair (a, b) of x counter-clockwise: (a cos - b sin, a sin + b cos).

    Half-split pairing takes (x[i], x[i + D/2]), as Hugging Face's Llama does; interleaved
    pairing takes (x[2i], x[2i + 1]), as the paper, Meta's Llama and DeepSeek do.

    Source: Su et al. 2021, arXiv 2104.09864, equation 34 (interleaved).

    Args:
        x: shape ``(..., T, D)``, D even.
        cos: shape ``(T, D / 2)``, from :func:`rope_angles`.
        sin: shape ``(T, D / 2)``.
        interleaved: which numbers of x make a pair.

    Returns:
        The turned x, of the same shape and dtype. The arithmetic runs in the wider of the two
        dtypes, so bfloat16 is turned in float32.

    Raises:
        ValueError: if D is odd, or ``cos`` or ``sin`` is not of shape ``(T, D / 2)``.
    """
    D = check_even("the width of x", x.shape[-1])
    for name, table in (("cos", cos), ("sin", sin)):
        expected = (x.shape[-2], D // 2)
        if table.shape != expected:
            got = tuple(table.shape)
            raise ValueError(f"{name} must have shape (T, D / 2) = {expected}, got {got}")
    return turn_pairs(x, cos, sin, interleaved)


def turn_pairs(x: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """Turn every pair of x; the arguments are not checked.

    Args:
        x: shape ``(..., T, D)``, D even.
        cos: shape ``(T, D / 2)``, or ``(B, 1, T, D / 2)`` where sequences differ.
        sin: as ``cos``.
        interleaved: which numbers of x make a pair.

    Returns:
        The turned x, of the same shape and dtype.
    """
    if interleaved:
        a, b = x[..., 0::2], x[..., 1::2]  # (..., T, D / 2) each
    else:
        a, b = x.chunk(2, dim=-1)  # (..., T, D / 2) each
    a, b = a * cos - b * sin, a * sin + b * cos
    if interleaved:
        turned = torch.stack((a, b), dim=-1).flatten(-2)  # (..., T, D)
    else:
        turned = torch.cat((a, b), dim=-1)  # (..., T, D)
    return turned.to(x.dtype)


@dataclass(frozen=True)
class Rope:
    """How a layer rotates its queries and keys; a value that modules take as ``rope=``.

    Source: Su et al. 2021, arXiv 2104.09864.

    Args:
        base: the larger, the slower the last pairs turn.
        interleaved: pair (x[2i], x[2i + 1]) instead of (x[i], x[i + D/2]).
        scaling: :class:`NtkScaling`, :class:`DynamicNtkScaling` or ``None``.

    Raises:
        ValueError: if ``base`` is not above 1 or ``scaling`` is of another kind.
    """

    base: float = 10000.0
    interleaved: bool = False
    scaling: NtkScaling | DynamicNtkScaling | None = None

    def __post_init__(self) -> None:
        """Check the base and the kind of scaling."""
        if not self.base > 1:
            raise ValueError(f"base must be above 1, got {self.base}")
        if not isinstance(self.scaling, NtkScaling | DynamicNtkScaling | None):
            kinds = "NtkScaling, DynamicNtkScaling or None"
            raise ValueError(f"scaling must be {kinds}, got {self.scaling!r}")

    def check_width(self, name: str, width: int) -> int:
        """Check that a width can be rotated.

        Args:
            name: the argument's name, for the message.
            width: of one head's query and key.

        Returns:
            ``width``, unchanged.

        Raises:
            ValueError: if it is odd, or less than 4 with scaling, whose rule divides by
                ``width - 2``.
        """
        check_size(name, width, least=2 if self.scaling is None else 4)
        return check_even(name, width)

    def rotate(self, *tensors: Tensor, start: int = 0, length: int,
               positions: Tensor | None = None) -> tuple[Tensor, ...]:  # fmt: skip
        """Turn tensors by the positions of their tokens.

        Args:
            tensors: each ``(..., T, D)``, of one T and D; with positions of each sequence
                ``(B, heads, T, D)``.
            start: position of the first token, where the others follow it.
            length: tokens in the whole sequence, for scaling that depends on it.
            positions: of the tokens, shape ``(T,)`` or ``(B, T)``, int64; ``None`` means start,
                start + 1, ...

        Returns:
            The turned tensors, each of its own shape and dtype.
        """
        T, D = tensors[0].shape[-2:]
        if positions is None:
            positions = torch.arange(start, start + T, device=tensors[0].device)  # (T,)
        base = self.base
        if self.scaling is not None:
            base = self.scaling.scaled_base(base, D, length)
        cos, sin = pair_angles(positions, D, base)  # (T, D / 2) each
        if positions.ndim == 2:  # each sequence has its own angles, which its heads share
            cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, D / 2)
        return tuple(turn_pairs(x, cos, sin, self.interleaved) for x in tensors)
