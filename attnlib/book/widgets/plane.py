"""The plane of models: published models as points, by what their caches take and ask for."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import traitlets

from attnlib.book.appearance import variants_json
from attnlib.book.widgets.base import StateError, Widget, one_of
from attnlib.costs import Geometry, attention_params, decode_cost, kv_cache_bytes
from attnlib.layers import LayerKind, cache_size, step_reads
from attnlib.models import PAGES, Model

CONTEXTS = tuple(2**i for i in range(10, 18))  # tokens
QUERIES = (1, 2, 3, 4)  # new tokens of one sequence in one step
MAX_MODELS = 300  # more cannot be told apart on a page
ALL = "all families"
FORMS = {"absorbed": "latents, absorbed", "naive": "expanded keys and values"}
MEASURES = {
    "bytes": "cache per token",
    "read": "read per token of context",
    "intensity": "FLOPs a cache byte",
    "longest": "cache at longest context",
    "params": "attention parameters",
    "year": "year",
}
MEANING = (
    "Cache per token: what all layers together keep in bfloat16 for one sequence of the"
    " length chosen, divided by its tokens. A layer with a window keeps no more than that,"
    " and constant state counts. Read: what one decode step reads of it, divided by the same"
    " tokens: less than is kept where an indexer chooses, more where layers share a cache."
    " FLOPs a cache byte: two for each multiply-add of the scores and the weighted sums, all"
    " heads and layers, for each byte that is read. Projections and softmax are not in it,"
    " and the batch does not change it. A step has several query tokens per sequence when it"
    " checks tokens that were guessed: speculative decoding."
)


class Machine(NamedTuple):
    """A processor, by the two rates whose quotient is its ridge point.

    Attributes:
        name: of the processor.
        flops_per_second: peak rate of arithmetic.
        bytes_per_second: rate of the memory.
        source: where both rates are published.
    """

    name: str
    flops_per_second: float
    bytes_per_second: float
    source: str


H100 = Machine("H100", 989e12, 3.35e12, "arXiv 2505.21487")


class ModelPlane(Widget, file="plane"):
    """Published models on one plane; each point lists its models and their sizes.

    Args:
        models: by name, such as :data:`~attnlib.models.MODELS`. Encoders keep no cache and
            are left out.
        label: the figure's title.
        x: measure of the horizontal axis at first: ``"bytes"``, ``"read"``, ``"intensity"``,
            ``"longest"``, ``"params"`` or ``"year"``.
        y: measure of the vertical axis at first, another one of them.
        context: length of the sequence at first, in tokens; cache bytes are divided by it.
        queries: query tokens of one sequence in a step at first, 1 to 4.
        model: the model under the cursor at first; ``None`` means the first.
        machine: the processor whose ridge point is drawn; ``None`` means none.

    Attributes:
        x: measure of the horizontal axis; setting it to that of the vertical one swaps them.
        y: measure of the vertical axis.
        context: length of the sequence whose cache is divided by its tokens.
        queries: query tokens of one sequence in a decode step.
        model: the model under the cursor.
        shown: names of the variants whose models are shown, in registry order.
        family: of the models shown, or ``"all families"``.
        from_year: first year shown; it pushes ``to_year`` along.
        to_year: last year shown; it pushes ``from_year`` along.
        form: what latent attention caches: ``"absorbed"``, its latents, or ``"naive"``,
            expanded keys and values of all heads.
        ridge: whether the machine's line is drawn.

    Raises:
        ValueError: if there are no models or too many, if one is not a
            :class:`attnlib.models.Model`, if a rate of the machine is not above 0, if ``x`` is
            ``y``, or if a first state is not one of the choices.
    """

    x = traitlets.Unicode().tag(sync=True, state=True)
    y = traitlets.Unicode().tag(sync=True, state=True)
    context = traitlets.Int().tag(sync=True, state=True)
    queries = traitlets.Int().tag(sync=True, state=True)
    model = traitlets.Unicode().tag(sync=True, state=True)
    shown = traitlets.List(traitlets.Unicode()).tag(sync=True, state=True)
    family = traitlets.Unicode(ALL).tag(sync=True, state=True)
    from_year = traitlets.Int().tag(sync=True, state=True)
    to_year = traitlets.Int().tag(sync=True, state=True)
    form = traitlets.Unicode("absorbed").tag(sync=True, state=True)
    ridge = traitlets.Bool(True).tag(sync=True, state=True)

    _x = one_of("x", lambda self: MEASURES)
    _y = one_of("y", lambda self: MEASURES)
    _context = one_of("context", lambda self: CONTEXTS)
    _queries = one_of("queries", lambda self: QUERIES)
    _model = one_of("model", lambda self: [model["name"] for model in self.data["models"]])
    _family = one_of("family", lambda self: [ALL, *self.data["families"]])
    _from_year = one_of("from_year", lambda self: self.data["years"])
    _to_year = one_of("to_year", lambda self: self.data["years"])
    _form = one_of("form", lambda self: FORMS)

    @traitlets.validate("shown")
    def _registered(self, proposal) -> list[str]:
        """Accept names of variants, and put them in registry order."""
        names = [variant["name"] for variant in self.data["variants"]]
        if not set(proposal["value"]) <= set(names):
            raise StateError(
                f"shown must name variants among {', '.join(names)}, got {proposal['value']!r}"
            )
        return [name for name in names if name in proposal["value"]]

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        label: str = "Published models on one plane",
        x: str = "bytes",
        y: str = "intensity",
        context: int = 8192,
        queries: int = 1,
        model: str | None = None,
        machine: Machine | None = H100,
    ):
        if x == y:
            raise ValueError(f"x and y must differ, got {x!r} for both")
        data = plane_data(models, machine)
        super().__init__(data=data, label=label)
        self.set_trait("x", x)
        self.set_trait("y", y)
        self.set_trait("context", context)
        self.set_trait("queries", queries)
        self.set_trait("model", data["models"][0]["name"] if model is None else model)
        self.set_trait("shown", [variant["name"] for variant in data["variants"]])
        self.set_trait("from_year", data["years"][0])
        self.set_trait("to_year", data["years"][-1])

    @traitlets.observe("x", "y")
    def _swap(self, change) -> None:
        """Give the other axis this one's old measure if both would have the same."""
        if self.x == self.y:
            self.set_trait("y" if change["name"] == "x" else "x", change["old"])

    @traitlets.observe("from_year", "to_year")
    def _push(self, change) -> None:
        """Keep the first year at or before the last."""
        if self.from_year > self.to_year:
            other = "to_year" if change["name"] == "from_year" else "from_year"
            self.set_trait(other, change["new"])

    def fallback(self) -> str:
        """Return a table of all models with their sources."""
        at = CONTEXTS.index(self.context)
        head = ["model", "year", "variant", "sizes", "cache per token, bytes"]
        head += ["read per token of context, bytes"]
        head += ["FLOPs a cache byte", "longest context", "cache there, bytes"]
        head += ["attention parameters", "source"]
        rows = []
        for model in self.data["models"]:
            cells = [
                f"{model['year']}",
                model["variant"],
                model["sizes"],
                f"{round(model['cache'][at] / self.context):,}",
                f"{round(model['read'][at] / self.context):,}",
                f"{intensity_at(model, self.queries, self.context):g}",
                f"{model['max_context']:,}" if model["max_context"] else "not published",
                f"{model['longest']:,}" if model["longest"] else "",
                f"{model['params']:,}" if model["params"] else "",
            ]
            texts = "".join(f"<td>{html.escape(text)}</td>" for text in cells)
            source = "".join(linked(*part) for part in model["source"])
            name = html.escape(model["name"])
            rows.append(f'<tr><th scope="row">{name}</th>{texts}<td>{source}</td></tr>\n')
        top = "".join(f'<th scope="col">{text}</th>' for text in head)
        machine = self.data["machine"]
        parts = [
            f"<table>\n<caption>{len(rows)} models, the cache over {self.context:,} tokens in"
            f" bfloat16.</caption>\n<thead><tr>{top}</tr></thead>",
            f"<tbody>\n{''.join(rows)}</tbody>\n</table>",
            f"<p>{html.escape(MEANING)} {html.escape(self.data['left_out'])}</p>",
        ]
        if machine:
            source = "".join(linked(*part) for part in machine["source"])
            parts.append(f"<p>{html.escape(machine['text'])} Source: {source}</p>")
        return "\n".join(parts)


