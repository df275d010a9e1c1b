"""Rotary position embedding: turn queries and keys by their positions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attnlib.checks import check_even, check_positions, check_size
from attnlib.rope_scaling import RopeScaling


def rope_angles(
    positions: Tensor,
    dim: int,
    *,
    base: float = 10000.0,
    scaling: RopeScaling | None = None,
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
        device of ``positions``; multiplied by the scaling's ``rotation_factor``.

    Raises:
        ValueError: if ``dim`` is odd or too small, ``base`` is not above 1, or the positions
            are not integers of one or two dimensions.
    """
    check_positions("positions", positions)
    rope = Rope(base, scaling=scaling)
    rope.check_width("dim", dim)
    if length is None:
        length = 0 if scaling is None else int(positions.max()) + 1
    return rope.angles(positions, dim, length)


def pair_speeds(dim: int, base: float, device: torch.device | None = None) -> Tensor:
    """Speed of each pair, base^(-2i / dim) radians per token; the arguments are not checked.

    Args:
        dim: width that is rotated, even.
        base: above 1.
        device: where the result is; ``None`` means the CPU.

    Returns:
        Shape ``(dim / 2,)``, float64, or float32 on Apple's GPUs, which have no float64.
    """
    exact = torch.float32 if device is not None and device.type == "mps" else torch.float64
    pair = torch.arange(0, dim, 2, device=device).to(exact)  # (dim / 2,): 0, 2, 4, ...
    return base ** (-pair / dim)  # (dim / 2,), radians per token


def pair_angles(positions: Tensor, speeds: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of each pair's angle, position times speed.

    Args:
        positions: shape ``(T,)`` or ``(B, T)``, int64, in tokens.
        speeds: shape ``(dim / 2,)``, in radians per token.

    Returns:
        ``(cos, sin)``, each of shape ``(T, dim / 2)`` or ``(B, T, dim / 2)``, float32.
    """
    angles = positions[..., None].to(speeds.dtype) * speeds  # (T, dim / 2), radians
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
        scaling: one of the rules of :mod:`attnlib.rope_scaling`, or ``None``.
        rotary_dim: how many numbers of each head are rotated, from its first; ``None`` means
            all. Pythia and GLM-4.5 rotate a part.

    Raises:
        ValueError: if ``base`` is not above 1, ``scaling`` is of another kind or ``rotary_dim``
            is odd or too small.
    """

    base: float = 10000.0
    interleaved: bool = False
    scaling: RopeScaling | None = None
    rotary_dim: int | None = None

    def __post_init__(self) -> None:
        """Check each setting."""
        if not self.base > 1:
            raise ValueError(f"base must be above 1, got {self.base}")
        if not isinstance(self.scaling, RopeScaling | None):
            kinds = "a rule such as NtkScaling or None"
            raise ValueError(f"scaling must be {kinds}, got {self.scaling!r}")
        if self.rotary_dim is not None:
            self.check_width("rotary_dim", self.rotary_dim)

    def check_width(self, name: str, width: int) -> int:
        """Check that a width can be rotated.

        Args:
            name: the argument's name, for the message.
            width: of one head's query and key.

        Returns:
            ``width``, unchanged.

        Raises:
            ValueError: if it is odd, below ``rotary_dim``, or less than 4 with scaling, which
                needs two pairs.
        """
        check_size(name, width, least=2 if self.scaling is None else 4)
        least = self.rotary_dim
        if least is not None and width < least:
            raise ValueError(f"{name} must be at least rotary_dim={least}, got {width}")
        return check_even(name, width)

    def angles(self, positions: Tensor, dim: int, length: int) -> tuple[Tensor, Tensor]:
        """Cosine and sine of each pair's angle; the arguments are not checked.

        Args:
            positions: shape ``(T,)`` or ``(B, T)``, int64, in tokens.
            dim: width that is rotated, even.
            length: tokens in the whole sequence, for scaling that depends on it.

        Returns:
            ``(cos, sin)``, as from :func:`rope_angles`.
        """
        speeds = pair_speeds(dim, self.base, positions.device)  # (dim / 2,)
        if self.scaling is None:
            return pair_angles(positions, speeds)
        speeds = self.scaling.scale_speeds(speeds, base=self.base, length=length)
        cos, sin = pair_angles(positions, speeds)  # (T, dim / 2) each
        return cos * self.scaling.rotation_factor, sin * self.scaling.rotation_factor

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
        dim = D if self.rotary_dim is None else self.rotary_dim
        cos, sin = self.angles(positions, dim, length)  # (T, dim / 2) each
        if positions.ndim == 2:  # each sequence has its own angles, which its heads share
            cos, sin = cos[:, None], sin[:, None]  # (B, 1, T, dim / 2)
        if dim == D:
            return tuple(turn_pairs(x, cos, sin, self.interleaved) for x in tensors)
        turned = [turn_pairs(x[..., :dim], cos, sin, self.interleaved) for x in tensors]
        rest = [x[..., dim:] for x in tensors]  # (..., T, D - dim) each
        return tuple(torch.cat(parts, dim=-1) for parts in zip(turned, rest, strict=True))

    def softmax_scale(self, width: int) -> float:
        """Factor on the scores of a layer that rotates only a part of each head.

        Args:
            width: of one head's query and key, rotated or not.

        Returns:
            1 / sqrt(width), times the ``score_factor`` of scaling.
        """
        factor = 1.0 if self.scaling is None else self.scaling.score_factor
        return factor / math.sqrt(width)
