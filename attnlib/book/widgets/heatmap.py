"""The attention heatmap: attention weights by query and key, head by head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
import traitlets
from torch import Tensor

from attnlib.book.widgets.base import Widget, one_of, pack, pack_bytes, table, unpack

MAX_TOKENS = 128  # more rows or columns cannot be told apart on a page
MAX_WEIGHTS = 800_000  # of all texts, without what a causal mask hides: below 1 MB compressed
MAX_EXACT = 100_000  # up to so many, weights are stored in two bytes each, above in one
SUM_TOLERANCE = 1e-2  # the sum of a long row of bfloat16 weights is no more exact


class AttentionHeatmap(Widget, file="heatmap"):
    """Attention weights of layers and heads over tokens, with a cursor that reads one row.

    Up to 100,000 weights are stored exactly enough for any number shown. Above that, weights
    are rounded to steps of 1/255 such that each row keeps its sum, and of a causal mask only
    the lower triangle is stored.

    Args:
        weights: ``(T, S)``, ``(H, T, S)`` or ``(layers, H, T, S)``, any float dtype. Rows are
            queries, columns are keys; each row sums to 1 or is all zeros. ``None`` with
            ``examples``.
        tokens: the T tokens of the queries; ``None`` with ``examples``.
        examples: several texts to choose from instead, ``{name: (weights, tokens), ...}``: each
            with its own T, and its own weights of the same layers and heads.
        key_tokens: the S tokens of the keys; ``None`` means ``tokens``. Not with ``examples``.
        mask: boolean, ``(T, S)``, True = may attend; hidden cells are hatched. ``"causal"``
            hides all later keys, whatever T is; with ``examples`` it is this or ``None``.
        layer_names: names of the layers; ``None`` means layer 0, layer 1, ...
        head_names: names of the heads; ``None`` means head 0, head 1, ...
        label: the figure's title.
        respond: with a kernel, a function of a text that the reader types. It returns new
            ``(weights, tokens)``, or raises ``ValueError`` with a message for the reader. New
            weights get a causal mask if ``mask`` is causal, and no mask otherwise. With
            ``examples``, the text becomes one more choice, the last.
        model: from :func:`~attnlib.book.widgets.page_model`: it answers the texts that the
            reader types, in the page itself and at each key. Not with ``respond`` or
            ``examples``.
        example: the text shown first, an index.
        layer: the layer shown first.
        head: the head shown first.
        query: the row under the cursor at first; ``None`` means the last.

    Attributes:
        example: the text shown; 0 without ``examples``.
        layer: the layer shown.
        head: the head shown.
        query: the row under the cursor.
        key: the column under the cursor, or ``None``.
        text: typed by the reader; setting it calls ``respond`` or the page's model.
        message: shown if a text could not be used.

    Raises:
        ValueError: if the weights are not finite, not in 0 to 1 or do not sum to 1, if tokens
            or mask do not match them, if there are more than a page can show, if the examples
            have different layers or heads, or if arguments exclude each other.
    """

    example = traitlets.Int().tag(sync=True, state=True)
    layer = traitlets.Int().tag(sync=True, state=True)
    head = traitlets.Int().tag(sync=True, state=True)
    query = traitlets.Int().tag(sync=True, state=True)
    key = traitlets.Int(None, allow_none=True).tag(sync=True, state=True)
    text = traitlets.Unicode().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)

    _example = one_of("example", lambda self: range(len(self.data.get("examples", [0]))))
    _layer = one_of("layer", lambda self: range(len(self.data["layers"])))
    _head = one_of("head", lambda self: range(len(self.data["heads"])))
    _query = one_of("query", lambda self: range(self._sizes()[0]))
    _key = one_of("key", lambda self: [*range(self._sizes()[1]), None])

    def __init__(
        self,
        weights: Tensor | None = None,
        tokens: Sequence[str] | None = None,
        *,
        examples: Mapping[str, tuple[Tensor, Sequence[str]]] | None = None,
        key_tokens: Sequence[str] | None = None,
        mask: Tensor | Literal["causal"] | None = None,
        layer_names: Sequence[str] | None = None,
        head_names: Sequence[str] | None = None,
        label: str = "Who attends to whom",
        respond: Callable[[str], tuple[Tensor, Sequence[str]]] | None = None,
        model: dict[str, Any] | None = None,
        example: int = 0,
        layer: int = 0,
        head: int = 0,
        query: int | None = None,
    ):
        if model is not None and (respond is not None or examples is not None):
            raise ValueError("model answers by itself: leave out respond and examples")
        if examples is None:
            if weights is None or tokens is None:
                raise ValueError("weights and tokens must be given, or examples")
            data = heatmap_data(weights, tokens, key_tokens, mask)
        else:
            others = (weights, tokens, key_tokens)
            if any(other is not None for other in others):
                raise ValueError("examples have weights and tokens: leave out those arguments")
            data = {"examples": examples_data(examples, mask)}
        layers, heads, *_ = shape = data.get("examples", [data])[0]["shape"]
        self._names = {
            "layers": numbered("layer", layers, layer_names),
            "heads": numbered("head", heads, head_names),
            "asks": respond is not None,
        }
        data.update(self._names)
        if model is not None:
            data["model"] = checked_model(model, data)
        self._respond, self._prepared = respond, len(data.get("examples", []))
        self._causal = is_causal(mask, shape[2])
        super().__init__(data=data, label=label)
        self.set_trait("example", example)
        self.set_trait("layer", layer)
        self.set_trait("head", head)
        self.set_trait("query", self.shown["shape"][2] - 1 if query is None else query)

    @property
    def shown(self) -> dict[str, Any]:
        """The part of the data that belongs to the text shown."""
        return self.data["examples"][self.example] if "examples" in self.data else self.data

    def _sizes(self) -> tuple[int, int]:
        """Return how many queries and keys the page may show now."""
        longest = self.data["model"]["longest"] if "model" in self.data else 0
        T, S = self.shown["shape"][2:]
        return max(T, longest), max(S, longest)

    @traitlets.observe("example")
    def _stay_within(self, change) -> None:
        """Move the cursor into the new text if that is shorter; the page does the same."""
        T, S = self._sizes()
        self.query, self.key = min(self.query, T - 1), self.key and min(self.key, S - 1)

    @traitlets.observe("text")
    def _answer(self, change) -> None:
        """Show the weights of a text that the reader typed; keep the old ones if it fails."""
        if "model" in self.data:  # the page answers
            return
        if self._respond is None:
            self.message = "Nothing answers here: the widget was made without `respond`."
            return
        try:
            weights, tokens = self._respond(change["new"])
            data = heatmap_data(weights, tokens, None, "causal" if self._causal else None)
            shape = self.shown["shape"]
            if data["shape"][:2] != shape[:2]:
                raise ValueError(
                    f"respond must return weights of {shape[:2]} layers and heads,"
                    f" got {data['shape'][:2]}"
                )
        except ValueError as error:
            self.message = str(error)
            return
        except Exception as error:  # a bug in `respond`: the reader should see it, too
            self.message = f"{type(error).__name__}: {error}"
            raise
        with self.hold_sync():
            if self._prepared:
                prepared = self.data["examples"][: self._prepared]
                data = {"examples": [*prepared, {"name": "your text", **data}]}
            self.data, self.message = {**data, **self._names}, ""
            self.example = self._prepared
            self.query, self.key = len(tokens) - 1, None

    def fallback(self) -> str:
        """Return a table of the head shown: all weights, or the largest ones of a long row."""
        return heatmap_table({**self.data, **self.shown}, self.layer, self.head)


def examples_data(
    examples: Mapping[str, tuple[Tensor, Sequence[str]]],
    mask: Tensor | Literal["causal"] | None = None,
) -> list[dict[str, Any]]:
    """Return the widget's data of several texts, after checking the input.

    Args:
        examples: the weights and tokens of each, by its name.
        mask: as :class:`AttentionHeatmap` takes it.

    Returns:
        A dictionary for each text.

    Raises:
        ValueError: as :class:`AttentionHeatmap` does.
    """
    if not examples:
        raise ValueError("examples must have at least one text, got none")
    if mask is not None and not is_causal(mask):
        raise ValueError('mask must be "causal" or None with examples')
    shapes = {
        name: tuple(torch.as_tensor(weights).shape) for name, (weights, _) in examples.items()
    }
    total = sum(stored_numbers(shape, mask is not None) for shape in shapes.values())
    if total > MAX_WEIGHTS:
        raise ValueError(
            f"examples must have at most {MAX_WEIGHTS:,} weights in all that the mask does not"
            f" hide, got {total:,}; leave out layers or shorten the texts"
        )
    if len({(1, 1, *shape)[-4:-2] for shape in shapes.values()}) > 1:
        raise ValueError(
            f"examples must have the same layers and heads, got weights of {shapes}"
        )
    exact = sum(map(math.prod, shapes.values())) <= MAX_EXACT
    texts = []
    for name, (weights, tokens) in examples.items():
        try:
            data = heatmap_data(weights, tokens, None, mask, exact=exact)
        except ValueError as error:
            raise ValueError(f"examples[{name!r}]: {error}") from error
        texts.append({"name": str(name), **data})
    return texts


def heatmap_data(
    weights: Tensor,
    tokens: Sequence[str],
    key_tokens: Sequence[str] | None = None,
    mask: Tensor | Literal["causal"] | None = None,
    *,
    exact: bool | None = None,
) -> dict[str, Any]:
    """Return the widget's data of one text, after checking the input.

    Args:
        weights: ``(T, S)``, ``(H, T, S)`` or ``(layers, H, T, S)``.
        tokens: the T tokens of the queries.
        key_tokens: the S tokens of the keys; ``None`` means ``tokens``.
        mask: boolean, ``(T, S)``, ``"causal"`` or ``None``.
        exact: whether each weight gets two bytes; ``None`` means up to 100,000 of them.

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
    is_triangle = T == S and is_causal(mask, T)
    count = stored_numbers(weights.shape, is_triangle)
    if max(T, S) > MAX_TOKENS or count > MAX_WEIGHTS:
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
        mask = checked_mask(mask, T, S)
        if weights.masked_fill(mask, 0).any():
            raise ValueError("mask must hide no key that has a weight, got some that have")
        hidden = "".join("01"[not seen] for seen in mask.flatten().tolist())
    exact = weights.numel() <= MAX_EXACT if exact is None else exact
    weights = weights.clamp(max=1)
    return {
        "shape": list(weights.shape),
        "weights": pack(weights.flatten().tolist()) if exact else pack_rows(weights, mask),
        "queries": names,
        "keys": key_names,
        "same": key_tokens is None,
        "hidden": hidden,
    }