def intensity_at(entry: Mapping[str, Any], queries: int, context: int) -> float:
    """Return a model's FLOPs per cached byte.

    Args:
        entry: of the model, from :func:`entry`.
        queries: one of :data:`QUERIES`.
        context: one of :data:`CONTEXTS`.

    Returns:
        FLOPs per byte; in most models the context does not change it.
    """
    found = entry["intensity"][QUERIES.index(queries)]
    return float(found[CONTEXTS.index(context)] if isinstance(found, list) else found)


def plane_data(models: Mapping[str, Model], machine: Machine | None = H100) -> dict[str, Any]:
    """Return the data that the page draws: each model's numbers, from the cost model.

    Args:
        models: by name.
        machine: the processor whose ridge point is drawn, or ``None``.

    Returns:
        The widget's data.

    Raises:
        ValueError: if there are no models or too many, or one or the machine does not fit.
    """
    for name, model in models.items():
        if not isinstance(model, Model):
            raise ValueError(f"models must be attnlib.models.Model, got {model!r}: {name}")
    decoders = {name: model for name, model in models.items() if model.kind != "encoder"}
    if not 0 < len(decoders) <= MAX_MODELS:
        raise ValueError(
            f"models must hold 1 to {MAX_MODELS} models that decode, got {len(decoders)}"
        )
    entries = [entry(name, model) for name, model in decoders.items()]
    years = {model["year"] for model in entries}
    left_out = [name for name in models if name not in decoders]
    kinds = "is an encoder: it keeps" if len(left_out) == 1 else "are encoders: they keep"
    return {
        "contexts": list(CONTEXTS),
        "queries": list(QUERIES),
        "measures": MEASURES,
        "forms": FORMS,
        "meaning": MEANING,
        "variants": variants_json(),
        "models": entries,
        "families": several(decoders),
        "all": ALL,
        "years": list(range(min(years), max(years) + 1)),
        "machine": ridge_of(machine),
        "left_out": f"{' and '.join(left_out)} {kinds} no cache and cannot be shown."
        * bool(left_out),
    }


