"""The window explorer: what a window layer sees and keeps, and how far several layers reach."""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cache

import torch
import traitlets
from torch import Tensor

from attnlib.book.widgets.base import Widget, one_of, table
from attnlib.checks import check_size
from attnlib.variants.swa import RingCache, window_mask

LEAST, MOST = 4, 20  # tokens: fewer show nothing, more cannot be told apart on a phone
FIRST = (0, 1, 2)  # first tokens that every query sees as well
RULES = {"sliding": "last W tokens", "chunks": "chunk of W tokens"}
# Layers from the first to the last: S has a window, F has none.
PATTERNS = {
    "S": "S: 1 window layer",
    "SS": "SS: 2 window layers",
    "SSS": "SSS: 3 window layers",
    "SSSS": "SSSS: 4 window layers",
    "SSSF": "SSSF: 3 window, then full",
    "FSSS": "FSSS: full, then 3 window",
    "SF": "SF: window, then full",
    "F": "F: 1 full layer",
}
DIGITS = string.digits + string.ascii_lowercase  # one character per position


class WindowExplorer(Widget, file="window"):
    """A window layer's mask, its ring of rows, and the reach of several layers.

    The page gets every mask from :func:`attnlib.variants.swa.window_mask` and the rows of every
    ring from :class:`attnlib.variants.swa.RingCache`. It looks them up, and follows them from
    layer to layer.

    Args:
        tokens: length of the text, from 4 to 20.
        window: W at first, tokens that a query sees, its own included; at most ``tokens``.
        rule: at first, ``"sliding"`` for the last W tokens, or ``"chunks"`` of W tokens.
        first: first tokens kept at first: 0, 1 or 2; 0 with chunks.
        pattern: layers at first, from the first to the last: S for a window, F for full
            attention; one of `attnlib.book.widgets.window.PATTERNS`.
        query: the token chosen at first; ``None`` means the last.
        label: the figure's title.

    Attributes:
        window: W, tokens that a query sees in a window layer, or tokens of a chunk.
        rule: ``"sliding"`` or ``"chunks"``.
        first: first tokens that every query sees as well; without effect on chunks.
        pattern: layers, from the first to the last.
        query: the token chosen.

    Raises:
        ValueError: if ``tokens`` is not an integer within its limits, if a first state is not
            one of the choices, or if ``first`` comes with chunks.
    """

    anchor = "window-explorer"

    window = traitlets.Int(1).tag(sync=True, state=True)
    rule = traitlets.Unicode("sliding").tag(sync=True, state=True)
    first = traitlets.Int(0).tag(sync=True, state=True)
    pattern = traitlets.Unicode("SSS").tag(sync=True, state=True)
    query = traitlets.Int(0).tag(sync=True, state=True)

    _window = one_of("window", lambda self: range(1, self.data["tokens"] + 1))
    _rule = one_of("rule", lambda self: RULES)
    _first = one_of("first", lambda self: FIRST)
    _pattern = one_of("pattern", lambda self: PATTERNS)
    _query = one_of("query", lambda self: range(self.data["tokens"]))

    def __init__(
        self,
        tokens: int = 16,
        window: int = 4,
        *,
        rule: str = "sliding",
        first: int = 0,
        pattern: str = "SSS",
        query: int | None = None,
        label: str = "What a window sees, keeps and reaches",
    ):
        if check_size("tokens", tokens, least=LEAST) > MOST:
            raise ValueError(f"tokens must be at most {MOST} to be drawn, got {tokens}")
        if rule == "chunks" and first:
            raise ValueError(f"first must be 0 with chunks, got {first}")
        super().__init__(data=window_data(tokens), label=label)
        state = {"window": check_size("window", window), "rule": rule, "pattern": pattern}
        state["first"] = check_size("first", first, least=0)
        state["query"] = tokens - 1 if query is None else check_size("query", query, least=0)
        for name, value in state.items():
            self.set_trait(name, value)

    def fallback(self) -> str:
        """Return tables of the reach, layer by layer, and of the ring's rows."""
        tokens, query, window = self.data["tokens"], self.query, self.window
        first = 0 if self.rule == "chunks" else self.first
        levels = reach(self.pattern, mask(tokens, window, self.rule, first), query)
        rows = [["the output", len(levels[0]), in_words(levels[0])]]
        rows += [
            [f"the input of layer {i}", len(level), in_words(level)]
            for i, level in zip(reversed(range(len(self.pattern))), levels[1:], strict=True)
        ]
        which = "the last W tokens" if self.rule == "sliding" else "its chunk of W tokens"
        also = ("", " and the first token", " and the first two tokens")[first]
        about = f"In a window layer (S) a token sees {which}{also}, W = {window}."
        far = table(
            ["reached in", "tokens", "which"],
            rows,
            f"How far the output of token {query} reaches back through the layers"
            f" {self.pattern}. {about}",
        )
        held = ring(tokens, window, first)[query]
        rows = [[f"row {i}", f"token {at}"] for i, at in enumerate(held)]
        rows += [[f"row {i}", "empty"] for i in range(len(held), first + window)]
        kept = (
            f"The cache of one window layer after token {query}: {len(held)} of {query + 1}"
            " tokens are kept."
        )
        return far + table(["row", "holds"], rows, kept)