def checked_mask(mask: Tensor | Literal["causal"], T: int, S: int) -> Tensor:
    """Return a mask as a boolean tensor of shape ``(T, S)``, or raise ``ValueError``."""
    if isinstance(mask, str) and (mask != "causal" or T != S):
        raise ValueError(
            f'mask must be a tensor, or "causal" for as many keys as queries, got {mask!r} with'
            f" {T} queries and {S} keys"
        )
    tensor = causal(T) if isinstance(mask, str) else torch.as_tensor(mask, device="cpu")
    if tensor.dtype != torch.bool or tensor.shape != (T, S):
        raise ValueError(
            f"mask must be boolean with shape (T, S) = {(T, S)}, got {tensor.dtype} with"
            f" {tuple(tensor.shape)}"
        )
    return tensor


def is_causal(mask: Tensor | str | None, T: int = 0) -> bool:
    """Return whether a mask is the word for a causal one, or the causal one of T tokens."""
    if mask is None or isinstance(mask, str):
        return mask == "causal"
    return torch.equal(torch.as_tensor(mask).cpu(), causal(T))


def stored_numbers(shape: Sequence[int], is_triangle: bool) -> int:
    """Return how many weights of a shape ``(..., T, S)`` a mask leaves to be stored.

    Args:
        shape: of the weights.
        is_triangle: whether the mask is causal.

    Returns:
        The number of weights.
    """
    *outer, T, S = shape
    return math.prod(outer) * (T * (T + 1) // 2 if is_triangle else T * S)


def pack_rows(weights: Tensor, mask: Tensor | None) -> str:
    """Pack weights into one byte each, and none where the mask hides a key in every head.

    Rounded to the nearest step of 1/255, a row of 24 weights could sum to 0.95 or 1.05. Here
    each weight is rounded down, and those with the largest remainders are rounded up until the
    sum of the row is right.

    Args:
        weights: shape ``(layers, H, T, S)``, in 0 to 1.
        mask: shape ``(T, S)``, or ``None``.

    Returns:
        The packed text; row by row, the weights that the mask shows.
    """
    exact = 255 * weights.double()  # (layers, H, T, S)
    steps = exact.floor()
    missing = (exact.sum(dim=-1, keepdim=True).round() - steps.sum(dim=-1, keepdim=True)).int()
    order = (exact - steps).argsort(dim=-1, descending=True, stable=True)
    rank = order.argsort(dim=-1)  # 0 for the largest remainder of a row
    steps += rank < missing
    seen = steps if mask is None else steps[..., mask]  # (layers, H, what the mask shows)
    return pack_bytes(seen.flatten().int().tolist())


def unpack_rows(text: dict[str, Any]) -> Tensor:
    """Return the weights of one text of a widget's data.

    Args:
        text: from :func:`heatmap_data`.

    Returns:
        Shape ``(layers, H, T, S)``, float64.
    """
    numbers = torch.tensor(unpack(text["weights"]), dtype=torch.float64)
    layers, heads, T, S = shape = text["shape"]
    if numbers.numel() == math.prod(shape):
        return numbers.view(shape)
    seen = torch.tensor([cell == "0" for cell in text["hidden"]]).view(T, S)
    weights = torch.zeros(shape, dtype=torch.float64)
    weights[..., seen] = numbers.view(layers, heads, -1)
    return weights


def checked_model(model: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
    """Return a model for the page after checking that it fits the widget's first text.

    Args:
        model: from :func:`~attnlib.book.widgets.page_model`.
        data: the widget's.

    Returns:
        The model.

    Raises:
        ValueError: if it has other layers or heads, or does not know the tokens.
    """
    layers, heads, T, _ = data["shape"]
    if [model["layers"], model["heads"]] != [layers, heads]:
        raise ValueError(
            f"model must have the {layers} layers and {heads} heads of weights, got"
            f" {model['layers']} and {model['heads']}"
        )
    unknown = [token for token in data["queries"] if token not in model["vocabulary"]]
    if unknown or not data["same"] or model["longest"] < T:
        raise ValueError(
            f"model must know the tokens, at most {model['longest']} characters of its"
            f" vocabulary, got {data['queries']}"
        )
    return model


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


def heatmap_table(data: dict[str, Any], layer: int, head: int) -> str:
    """Return one head of a heatmap as an HTML table.

    Args:
        data: the widget's, with that of the text.
        layer: index of the layer.
        head: index of the head.

    Returns:
        All weights if there are at most 10 keys, else the three largest of each query.
    """
    layers, heads, T, S = data["shape"]
    rows = unpack_rows(data)[layer, head].tolist()
    named = [data["layers"][layer]] * (layers > 1) + [data["heads"][head]] * (heads > 1)
    where = ", ".join([data["name"], *named] if "name" in data else named)
    where = f"{where[0].upper()}{where[1:]}. " if where else ""
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