def entry(name: str, model: Model) -> dict[str, Any]:
    """Return the numbers of one model.

    Args:
        name: of the model.
        model: its sizes and source.

    Returns:
        A dictionary for the page: ``cache`` and ``read`` have the bytes of all layers at each
        of :data:`CONTEXTS`, ``longest`` those kept at the model's longest context, and
        ``naive`` the same with expanded keys and values, or ``None`` if all layers have no
        latent. ``params`` is ``None`` where the sizes of the projections are not known.
    """
    g = model.geometry
    latent = g is not None and g.kv_lora_rank is not None
    return {
        "name": name,
        "year": model.year,
        "variant": model.variant,
        "family": model.family,
        "sizes": layers_in_words(model.layers) if g is None else described(g),
        "max_context": model.max_context,
        "params": None if g is None or g.d_model is None else attention_params(g),
        "note": model.note,
        "source": parts_of(model.source),
        "mean": bool(model.traits),  # a token's share depends on the context
        **(layers_read(model) if g is None else cached(g, model.max_context, "absorbed")),
        "naive": cached(g, model.max_context, "naive") if g and latent else None,
    }


def layers_read(model: Model) -> dict[str, Any]:
    """Return what :func:`cached` returns, for a model whose layers differ.

    Args:
        model: a published model.

    Returns:
        The same names; ``intensity`` is a list over :data:`CONTEXTS` for each number of query
        tokens, which are taken to read the same entries.
    """
    layers, longest = model.layers, model.max_context
    reads = [[step_reads(layers, S - earlier) for earlier in range(4)] for S in CONTEXTS]
    return {
        "cache": [cache_size(layers, S).once for S in CONTEXTS],
        "read": [steps[0].bytes for steps in reads],
        "longest": longest and cache_size(layers, longest).once,
        "intensity": [
            [
                round(sum(step.flops for step in steps[:T]) / steps[0].bytes, 2)
                for steps in reads
            ]
            for T in QUERIES
        ],
    }


def cached(g: Geometry, longest: int | None, form: str) -> dict[str, Any]:
    """Return what a model caches, and the FLOPs per cached byte of a decode step.

    Args:
        g: its sizes.
        longest: the longest context that it is published for, or ``None``.
        form: of latent attention, as in :func:`attnlib.costs.decode_cost`.

    Returns:
        ``cache``, ``read``, ``longest`` and ``intensity``, as in :func:`entry`; the last for
        each of :data:`QUERIES`.
    """
    kept = partial(kv_cache_bytes, g, expanded=form == "naive")
    caches = [kept(S) for S in CONTEXTS]
    known = replace(g, d_model=g.d_model or 1)  # the core does not depend on it
    several = [decode_cost(known, CONTEXTS[-1], new_tokens=T, form=form) for T in QUERIES]
    return {
        "cache": caches,
        "read": caches,
        "longest": longest and kept(longest),
        "intensity": [round(cost.core_intensity, 2) for cost in several],
    }


def layers_in_words(layers: Sequence[LayerKind]) -> str:
    """Return the sizes of a model whose layers differ, in words.

    Args:
        layers: their kinds.

    Returns:
        Such as ``15 layers with 2 KV heads of width 256; 45 layers with a constant state``.
    """
    return "; ".join(kind_in_words(kind) for kind in layers)


