"""Checks of sizes, with the standard library alone; each names the argument and what came."""

from __future__ import annotations


def check_size(name: str, value: int | None, *, least: int = 1) -> int:
    """Check that a size is an integer of at least ``least``.

    Args:
        name: the argument's name, for the message.
        value: what came.
        least: the smallest allowed value.

    Returns:
        ``value``, unchanged.

    Raises:
        ValueError: if ``value`` is not an integer, or is less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return value
