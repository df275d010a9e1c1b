"""The attention heatmap: attention weights by query and key, head by head."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import traitlets
from torch import Tensor

from attnlib.book.widgets.base import Widget, one_of, pack, table, unpack

MAX_TOKENS = 128  # more rows or columns cannot be told apart on a page
MAX_WEIGHTS = 600_000  # about 1.6 MB of page
SUM_TOLERANCE = 1e-2  # the sum of a long row of bfloat16 weights is no more exact


class AttentionHeatmap(Widget, file="heatmap"):
    """Attention weights of layers and heads over tokens, with a cursor that reads one row.

    Args:
        weights: ``(T, S)``, ``(H, T, S)`` or ``(layers, H, T, S)``, any float dtype. Rows are
            queries, columns are keys; each row sums to 1 or is all zeros.
        tokens: the T tokens of the queries.
        key_tokens: the S tokens of the keys; ``None`` means ``tokens``.
        mask: boolean, ``(T, S)``, True = may attend; hidden cells are hatched.
        layer_names: names of the layers; ``None`` means layer 0, layer 1, ...
        head_names: names of the heads; ``None`` means head 0, head 1, ...
        label: the figure's title.
        respond: with a kernel, a function of a text that the reader types. It returns new
            ``(weights, tokens)``, or raises ``ValueError`` with a message for the reader. New
            weights get a causal mask if ``mask`` is causal, and no mask otherwise.
        layer: the layer shown first.
        head: the head shown first.
        query: the row under the cursor at first; ``None`` means the last.

    Attributes:
        layer: the layer shown.
        head: the head shown.
        query: the row under the cursor.
        key: the column under the cursor, or ``None``.
        text: typed by the reader; setting it calls ``respond``.
        message: shown if a text could not be used.

    Raises:
        ValueError: if the weights are not finite, not in 0 to 1 or do not sum to 1, if tokens
            or mask do not match them, or if there are more than a page can show.
    """

    layer = traitlets.Int().tag(sync=True, state=True)
    head = traitlets.Int().tag(sync=True, state=True)
    query = traitlets.Int().tag(sync=True, state=True)
    key = traitlets.Int(None, allow_none=True).tag(sync=True, state=True)
    text = traitlets.Unicode().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)

    _layer = one_of("layer", lambda self: range(self.data["shape"][0]))
    _head = one_of("head", lambda self: range(self.data["shape"][1]))
    _query = one_of("query", lambda self: range(self.data["shape"][2]))
    _key = one_of("key", lambda self: [*range(self.data["shape"][3]), None])

    def __init__(
        self,
        weights: Tensor,
        tokens: Sequence[str],
        *,
        key_tokens: Sequence[str] | None = None,
        mask: Tensor | None = None,
        layer_names: Sequence[str] | None = None,
        head_names: Sequence[str] | None = None,
        label: str = "Who attends to whom",
        respond: Callable[[str], tuple[Tensor, Sequence[str]]] | None = None,
        layer: int = 0,
        head: int = 0,
        query: int | None = None,
    ):
        data = heatmap_data(weights, tokens, key_tokens, mask)
        layers, heads = data["shape"][:2]
        names = {
            "layers": numbered("layer", layers, layer_names),
            "heads": numbered("head", heads, head_names),
            "asks": respond is not None,
        }
        data.update(names)
        self._respond, self._names = respond, names
        T = data["shape"][2]
        self._causal = mask is not None and torch.equal(torch.as_tensor(mask).cpu(), causal(T))
        query = T - 1 if query is None else query
        super().__init__(data=data, label=label)
        self.set_trait("layer", layer)
        self.set_trait("head", head)
        self.set_trait("query", query)

    @traitlets.observe("text")
    def _answer(self, change) -> None:
        """Show the weights of a text that the reader typed; keep the old ones if it fails."""
        if self._respond is None:
            self.message = "Nothing answers here: the widget was made without `respond`."
            return
        try:
            weights, tokens = self._respond(change["new"])
            mask = causal(len(tokens)) if self._causal else None
            data = heatmap_data(weights, tokens, None, mask)
            if data["shape"][:2] != self.data["shape"][:2]:
                raise ValueError(
                    f"respond must return weights of {self.data['shape'][:2]} layers and heads,"
                    f" got {data['shape'][:2]}"
                )
        except ValueError as error:
            self.message = str(error)
            return
        except Exception as error:  # a bug in `respond`: the reader should see it, too
            self.message = f"{type(error).__name__}: {error}"
            raise
        with self.hold_sync():
            self.data, self.message = {**data, **self._names}, ""
            self.query, self.key = len(tokens) - 1, None

    def fallback(self) -> str:
        """Return a table of the head shown: all weights, or the largest ones of a long row."""
        return heatmap_table(self.data, self.layer, self.head)


def heatmap_data(
    weights: Tensor,
    tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    mask: Tensor | None = None,
) -> dict:
    """Return the widget's data, after checking the input.

    Args:
        weights: ``(T, S)``, ``(H, T, S)`` or ``(layers, H, T, S)``.
        tokens: the T tokens of the queries.
        key_tokens: the S tokens of the keys; ``None`` means ``tokens``.
        mask: boolean, ``(T, S)``, or ``None``.

    Returns:
        A dictionary for the page.

    Raises:
        ValueError: as :class:`AttentionHeatmap` does.
    """
    weights = torch.as_tensor(weights).detach().to("cpu", torch.float32)
    if weights.ndim not in (2, 3, 4) or 0 in weights.shape:
        raise ValueError(
            "weights must have shape (T, S), (H, T, S) or (layers, H, T, S), none of them 0,"
            f" got {tuple(weights.shape)}"
        )
    weights = weights[(None,) * (4 - weights.ndim)]  # (layers, H, T, S)
    T, S = weights.shape[2:]
    if max(T, S) > MAX_TOKENS or weights.numel() > MAX_WEIGHTS:
        raise ValueError(
            f"weights must have at most {MAX_TOKENS} queries and keys and {MAX_WEIGHTS:,}"
            f" numbers in all to be told apart on a page, got {tuple(weights.shape)}; show a"
            " part, such as the last tokens of one layer"
        )
    if not weights.isfinite().all():
        raise ValueError("weights must be finite, got NaN or infinity")
    if weights.min() < 0 or weights.max() > 1 + SUM_TOLERANCE:
        low, high = weights.min().item(), weights.max().item()
        raise ValueError(f"weights must be in 0 to 1, got {low:.3g} to {high:.3g}")
    rows = torch.as_tensor(weights.sum(dim=-1))  # (layers, H, T)
    wrong = ((rows - 1).abs() > SUM_TOLERANCE) & (rows != 0)  # zeros: it sees no key
    if wrong.any():
        layer, head, t = wrong.nonzero()[0].tolist()
        raise ValueError(
            "weights must sum to 1 over the keys (the last axis), or be all zeros; the row of"
            f" query {t}, head {head}, layer {layer} sums to {rows[layer, head, t]:.3f}"
        )
    names = [str(token) for token in tokens]
    if len(names) != T:
        raise ValueError(f"tokens must name the {T} queries, got {len(names)}")
    key_names = names if key_tokens is None else [str(token) for token in key_tokens]
    if len(key_names) != S:
        what = "tokens" if key_tokens is None else "key_tokens"
        raise ValueError(f"{what} must name the {S} keys, got {len(key_names)}")
    hidden = ""
    if mask is not None:
        mask = torch.as_tensor(mask, device="cpu")
        if mask.dtype != torch.bool or mask.shape != (T, S):
            raise ValueError(
                f"mask must be boolean with shape (T, S) = {(T, S)}, got {mask.dtype} with"
                f" {tuple(mask.shape)}"
            )
        if weights.masked_fill(mask, 0).any():
            raise ValueError("mask must hide no key that has a weight, got some that have")
        hidden = "".join("01"[not seen] for seen in mask.flatten().tolist())
    return {
        "shape": list(weights.shape),
        "weights": pack(weights.clamp(max=1).flatten().tolist()),
        "queries": names,
        "keys": key_names,
        "same": key_tokens is None,
        "hidden": hidden,
    }


def causal(T: int) -> Tensor:
    """Return the causal mask of T tokens, shape ``(T, T)``."""
    return torch.ones(T, T, dtype=torch.bool).tril()


def numbered(kind: str, count: int, names: Sequence[str] | None) -> list[str]:
    """Return the names of layers or heads.

    Args:
        kind: ``layer`` or ``head``.
        count: how many there are.
        names: their names; ``None`` means the kind and a number from 0.

    Returns:
        One name per layer or head.

    Raises:
        ValueError: if there are more or fewer names than layers or heads.
    """
    if names is None:
        return [f"{kind} {i}" for i in range(count)]
    if len(names) != count:
        raise ValueError(f"{kind}_names must name {count} {kind}s, got {len(names)}")
    return [str(name) for name in names]


def heatmap_table(data: dict, layer: int, head: int) -> str:
    """Return one head of a heatmap as an HTML table.

    Args:
        data: the widget's.
        layer: index of the layer.
        head: index of the head.

    Returns:
        All weights if there are at most 10 keys, else the three largest of each query.
    """
    layers, heads, T, S = data["shape"]
    numbers = unpack(data["weights"])[(layer * heads + head) * T * S :][: T * S]
    rows = [numbers[t * S : (t + 1) * S] for t in range(T)]
    where = [data["layers"][layer]] * (layers > 1) + [data["heads"][head]] * (heads > 1)
    where = f"{', '.join(where)}. ".capitalize() if where else ""
    if S <= 10:
        hidden = data["hidden"] or "0" * T * S
        cells = [
            ["hidden" if hidden[t * S + s] == "1" else f"{rows[t][s]:.2f}" for s in range(S)]
            for t in range(T)
        ]
        body = [
            [name, *row, f"{sum(r):.3f}"]
            for name, row, r in zip(data["queries"], cells, rows, strict=True)
        ]
        caption = f"{where}One row per query, one column per key."
        return table(["", *data["keys"], "sum"], body, caption)
    body = []
    for name, row in zip(data["queries"], rows, strict=True):
        largest = sorted(range(S), key=lambda s: -row[s])[:3]
        shown = [f"{data['keys'][s]} {row[s]:.1f}" for s in largest if row[s] >= 0.05]
        body.append([name, ", ".join(shown)])
    return table(["query", "attends most to"], body, where.strip())