@cache
def mask(tokens: int, window: int, rule: str, first: int) -> Tensor:
    """Return which tokens each token sees in a window layer.

    Args:
        tokens: length of the text, T.
        window: W.
        rule: ``"sliding"`` or ``"chunks"``.
        first: first tokens that are seen as well.

    Returns:
        Boolean, shape ``(T, T)``; rows are queries, columns are keys.
    """
    at = torch.arange(tokens)
    return window_mask(at, at, window, first=first, chunked=rule == "chunks")


@cache
def ring(tokens: int, window: int, first: int) -> list[list[int]]:
    """Return what the rows of a window layer's cache hold after each token, one by one.

    Args:
        tokens: length of the text.
        window: W.
        first: first tokens that are kept.

    Returns:
        For each token the positions that the filled rows hold, in the order of the rows.
    """
    room = RingCache(1, 1, first + max(tokens, window), 1, window, first=first)
    one = torch.zeros(1, 1, 1, 1)
    return [room.update(one, one)[2].tolist() for _ in range(tokens)]


def reach(pattern: str, near: Tensor, query: int) -> list[list[int]]:
    """Return from which tokens the output of one token gets information, layer by layer.

    Args:
        pattern: layers, from the first to the last: S for a window, F for full attention.
        near: the mask of a window layer, shape ``(T, T)``.
        query: the token.

    Returns:
        The token itself; then the tokens that are reached in the input of the last layer, of
        the one before it, and so on.
    """
    full = mask(len(near), len(near), "sliding", 0)  # a window of T is full attention
    reached = torch.zeros(len(near), dtype=torch.bool)
    reached[query] = True
    levels = [[query]]
    for kind in reversed(pattern):
        reached = (full if kind == "F" else near)[reached].any(dim=0)  # (T,)
        levels.append(reached.nonzero().flatten().tolist())
    return levels


def window_data(tokens: int) -> dict[str, object]:
    """Return all masks and rings of a text for the page.

    Args:
        tokens: length of the text, T.

    Returns:
        ``tokens``; ``masks`` by rule, first tokens and W - 1, each a text of T * T digits;
        ``rings`` by first tokens and W - 1, each a text of T words, in which a character is
        the position that a row holds, to the base 36; and the choices.
    """
    windows = range(1, tokens + 1)
    masks = {
        rule: [
            [bits(mask(tokens, window, rule, first)) for window in windows]
            for first in (FIRST if rule == "sliding" else FIRST[:1])
        ]
        for rule in RULES
    }
    rings = [
        [" ".join(map(letters, ring(tokens, window, first))) for window in windows]
        for first in FIRST
    ]
    choices = {"rules": list(RULES.items()), "patterns": list(PATTERNS.items())}
    return {
        "tokens": tokens,
        "masks": masks,
        "rings": rings,
        "firsts": list(FIRST),
        **{name: [list(option) for option in options] for name, options in choices.items()},
    }


def bits(seen: Tensor) -> str:
    """Return a boolean mask as a text of 0 and 1, row after row."""
    return "".join("01"[cell] for cell in seen.flatten().tolist())


def letters(positions: Sequence[int]) -> str:
    """Return positions below 36 as one character each."""
    return "".join(DIGITS[at] for at in positions)


def in_words(tokens: Sequence[int]) -> str:
    """Return token numbers in words; the page does the same.

    Args:
        tokens: in order.

    Returns:
        Such as ``0, 1 and 12 to 15``.
    """
    runs: list[list[int]] = []
    for token in tokens:
        if runs and token == runs[-1][-1] + 1:
            runs[-1].append(token)
        else:
            runs.append([token])
    parts: list[str] = []
    for run in runs:
        parts += [f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run)
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)
