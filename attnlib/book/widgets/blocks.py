"""The block walk: a softmax that reads one block of keys at a time and is exact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import traitlets
from torch import Tensor

from attnlib.blocks import attention_in_blocks, merge
from attnlib.book.widgets.base import Widget, one_of, table
from attnlib.core import attention
from attnlib.masks import causal_mask

KEYS, WIDTH = 8, 2  # more keys, or wider values, do not fit on a phone
QUERIES = (2, 3, 4)
SIZES = (1, 2, 4, 8)  # of a block, in keys
LARGEST = 99  # of scores and values, so that a number fits into its cell
VIEWS = {"walk": "one by one", "parts": "in parts, then merged"}
ORDERS = {"left": "from the left", "right": "from the right"}
DECIMALS = 3  # of what the page shows, except in its table of scores
# Queries whose largest score comes later and later, comes first, or comes very late; and one
# whose scores are all equal, so that its output is the plain mean.
SCORES = (
    (0.5, 0.7, 2.1, 0.3, 1.2, -0.4, 3.0, 0.8),
    (2.4, 1.1, 0.2, -0.5, 1.6, 0.9, -1.0, 0.4),
    (-0.3, 0.6, 0.1, -0.8, 0.4, 0.2, -0.2, 4.0),
    (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
)
VALUES = ((1, 0), (0, 2), (2, 1), (-1, 1), (3, -1), (0, 3), (-2, 0), (1, -2))
Rows = Tensor | Sequence[Sequence[float]]


class BlockWalk(Widget, file="blocks"):
    """The softmax over the keys, block by block, as a fused kernel computes it.

    For each query the page shows the running maximum, sum and output before and after a block,
    and by how much a new maximum shrinks what was added up. Or each block is a part with its
    own log-sum-exp, and the parts are merged. The numbers of both are computed in float64 and
    checked against :func:`attnlib.core.attention`.

    Args:
        scores: 2 to 4 rows (queries) of 8 numbers (keys), with at most one decimal, at most 99
            in magnitude; already scaled. ``None`` means an example.
        values: of the 8 keys, 2 numbers each, with the same limits; ``None`` means an example.
        causal: whether the queries are the last tokens, and see themselves and earlier ones.
        block_size: keys in a block at first: 1, 2, 4 or 8.
        query: the query chosen at first.
        read: keys read at first, with the present block.
        order: ``"left"`` or ``"right"``: where the reading begins.
        view: ``"walk"`` for the blocks one by one, ``"parts"`` for parts and their merge.
        label: the figure's title.

    Attributes:
        block_size: keys in a block.
        query: the query chosen.
        read: keys read, with the present block. Where it ends within a block, that block is
            the present one, so that any number goes with any size.
        order: from which side the blocks are read.
        view: ``"walk"`` or ``"parts"``.

    Raises:
        ValueError: if scores or values have another shape, more decimals or larger numbers, or
            a first state is not one of the choices.
    """

    anchor = "block-walk"

    block_size = traitlets.Int(2).tag(sync=True, state=True)
    query = traitlets.Int(0).tag(sync=True, state=True)
    read = traitlets.Int(1).tag(sync=True, state=True)
    order = traitlets.Unicode("left").tag(sync=True, state=True)
    view = traitlets.Unicode("walk").tag(sync=True, state=True)

    _block_size = one_of("block_size", lambda self: SIZES)
    _query = one_of("query", lambda self: range(len(self.data["scores"])))
    _read = one_of("read", lambda self: range(1, KEYS + 1))
    _order = one_of("order", lambda self: ORDERS)
    _view = one_of("view", lambda self: VIEWS)

    def __init__(
        self,
        scores: Tensor | Sequence[Sequence[float]] | None = None,
        values: Tensor | Sequence[Sequence[float]] | None = None,
        *,
        causal: bool = False,
        block_size: int = 2,
        query: int = 0,
        read: int | None = None,
        order: str = "left",
        view: str = "walk",
        label: str = "A softmax that reads its keys block by block",
    ):
        rows = readable("scores", SCORES if scores is None else scores, QUERIES, KEYS)
        columns = readable("values", VALUES if values is None else values, (KEYS,), WIDTH)
        super().__init__(data=block_data(rows, columns, causal=causal), label=label)
        state = {"block_size": block_size, "query": query, "order": order, "view": view}
        state["read"] = block_size if read is None else read
        for name, value in state.items():
            self.set_trait(name, value)

    def fallback(self) -> str:
        """Return tables of the scores, of the walk and of the parts, for the chosen query."""
        size, query = self.block_size, self.query
        head = ["", *(f"key {key}" for key in range(KEYS))]
        rows = [
            [f"query {i}", *(show(score, 1) for score in row)]
            for i, row in enumerate(self.data["scores"])
        ]
        rows += [
            [f"value, number {i + 1}", *(show(row[i], 1) for row in self.data["values"])]
            for i in range(WIDTH)
        ]
        first = table(head, rows, "Scores and values.")
        steps = self.data["walks"][self.order][str(size)][query]
        blocks = order_of(size)[:: 1 if self.order == "left" else -1]
        rows = [
            [
                f"block {i + 1}: {in_words(keys)}",
                show(step["m"], 1),
                show(step["shrink"]) if i else "–",
                *map(show, step["after"]),
                *map(show, step["out"]),
            ]
            for i, (keys, step) in enumerate(zip(blocks, steps, strict=True))
        ]
        all_keys = map(show, steps[-1]["softmax"])
        rows.append(["softmax over all keys at once", *[""] * (2 + 1 + WIDTH), *all_keys])
        outs = ["o / ℓ, 1st", "o / ℓ, 2nd"]
        head = ["after", "maximum m", "old sums times", "sum ℓ", "o, 1st", "o, 2nd", *outs]
        caption = f"Query {query}, {len(blocks)} blocks of {size}, {ORDERS[self.order]}."
        second = table(head, rows, caption)
        parts = self.data["parts"][str(size)][query]
        rows = [
            [in_words(keys), show(part["lse"]), *part_outs(part), show(part["share"])]
            for keys, part in zip(order_of(size), parts["parts"], strict=True)
        ]
        rows.append(["merged by the shares", "", *map(show, parts["merged"]), show(1.0)])
        rows.append(["plain mean of the parts", "", *map(show, parts["mean"]), ""])
        head = ["part", "log-sum-exp", "output, 1st", "output, 2nd", "share"]
        caption = f"Query {query}, each block by itself, then merged."
        return first + second + table(head, rows, caption)


def readable(name: str, numbers: Rows, rows: Sequence[int], columns: int) -> Tensor:
    """Return a table of numbers in float64, if the page can show them exactly.

    Args:
        name: of the argument, for the message.
        numbers: the table, rows of numbers.
        rows: how many rows it may have.
        columns: how many columns it must have.

    Returns:
        Shape ``(rows, columns)``, float64, each a whole number of tenths.

    Raises:
        ValueError: if the shape is another, or a number is too large or has more decimals.
    """
    try:
        x = torch.as_tensor(numbers, dtype=torch.float64).detach().cpu()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be rows of equally many numbers: {error}") from error
    if x.dim() != 2 or x.shape[0] not in rows or x.shape[1] != columns:
        wanted = f"{rows[0]} to {rows[-1]}" if len(rows) > 1 else rows[0]
        raise ValueError(
            f"{name} must have {wanted} rows and {columns} columns, got shape {tuple(x.shape)}"
        )
    tenths = (10 * x).round()
    bad = ~((x.abs() <= LARGEST) & ((10 * x - tenths).abs() < 1e-4))  # NaN is bad too
    if bad.any():
        raise ValueError(
            f"{name} must have at most one decimal and be at most {LARGEST} in magnitude,"
            f" got {x[bad][0].item()}"
        )
    return tenths / 10


def order_of(size: int) -> list[list[int]]:
    """Return the keys of each block, from the left."""
    return [list(range(start, start + size)) for start in range(0, KEYS, size)]


def block_data(scores: Tensor, values: Tensor, *, causal: bool) -> dict[str, object]:
    """Return the numbers of all walks and all parts for the page.

    Args:
        scores: shape ``(T, S)``.
        values: shape ``(S, 2)``.
        causal: whether the queries are the last T of the S tokens.

    Returns:
        ``scores``, ``None`` where the mask hides the key; ``values``; ``walks`` by order and
        block size, then query and block; ``parts`` by block size, then query; the choices.
    """
    at = torch.arange(KEYS)
    seen = causal_mask(at[-len(scores) :], at) if causal else scores == scores  # (T, S)
    masked = scores.masked_fill(~seen, -torch.inf)
    walks = {
        order: {str(size): walk(scores, values, seen, order_of(size)[::way]) for size in SIZES}
        for order, way in zip(ORDERS, (1, -1), strict=True)
    }
    parts = {str(size): parts_of(scores, values, seen, order_of(size)) for size in SIZES}
    return {
        "scores": [numbers(row, 1) for row in masked],
        "values": [numbers(row, 1) for row in values],
        "walks": walks,
        "parts": parts,
        "sizes": list(SIZES),
        "orders": [list(option) for option in ORDERS.items()],
        "views": [list(option) for option in VIEWS.items()],
    }


def walk(
    scores: Tensor, values: Tensor, seen: Tensor, blocks: Sequence[Sequence[int]]
) -> list[list[dict[str, Any]]]:
    """Return the running maximum, sum and output of each query, block after block.

    Source: Dao et al. 2022, arXiv 2205.14135, algorithm 1; as in
    :func:`attnlib.blocks.attention_in_blocks`, with all that is kept in between.

    Args:
        scores: shape ``(T, S)``.
        values: shape ``(S, D_v)``.
        seen: boolean, ``(T, S)``, True = may attend.
        blocks: the keys of each block, in the order of reading.

    Returns:
        For each query and block: ``m``, the largest score so far; ``largest``, that of the
        block; ``shrink``, by which the earlier sums are multiplied; ``weights`` of the block's
        keys; ``added`` and ``after``, the sum of weights and the output before its division;
        ``out``, divided; ``softmax``, the ordinary one over the keys read. Minus infinity is
        ``None``.
    """
    masked = scores.masked_fill(~seen, -torch.inf)
    T = len(scores)
    m = torch.full((T, 1), -torch.inf, dtype=scores.dtype)
    sums = torch.zeros((T, 1 + values.shape[1]), dtype=scores.dtype)  # l, and o
    ones = torch.cat([torch.ones_like(values[:, :1]), values], dim=1)  # l is o of the value 1
    read = torch.zeros_like(seen)
    steps: list[list[dict[str, Any]]] = [[] for _ in range(T)]
    for keys in map(list, blocks):
        largest = masked[:, keys].amax(dim=1, keepdim=True)  # (T, 1)
        larger = torch.maximum(m, largest)
        base = larger.clamp(min=torch.finfo(m.dtype).min)  # finite where nothing was seen yet
        shrink, weights = (m - base).exp(), (masked[:, keys] - base).exp()  # (T, 1), (T, block)
        added = weights @ ones[keys]  # (T, 1 + D_v)
        sums, m = sums * shrink + added, larger
        out = (sums[:, 1:] / sums[:, :1]).nan_to_num()  # (T, D_v)
        read[:, keys] = True
        plain = softmax(scores, values, seen & read)
        assert torch.allclose(out, plain, rtol=0, atol=1e-12)
        for t in range(T):
            steps[t].append(
                {
                    "m": number(m[t], 1),
                    "largest": number(largest[t], 1),
                    "shrink": number(shrink[t]),
                    "weights": numbers(weights[t], 2),
                    "added": numbers(added[t]),
                    "after": numbers(sums[t]),
                    "out": numbers(out[t]),
                    "softmax": numbers(plain[t]),
                }
            )
    return steps


def parts_of(
    scores: Tensor, values: Tensor, seen: Tensor, blocks: Sequence[Sequence[int]]
) -> list[dict[str, Any]]:
    """Return attention over each block by itself, and the blocks' merge.

    Source: Dao et al. 2023, https://pytorch.org/blog/flash-decoding.

    Args:
        scores: shape ``(T, S)``.
        values: shape ``(S, D_v)``.
        seen: boolean, ``(T, S)``, True = may attend.
        blocks: the keys of each part.

    Returns:
        For each query its ``parts`` (``lse``, ``None`` where the part sees no key; ``out``;
        ``share`` of the whole), ``merged``, ``lse`` of all keys, ``softmax``, and ``mean``, the
        plain mean of the parts that see a key.
    """
    eye = torch.eye(
        KEYS, dtype=scores.dtype
    )  # with these as keys, a query is its row of scores
    found = [
        attention_in_blocks(
            scores[None, None],
            eye[None, None, keys],
            values[None, None, keys],
            mask=seen[:, keys],
            scale=1.0,
        )
        for keys in map(list, blocks)
    ]
    outs, lses = zip(*found, strict=True)
    merged, lse = (x[0, 0] for x in merge(outs, lses))  # (T, D_v), (T,)
    plain = softmax(scores, values, seen)
    assert torch.allclose(merged, plain, rtol=0, atol=1e-12)
    out, each = torch.cat(outs)[:, 0], torch.cat(lses)[:, 0]  # (parts, T, D_v), (parts, T)
    shares = (each - lse).exp()  # (parts, T)
    sees = each.isfinite()[..., None]  # (parts, T, 1)
    mean = (out * sees).sum(dim=0) / sees.sum(dim=0)  # (T, D_v)
    return [
        {
            "parts": [
                {
                    "lse": number(each[i, t]),
                    "out": numbers(out[i, t]),
                    "share": number(shares[i, t]),
                }
                for i in range(len(blocks))
            ],
            "lse": number(lse[t]),
            "merged": numbers(merged[t]),
            "softmax": numbers(plain[t]),
            "mean": numbers(mean[t]),
        }
        for t in range(len(scores))
    ]


def softmax(scores: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """Return the output of ordinary attention, whose scores are given.

    Args:
        scores: shape ``(T, S)``.
        values: shape ``(S, D_v)``.
        seen: boolean, ``(T, S)``, True = may attend.

    Returns:
        Shape ``(T, D_v)``; zeros where a query sees no key.
    """
    eye = torch.eye(KEYS, dtype=scores.dtype)[None, None]
    out, _ = attention(scores[None, None], eye, values[None, None], mask=seen, scale=1.0)
    return out[0, 0]


def part_outs(part: Mapping[str, Any]) -> list[str]:
    """Return the output of a part as the page writes it: none where it sees no key."""
    return ["–"] * WIDTH if part["lse"] is None else [show(x) for x in part["out"]]


def number(x: Tensor, digits: int = DECIMALS) -> float | None:
    """Return a number rounded for the page, ``None`` for minus infinity."""
    value = x.item()
    return None if value == -torch.inf else round(value, digits) + 0.0  # no negative zero


def numbers(x: Tensor, digits: int = DECIMALS) -> list[float | None]:
    """Return the numbers of a vector in the same way."""
    return [number(one, digits) for one in x]


def show(x: float | None, digits: int = DECIMALS) -> str:
    """Return a number as the page writes it, with a typographic minus."""
    return "−∞" if x is None else f"{x:.{digits}f}".replace("-", "−")


def in_words(keys: Sequence[int]) -> str:
    """Return the keys of a block in words, such as ``keys 2 and 3``; the page does the same."""
    if len(keys) == 1:
        return f"key {keys[0]}"
    return f"keys {keys[0]} {'and' if len(keys) == 2 else 'to'} {keys[-1]}"
