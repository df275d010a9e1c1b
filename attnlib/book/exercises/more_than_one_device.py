"""Exercise on more than one device: what each keeps of a cache."""

from __future__ import annotations

from collections.abc import Callable

from attnlib.book.exercises.grading import Exercise, Grade, Mistake

Part = Callable[[int, int, int, int, int, str], float | None]


def heads_of(n_heads: int, n_kv_heads: int, devices: int) -> float | None:
    """KV heads of one device, by heads."""
    if n_heads % devices or (n_kv_heads % devices and devices % n_kv_heads):
        return None
    return max(1, n_kv_heads // devices)


def part(
    *,
    by_heads: Callable[[int, int, int], float | None] = heads_of,
    positions: Callable[[int, int], float] = lambda tokens, devices: -(-tokens // devices),
    sequences: Callable[[int, int], float | None] = (
        lambda batch_size, devices: None if batch_size % devices else batch_size // devices
    ),
) -> Part:
    """An answer made of three rules."""

    def kept(
        n_heads: int, n_kv_heads: int, batch_size: int, tokens: int, devices: int, split: str
    ) -> float | None:
        each: list[float | None] = [n_kv_heads, batch_size, tokens]
        if split == "heads":
            each[0] = by_heads(n_heads, n_kv_heads, devices)
        elif split == "sequences":
            each[1] = sequences(batch_size, devices)
        else:
            each[2] = positions(tokens, devices)
        total = 1.0
        for factor in each:
            if factor is None:
                return None
            total *= factor
        return total

    return kept


PART = Exercise(
    answer=part(),
    cases={
        "32 and 8 heads, 8 devices": (32, 8, 2, 100, 8, "heads"),
        "64 and 8 heads, 4 devices": (64, 8, 3, 50, 4, "heads"),
        "64 and 4 heads, 8 devices": (64, 4, 2, 100, 8, "heads"),
        "32 and 1 heads, 8 devices": (32, 1, 1, 10, 8, "heads"),
        "12 heads, 8 devices": (12, 4, 8, 10, 8, "heads"),
        "24 and 6 heads, 8 devices": (24, 6, 8, 10, 8, "heads"),
        "64 users": (32, 8, 64, 100, 8, "sequences"),
        "12 users": (32, 8, 12, 100, 8, "sequences"),
        "100 positions": (32, 8, 2, 100, 8, "positions"),
    },
    mistakes=[
        Mistake("a part of a KV head. It is the smallest piece: with fewer KV heads than"
                " devices, each device keeps a whole one.",
                part(by_heads=lambda H, H_kv, N: None if H % N else H_kv / N)),
        Mistake("nothing for fewer KV heads than devices. They are copied.",
                part(by_heads=lambda H, H_kv, N: None if H % N or H_kv % N else H_kv // N)),
        Mistake("no KV head at all: H_kv // N is 0 with fewer KV heads than devices.",
                part(by_heads=lambda H, H_kv, N: (
                    None if heads_of(H, H_kv, N) is None else H_kv // N))),
        Mistake("query heads. Only KV heads are cached.",
                part(by_heads=lambda H, H_kv, N: (
                    None if heads_of(H, H_kv, N) is None else H // N))),
        Mistake("by heads, the query heads have to be divided as well.",
                part(by_heads=lambda H, H_kv, N: (
                    None if H_kv % N and N % H_kv else max(1, H_kv // N)))),
        Mistake("KV heads that cannot be dealt out evenly. They and the devices have to divide"
                " one another one way or the other.",
                part(by_heads=lambda H, H_kv, N: None if H % N else max(1, H_kv // N))),
        Mistake("positions rounded down. The device that keeps most has one more.",
                part(positions=lambda tokens, N: tokens // N)),
        Mistake("a part of a position. Round up.",
                part(positions=lambda tokens, N: tokens / N)),
        Mistake("a part of a sequence. By sequences, the devices have to divide the batch.",
                part(sequences=lambda batch_size, N: batch_size / N)),
        Mistake("sequences rounded. If the devices do not divide the batch, return None.",
                part(sequences=lambda batch_size, N: -(-batch_size // N))),
    ],
)  # fmt: skip


def grade_part(function: Part) -> Grade:
    """Grade what one of several devices keeps of a cache (More than one device).

    Args:
        function: takes ``(n_heads, n_kv_heads, batch_size, tokens, devices, split)``; returns
            KV heads times sequences times positions of the device that keeps most, or ``None``
            if the layer or the batch cannot be split evenly.

    Returns:
        The grade.
    """
    return PART.grade(function)
