"""The RoPE dial: query and key rotate by their positions; the score depends on the distance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import traitlets
from torch import Tensor

from attnlib.book.widgets.base import Widget, one_of, table
from attnlib.rope import apply_rope, rope_angles
from attnlib.rope_scaling import NtkScaling

MAX_PAIRS = 8  # more dials cannot be told apart on a page
MAX_POSITIONS = 256  # beyond it, the page's six digits per angle would be visible


class RopeDial(Widget, file="dial"):
    """One query and one key, rotated pair by pair, and their score over the distance.

    Args:
        q: the query, shape ``(D,)``, half-split pairs ``(q[i], q[i + D/2])``, D from 4 to 16.
        k: the key, shape ``(D,)``.
        positions: the largest position of either, in tokens.
        bases: bases that the reader can choose; a single one gives no choice.
        factors: factors of NTK-aware scaling that the reader can choose; 1 is no scaling.
        trained: distances up to this one, in tokens, are marked as seen in training without
            scaling; ``None`` marks nothing.
        label: the figure's title.
        query_position: of the query at first, in tokens.
        key_position: of the key at first, in tokens.
        pair: the pair that is enlarged at first.
        base: at first; ``None`` means the first of ``bases``.
        scaling: the factor at first; ``None`` means the first of ``factors``.

    Attributes:
        query_position: of the query, in tokens.
        key_position: of the key, in tokens.
        pair: the pair that is enlarged.
        base: of the rotation.
        scaling: factor of NTK-aware scaling.

    Raises:
        ValueError: if q and k are not finite vectors of one even width, if a base, a factor or
            ``trained`` is out of range, if ``trained`` is given and the first factor is not 1,
            or if a first state is not one of the choices.
    """

    query_position = traitlets.Int().tag(sync=True, state=True)
    key_position = traitlets.Int().tag(sync=True, state=True)
    pair = traitlets.Int().tag(sync=True, state=True)
    base = traitlets.Float().tag(sync=True, state=True)
    scaling = traitlets.Float().tag(sync=True, state=True)

    _query_position = one_of("query_position", lambda self: range(self.data["positions"] + 1))
    _key_position = one_of("key_position", lambda self: range(self.data["positions"] + 1))
    _pair = one_of("pair", lambda self: range(len(self.data["q"])))
    _base = one_of("base", lambda self: self.data["bases"])
    _scaling = one_of("scaling", lambda self: self.data["factors"])

    def __init__(
        self,
        q: Tensor,
        k: Tensor,
        *,
        positions: int = 64,
        bases: Sequence[float] = (10_000.0,),
        factors: Sequence[float] = (1.0,),
        trained: int | None = None,
        label: str = "A query and a key, turned by their positions",
        query_position: int = 10,
        key_position: int = 4,
        pair: int = 0,
        base: float | None = None,
        scaling: float | None = None,
    ):
        self._vectors = [checked_vector(name, x) for name, x in (("q", q), ("k", k))]
        if len(self._vectors[0]) != len(self._vectors[1]):
            widths = " and ".join(str(len(x)) for x in self._vectors)
            raise ValueError(f"q and k must have one width, got {widths}")
        if not 1 <= positions <= MAX_POSITIONS:
            raise ValueError(f"positions must be 1 to {MAX_POSITIONS}, got {positions}")
        if trained is not None and not 1 <= trained <= positions:
            raise ValueError(f"trained must be 1 to positions = {positions}, got {trained}")
        for name, values in (("bases", bases), ("factors", factors)):
            if not values:
                raise ValueError(f"{name} must hold at least one value, got none")
        if trained is not None and factors[0] != 1:
            raise ValueError(
                f"factors must begin with 1 where trained is given, got {factors[0]}: training"
                " was not scaled"
            )
        D = len(self._vectors[0])
        steps = [[pair_steps(D, b, s) for s in factors] for b in bases]
        data = {
            "positions": positions,
            "trained": trained,
            "q": arrows(self._vectors[0]),
            "k": arrows(self._vectors[1]),
            "bases": [float(b) for b in bases],
            "factors": [float(s) for s in factors],
            "steps": [[[digits(a) for a in row] for row in rows] for rows in steps],
            "turns": [
                [[f"{math.tau / a:,.0f}" for a in row] for row in rows] for rows in steps
            ],
        }
        super().__init__(data=data, label=label)
        self.set_trait("query_position", query_position)
        self.set_trait("key_position", key_position)
        self.set_trait("pair", pair)
        self.set_trait("base", data["bases"][0] if base is None else base)
        self.set_trait("scaling", data["factors"][0] if scaling is None else scaling)

    def score(
        self, query_position: int, key_position: int, base: float, factor: float
    ) -> float:
        """Return q . k after :mod:`attnlib.rope` has rotated both."""
        at = torch.tensor([query_position, key_position])
        cos, sin = rope_angles(at, len(self._vectors[0]), base=base, scaling=rule(factor))
        q, k = apply_rope(torch.stack(self._vectors), cos, sin)
        return (q @ k).item()

    def fallback(self) -> str:
        """Return tables of scores at equal and other distances, and of the pairs' periods."""
        m, n, last = self.query_position, self.key_position, self.data["positions"]
        rest = last - max(m, n)
        places = [(m, n), *((m + by, n + by) for by in (1, 10, rest) if by <= rest)]
        places += [(d, 0) for d in (0, 1, 2, 3, 4, 8, 16, 32, 64, 128) if d <= last]
        settings = [(b, s) for b in self.data["bases"] for s in self.data["factors"]]
        names = [setting(b, s) for b, s in settings]
        rows = [
            [m, n, m - n, *(signed(self.score(m, n, b, s)) for b, s in settings)]
            for m, n in dict.fromkeys(places)
        ]
        heads = ["query at", "key at", "distance", *(f"score, {name}" for name in names)]
        caption = "The score depends on the distance only."
        columns = [row for rows in self.data["turns"] for row in rows]
        pairs = [[f"pair {i}", *turns] for i, turns in enumerate(zip(*columns, strict=True))]
        speeds = table(["", *names], pairs, "Tokens that each pair needs for a full turn.")
        return table(heads, rows, caption) + speeds