def kind_in_words(kind: LayerKind) -> str:
    """Return what one kind of layer stores, in words.

    Args:
        kind: the kind.

    Returns:
        Its number of layers, what they store, and for how long.
    """
    text = f"{kind.n_layers} layer{'s' * (kind.n_layers > 1)}"
    if kind.borrows:
        return f"{text} read the cache of {kind.borrows} layers"
    stores = []
    if kind.n_kv_heads:
        values = f" (values {kind.v_head_dim})" * (kind.v_head_dim not in (None, kind.head_dim))
        stores.append(
            f"{kind.n_kv_heads} KV head{'s' * (kind.n_kv_heads > 1)} of width"
            f" {kind.head_dim}{values}"
        )
    if kind.kv_lora_rank:
        stores.append(
            f"a latent of {kind.kv_lora_rank} and a rotary key of {kind.qk_rope_head_dim}"
        )
    if kind.shared_kv_dim:
        stores.append(f"one key and value of {kind.shared_kv_dim}")
    if kind.index_dim:
        stores.append(f"an index key of {kind.index_dim}")
    if kind.state_heads:
        stores.append(
            f"a constant state of {kind.state_heads} × {kind.state_numbers:,} numbers"
        )
    for_how_long = {
        "window": ", of the last {:,} tokens",
        "chunk": ", of chunks of {:,} tokens",
        "stride": ", for every {:,} tokens",
        "all": "",
    }
    rule, size = kind.rule
    read = f", of which a query reads {kind.top_k:,}" if kind.top_k else ""
    return f"{text} with {' and '.join(stores)}{for_how_long[rule].format(size)}{read}"


def described(g: Geometry) -> str:
    """Return a model's sizes in words.

    Args:
        g: its geometry.

    Returns:
        Such as ``32 layers; 32 query heads share 8 KV heads of width 128``.
    """
    width = f"of width {g.head_dim}"
    if g.v_head_dim != g.head_dim:
        width += f" (values {g.v_head_dim})"
    if g.kv_lora_rank is not None:
        width = f"{g.n_heads} heads {width}; latent {g.kv_lora_rank}, rotary key"
        heads = f"{width} {g.qk_rope_head_dim}"
    elif g.n_kv_heads == g.n_heads > 1:
        heads = f"{g.n_heads} heads {width}, each with a key and a value"
    else:
        plural = "s" * (g.n_kv_heads > 1)
        heads = f"{g.n_heads} query heads share {g.n_kv_heads} KV head{plural} {width}"
    text = f"{g.n_layers} layers; {heads}"
    if g.window is not None:
        few = "every layer sees" if g.n_window_layers == g.n_layers else ""
        text += f"; {few or f'{g.n_window_layers} layers see'} the last {g.window:,} tokens"
    return text


def several(models: Mapping[str, Model]) -> list[str]:
    """Return the families with more than one model, in alphabetical order."""
    counts = Counter(model.family for model in models.values())
    return sorted((name for name in counts if counts[name] > 1), key=str.casefold)


def parts_of(source: str) -> list[list[Any]]:
    """Return a source in parts, with the address of each public page that it names.

    Args:
        source: text that may contain addresses, or names of :data:`attnlib.models.PAGES`.

    Returns:
        ``[text, address]`` for each part; the address is ``None`` for plain text.
    """
    pages = [(r"(https?://[^\s<>\"]*[^\s<>\".,;:)\]])", r"\1"), *PAGES]
    matches = [
        (match, page) for pattern, page in pages for match in re.finditer(pattern, source)
    ]
    parts, end = [], 0
    for match, page in sorted(matches, key=lambda pair: pair[0].start()):
        if match.start() < end:
            continue  # inside the previous link
        parts += [[source[end : match.start()], None], [match[0], match.expand(page)]]
        end = match.end()
    return [part for part in [*parts, [source[end:], None]] if part[0]]


def linked(text: str, address: str | None) -> str:
    """Return a part of a source as HTML.

    Args:
        text: to show.
        address: of the page it links to, or ``None``.

    Returns:
        HTML, escaped.
    """
    if address is None:
        return html.escape(text)
    return f'<a href="{html.escape(address)}">{html.escape(text)}</a>'


def ridge_of(machine: Machine | None) -> dict[str, Any] | None:
    """Return the ridge point of a machine.

    Args:
        machine: a processor, or ``None``.

    Returns:
        Its ``name``, the ``intensity`` above which arithmetic takes longer than reading, a
        ``text`` and the parts of its ``source``; ``None`` without a machine.

    Raises:
        ValueError: if a rate is not above 0.
    """
    if machine is None:
        return None
    for name in ("flops_per_second", "bytes_per_second"):
        if not getattr(machine, name) > 0:
            raise ValueError(
                f"{name} of the machine must be above 0, got {getattr(machine, name)!r}"
            )
    ridge = machine.flops_per_second / machine.bytes_per_second
    rates = f"{machine.flops_per_second / 1e12:,.3g} TFLOPs"
    rates += f" / {machine.bytes_per_second / 1e12:,.3g} TB a second"
    return {
        "name": machine.name,
        "intensity": ridge,
        "text": (
            f"Ridge point of an {machine.name}: {rates} = {ridge:,.0f} FLOPs per byte. Below"
            " it, reading the cache takes longer than the arithmetic on it; above it, the"
            " arithmetic does."
        ),
        "source": parts_of(machine.source),
    }
