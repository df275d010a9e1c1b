"""Checks of sizes, with the standard library alone; each names the argument and what came."""

from __future__ import annotations

import operator
from typing import SupportsIndex


def check_size(name: str, value: SupportsIndex | None, *, least: int = 1) -> int:
    """Check that a size is an integer of at least ``least``.

    Integers of numpy, of a data frame or of a tensor of one number are taken; a bool is not,
    and neither is a float that happens to be whole.

    Args:
        name: the argument's name, for the message.
        value: what came.
        least: the smallest allowed value.

    Returns:
        ``value`` as Python's own integer, whose products are exact.

    Raises:
        ValueError: if ``value`` is not an integer, or is less than ``least``.
    """
    try:
        size = None if value is None or isinstance(value, bool) else operator.index(value)
    except TypeError:  # a float, a text, a tensor of several numbers
        size = None
    if size is None or size < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return size