def checked_vector(name: str, x: Tensor) -> Tensor:
    """Return a query or key in float64.

    Args:
        name: of the argument, for error messages.
        x: shape ``(D,)``.

    Returns:
        The same numbers on the CPU.

    Raises:
        ValueError: if it is not a finite vector with an even width from 4 to 16.
    """
    x = torch.as_tensor(x).detach().to("cpu", torch.float64)
    if x.ndim != 1 or len(x) % 2 or not 4 <= len(x) <= 2 * MAX_PAIRS:
        expected = f"shape (D,), D even and 4 to {2 * MAX_PAIRS}"
        raise ValueError(f"{name} must have {expected}, got {tuple(x.shape)}")
    if not x.isfinite().all():
        raise ValueError(f"{name} must be finite, got {x.tolist()}")
    return x


def setting(base: float, factor: float) -> str:
    """Return the name of a base with a scaling factor."""
    name = f"base {base:,.0f}"
    return name if factor == 1 else f"{name}, NTK-aware scaling by {factor:g}"


def rule(factor: float) -> NtkScaling | None:
    """Return NTK-aware scaling by a factor, or ``None`` for the factor 1."""
    return None if factor == 1 else NtkScaling(factor)


def pair_steps(D: int, base: float, factor: float) -> list[float]:
    """Return the angle by which each of the D / 2 pairs rotates per token, in radians."""
    cos, sin = rope_angles(torch.tensor([1]), D, base=base, scaling=rule(factor))
    return torch.atan2(sin[0].double(), cos[0].double()).tolist()


def arrows(x: Tensor) -> list[list[float]]:
    """Return length and direction (in radians) of each half-split pair of a vector."""
    a, b = x.chunk(2)  # (D / 2,) each
    lengths, angles = torch.hypot(a, b).tolist(), torch.atan2(b, a).tolist()
    return [[digits(r), digits(angle)] for r, angle in zip(lengths, angles, strict=True)]


def digits(x: float) -> float:
    """Return a number with six significant digits, so that every processor stores the same."""
    return float(f"{x:.6g}")


def signed(x: float) -> str:
    """Return a number with two decimals and a typographic minus."""
    return f"{round(x, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")
