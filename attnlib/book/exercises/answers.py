"""Compare a reader's answer with the right one, and describe the difference in a few words."""

from __future__ import annotations

from numbers import Real

import torch
from torch import Tensor

from attnlib.testing import TOLERANCE, kind_of


def same(answer: object, expected: object) -> bool:
    """Whether an answer equals the expected one, to rounding."""
    if isinstance(expected, Tensor):
        if not isinstance(answer, Tensor) or answer.shape != expected.shape:
            return False
        if answer.is_complex() != expected.is_complex():
            return False
        return torch.allclose(
            answer.double(), expected.double(), rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True
        )
    if isinstance(expected, tuple):
        if not isinstance(answer, tuple) or len(answer) != len(expected):
            return False
        return all(map(same, answer, expected))
    if isinstance(answer, Tensor) and answer.numel() == 1:
        answer = answer.item()
    if isinstance(expected, bool) or not isinstance(expected, (int, float)):
        try:
            return bool(answer == expected)
        except (RuntimeError, ValueError):  # several values where one was expected
            return False
    if not isinstance(answer, Real):
        return False
    return abs(answer - expected) <= TOLERANCE * max(abs(expected), TOLERANCE)


def difference(expected: object, answer: object) -> str:
    """Describe how a wrong answer differs: by its kind, its shape or its value."""
    if isinstance(expected, Tensor):
        return tensor_difference(expected, answer)
    scalar = isinstance(answer, Tensor) and answer.numel() == 1
    kinds = tuple if isinstance(expected, tuple) else (bool, Real, type(None))
    if answer is not None and not scalar and not isinstance(answer, kinds):
        return f"expected {in_short(expected)}, got {kind_of(answer)}"
    texts = in_short(expected), in_short(answer)
    if texts[0] == texts[1]:
        texts = str(expected), str(answer)
    return f"expected {texts[0]}, got {texts[1]}"


def tensor_difference(expected: Tensor, answer: object) -> str:
    """Describe the same for an expected tensor; values only if the shapes agree."""
    if not isinstance(answer, Tensor):
        return f"expected {kind_of(expected)}, got {kind_of(answer)}"
    if answer.shape != expected.shape:
        text = f"the shape is {tuple(answer.shape)}, expected {tuple(expected.shape)}"
        equal_sizes = answer.numel() == expected.numel()
        if equal_sizes and same(answer.flatten(), expected.flatten()):
            text += "; the numbers are right"
        return text
    if answer.is_complex():
        return "the shape is right; the numbers are complex and should be real"
    lost = (answer.isnan() & ~expected.isnan()).sum().item()
    if lost:
        return f"the shape is right; NaN: {lost} of {expected.numel()} numbers"
    if expected.numel() > 4:
        off = (expected.double() - answer.double()).abs().max()
        coarse = answer.dtype not in (torch.float32, torch.float64)
        dtype = f"; their dtype is {answer.dtype}" if coarse else ""
        return f"the shape is right; numbers differ, by up to {off:.2g}{dtype}"
    return f"expected {in_short(expected)}, got {in_short(answer)}"


def in_short(value: object) -> str:
    """A value in a few characters."""
    if isinstance(value, Tensor) and value.numel() > 4:
        return kind_of(value)
    if isinstance(value, Tensor) and value.ndim == 0:
        return in_short(value.item())
    if isinstance(value, Tensor):
        return str([round(number, 3) for number in value.flatten().tolist()])
    if isinstance(value, tuple):
        return f"({', '.join(map(in_short, value))})"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"{value}"[:40]
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
    return f"{value:.4g}"
