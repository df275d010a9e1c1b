"""The headline dissector: nine numbers about caches, and what each is relative to."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import traitlets

from attnlib.book.headlines import WITH_READINGS, Claim, Headline, factor
from attnlib.book.widgets.base import StateError, Widget, one_of, table
from attnlib.costs import Geometry, evaluate, geometry_of, kv_cache_bytes
from attnlib.models import MODELS
from attnlib.variants import variant_of

HEADLINE = 93.3  # percent. Source: DeepSeek-V2, arXiv 2405.04434, abstract
MATCHED_NUMBERS = 860_200  # per token. Source: the same, Table 9, "860.2K", all layers
BASE_BITS = 16
PRECISIONS = {"equal": 16, "deployed": 6}  # bits of a cached number of V2

TEXTS = {
    "precision": {"deployed": "6 bits for V2, 16 for the other", "equal": "16 bits for both"},
    "baseline": {
        "67b": "DeepSeek 67B",
        "gqa": "GQA-8, V2’s layers",
        "mha": "MHA, V2’s heads",
        "matched": "the report’s MHA",
    },
    "layers": {"model": "the whole model", "layer": "one layer"},
}
ABOUT = {
    "67b": "DeepSeek 67B as published: GQA with 8 KV heads of width 128, 95 layers.",
    "gqa": "No published model: GQA with 8 KV heads of width 128, in V2’s 60 layers.",
    "mha": "No published model: V2’s 128 heads of width 128 with a key and a value each.",
    "matched": (
        "The large MHA model that the report has beside V2: its Table 9 prints 860.2K numbers"
        " per token, rounded, for all layers together. The MLA model beside it has V2’s 34.6K."
    ),
}
SOURCES = (
    ("DeepSeek-V2, Tables 1 and 9, and page 16 on 6 bits", "https://arxiv.org/abs/2405.04434"),
    ("DeepSeek 67B, Table 2", "https://arxiv.org/abs/2401.02954"),
)
V2_CLAIM = Claim(f"{HEADLINE} %", HEADLINE, "saving", 1)
#: The headlines by name, in the order of the list.
HEADLINES: dict[str, Headline] = {
    "v2": Headline("DeepSeek-V2: 93.3 % less KV cache", "", V2_CLAIM, SOURCES),
    **WITH_READINGS,
}


class HeadlineDissector(Widget, file="dissector"):
    """Headlines about caches, each with what it can be relative to.

    The first is DeepSeek-V2's saving, with switches for each part of the comparison: the
    report's abstract says that V2 has 93.3 % less KV cache than DeepSeek 67B, and does not
    spell out the arithmetic. Source: arXiv 2405.04434, abstract, page 16 and Table 9. The
    others have a list of readings.

    Args:
        label: the figure's title.
        precision: of V2's cache at first: ``"deployed"``, 6 bits per number, or ``"equal"``,
            16 like the other's.
        baseline: at first: ``"67b"``, DeepSeek 67B; ``"gqa"``, its attention with V2's number
            of layers; ``"mha"``, V2's own heads without a latent; ``"matched"``, the
            multi-head model with which the report compares V2's attention.
        layers: at first: ``"model"``, all layers, or ``"layer"``, one of each model.
        headline: the headline shown at first, a key of ``HEADLINES`` such as ``"v2"``.
        reading: what it is relative to at first; ``None`` means the headline's first reading.

    Attributes:
        precision: of V2's cache.
        baseline: the model that V2 is compared with.
        layers: whether all layers count, or one of each model.
        headline: the headline shown.
        reading: what it is relative to; empty for ``"v2"``, which has the switches instead.

    Raises:
        ValueError: if a first state is not one of the choices.
    """

    precision = traitlets.Unicode("deployed").tag(sync=True, state=True)
    baseline = traitlets.Unicode("67b").tag(sync=True, state=True)
    layers = traitlets.Unicode("model").tag(sync=True, state=True)
    headline = traitlets.Unicode("v2").tag(sync=True, state=True)
    reading = traitlets.Unicode("").tag(sync=True, state=True)

    _precision = one_of("precision", lambda self: TEXTS["precision"])
    _baseline = one_of("baseline", lambda self: TEXTS["baseline"])
    _layers = one_of("layers", lambda self: TEXTS["layers"])
    _headline = one_of("headline", lambda self: HEADLINES)

    @traitlets.validate("reading")
    def _reading(self, proposal: dict[str, Any]) -> str:
        """Accept the readings of the headline only."""
        found, names = str(proposal["value"]), self.readings()
        if found not in names:
            shown = ", ".join(map(repr, names))
            raise StateError(
                f"reading must be one of {shown} for the headline {self.headline!r},"
                f" got {found!r}"
            )
        return found

    @traitlets.observe("headline")
    def _to_first_reading(self, _change: object) -> None:
        """Choose the first reading of a new headline, unless one of its own is set."""
        if self.reading not in self.readings():
            self.reading = self.readings()[0]

    def __init__(
        self,
        *,
        label: str = "Headlines, taken apart: relative to what?",
        precision: str = "deployed",
        baseline: str = "67b",
        layers: str = "model",
        headline: str = "v2",
        reading: str | None = None,
    ):
        super().__init__(data=dissector_data(), label=label)
        self.set_trait("precision", precision)
        self.set_trait("baseline", baseline)
        self.set_trait("layers", layers)
        self.set_trait("headline", headline)
        if reading is not None:
            self.set_trait("reading", reading)

    def readings(self) -> list[str]:
        """Return the readings that the headline has; V2's switches count as an empty one."""
        for entry in self.data.get("headlines", ()):
            if entry["name"] == self.headline and entry["readings"]:
                return [reading["name"] for reading in entry["readings"]]
        return [""]

    def fallback(self) -> str:
        """Return a table of all comparisons for each headline."""
        parts = [v2_table(self.data)]
        for entry in self.data["headlines"]:
            if entry["readings"]:
                parts.append(readings_table(entry))
        return "\n".join(parts)


def v2_table(data: dict[str, Any]) -> str:
    """Return all states of V2's switches as HTML."""
    rows = []
    for precision, baseline, layers in states():
        state = data["states"][f"{precision} {baseline} {layers}"]
        names = [TEXTS["baseline"][baseline], TEXTS["layers"][layers]]
        names = [names[0], TEXTS["precision"][precision], names[1]]
        sides = [state["mine"], state["other"]]
        for side in sides:
            names += [side["numbers"], side["bytes"]] if side else ["not printed"] * 2
        rows.append([*names, state["saving"] or "", state["ratio"] or ""])
    head = ["V2 against", "bits", "of", "V2, numbers per token", "V2, bytes per token"]
    head += ["the other, numbers", "the other, bytes", "less", "as a ratio"]
    notes = " ".join([*ABOUT.values(), data["caution"]])
    caption = "DeepSeek-V2’s cache per token against others."
    return f"{table(head, rows, caption)}\n{paragraph(notes, SOURCES)}"


def readings_table(entry: dict[str, Any]) -> str:
    """Return all readings of a headline as HTML."""
    head = ["relative to what?", "compared", "with", "result", "factors", "in words"]
    rows = [
        [
            reading["text"],
            *(side_text(reading[side]) for side in ("mine", "other")),
            f"{reading['strong']}{reading['rest']}. {reading['stamp']}",
            " × ".join(f"{name}: {counted}" for name, counted, _ in reading["factors"]),
            reading["sentence"],
        ]
        for reading in entry["readings"]
    ]
    parts = [table(head, rows, f"{entry['text']}.")]
    if entry["table"]:
        listed = entry["table"]
        parts.append(table(listed["head"], listed["rows"], listed["caption"]))
    return "\n".join([*parts, paragraph(entry["about"], entry["sources"])])


def side_text(side: dict[str, Any]) -> str:
    """Return one side of a comparison in one cell."""
    details = "; ".join((side["counted"], side["precision"], side["context"]))
    return f"{side['name']} ({details}): {side['takes']}"


def paragraph(notes: str, sources: Sequence[Sequence[str]]) -> str:
    """Return notes and their sources, text and address of each, as HTML."""
    links = ", ".join(f'<a href="{url}">{html.escape(text)}</a>' for text, url in sources)
    return f"<p>{html.escape(notes)} Sources: {links}.</p>"


def states() -> Iterator[tuple[str, str, str]]:
    """Yield every state of the switches: precision, baseline, layers."""
    return product(TEXTS["precision"], TEXTS["baseline"], TEXTS["layers"])


def dissector_data() -> dict[str, Any]:
    """Return all comparisons, each with its numbers and its sentence."""
    return {
        "own_name": f"DeepSeek-V2, {variant_of(geometry_of(MODELS['DeepSeek-V2'])).name}",
        "texts": {name: [[*item] for item in texts.items()] for name, texts in TEXTS.items()},
        "about": ABOUT,
        "sources": [list(source) for source in SOURCES],
        "caution": (
            f"The report says {HEADLINE} % and does not spell out the arithmetic. One"
            " comparison here gives this number: DeepSeek 67B as published, 16 bits there and 6"
            " in V2, all layers. The report says that V2 is deployed with 6 bits on average."
        ),
        "headline": f"{HEADLINE} %",
        "states": {" ".join(state): compared(*state) for state in states()},
        "headlines": [
            {
                "name": name,
                "text": headline.text,
                "about": headline.about,
                "sources": [list(source) for source in headline.sources],
                "readings": [reading.data(headline.claim) for reading in headline.readings],
                "table": headline.table,
            }
            for name, headline in HEADLINES.items()
        ],
    }


def baselines() -> dict[str, Geometry]:
    """Return the geometries that V2 is compared with; ``"matched"`` has no published one."""
    v2, base = geometry_of(MODELS["DeepSeek-V2"]), geometry_of(MODELS["DeepSeek LLM 67B"])
    return {
        "67b": base,
        "gqa": replace(base, n_layers=v2.n_layers),
        "mha": Geometry(v2.n_layers, v2.n_heads, v2.n_heads, v2.head_dim, v2.v_head_dim),
    }


def compared(precision: str, baseline: str, layers: str) -> dict[str, Any]:
    """Return one comparison.

    Args:
        precision: one of :data:`PRECISIONS`.
        baseline: one of :data:`ABOUT`.
        layers: one of ``"model"`` and ``"layer"``.

    Returns:
        ``mine`` and ``other`` (a dictionary each, or ``None`` if nothing is published), the
        ``saving`` in percent, the ``ratio``, its ``factors``, a ``sentence``, and whether the
        saving is the ``headline``.
    """
    v2, bits = geometry_of(MODELS["DeepSeek-V2"]), PRECISIONS[precision]
    count = 1 if layers == "layer" else v2.n_layers
    mine = side(replace(v2, n_layers=count), bits)
    geometry = baselines().get(baseline)
    if geometry is None and layers == "layer":
        return {
            "mine": mine,
            "other": None,
            "saving": None,
            "ratio": None,
            "factors": [],
            "headline": False,
            "sentence": (
                "The report does not say how many layers this model has, so there is no layer"
                " of it to compare with."
            ),
        }
    if geometry is None:
        n_bytes = MATCHED_NUMBERS * BASE_BITS // 8
        other = labelled(MATCHED_NUMBERS, n_bytes, BASE_BITS, "all layers", about=True)
    else:
        one = replace(geometry, n_layers=1) if layers == "layer" else geometry
        other = side(one, BASE_BITS)
    ratio = other["n_bytes"] / mine["n_bytes"]
    saving = 100 * (1 - 1 / ratio)
    return {
        "mine": mine,
        "other": other,
        "saving": f"{saving:.2f} %",
        "ratio": f"1/{ratio:.2f}",
        "factors": factors(geometry, mine, other, bits, layers),
        "headline": round(saving, 1) == HEADLINE,
        "sentence": sentence(baseline, mine, other, saving, ratio, layers),
    }


def side(geometry: Geometry, bits: int) -> dict[str, Any]:
    """Return the cache per token of one model, as from :func:`labelled`."""
    per_layer = evaluate(variant_of(geometry).cache_numbers, geometry.sizes())
    numbers = per_layer * geometry.n_layers
    n_bytes = kv_cache_bytes(geometry, 1, dtype=bits)
    plural = "s" * (geometry.n_layers > 1)
    return labelled(numbers, n_bytes, bits, f"{geometry.n_layers} layer{plural}")


def labelled(
    numbers: int, n_bytes: int, bits: int, of: str, *, about: bool = False
) -> dict[str, Any]:
    """Return the cache per token in numbers, bytes and words; ``about`` if it is rounded."""
    near = "about " * about
    return {
        "count": numbers,
        "n_bytes": n_bytes,
        "numbers": f"{near}{numbers:,}",
        "bytes": f"{near}{n_bytes:,}",
        "bits": bits,
        "of": of,
        "counted": f"{of}, {bits} bits per number",
        "amount": n_bytes,
        "takes": f"{near}{numbers:,} numbers = {near}{n_bytes:,} bytes",
    }


def factors(
    geometry: Geometry | None,
    mine: dict[str, Any],
    other: dict[str, Any],
    bits: int,
    layers: str,
) -> list[list[str]]:
    """Return the factors whose product is the ratio: name, how it is counted, value."""
    precision = factor("bits per number", BASE_BITS, bits)
    if geometry is None:
        ratio = other["count"] / mine["count"]
        counted = f"{other['numbers']} / {mine['numbers']}"
        return [["numbers per token, all layers", counted, f"{ratio:.3f}"], precision]
    v2 = geometry_of(MODELS["DeepSeek-V2"])
    others = evaluate(variant_of(geometry).cache_numbers, geometry.sizes())
    own = evaluate(variant_of(v2).cache_numbers, v2.sizes())
    depth = [factor("layers", geometry.n_layers, v2.n_layers)] * (layers == "model")
    return [factor("numbers per token and layer", others, own), *depth, precision]


def attention_name(geometry: Geometry) -> str:
    """Return the name of a model's variant, with the KV heads if it has groups: ``GQA-8``."""
    grouped = 1 < geometry.n_kv_heads < geometry.n_heads
    return variant_of(geometry).name + f"-{geometry.n_kv_heads}" * grouped


def sentence(
    baseline: str,
    mine: dict[str, Any],
    other: dict[str, Any],
    saving: float,
    ratio: float,
    layers: str,
) -> str:
    """Return a comparison in words, with what differs."""
    whose = {
        "67b": "DeepSeek 67B",
        "gqa": "GQA-8 in V2’s layers",
        "mha": "MHA of V2’s own heads",
        "matched": "the MHA model of the report’s Table 9",
    }[baseline]
    part = "a layer" if layers == "layer" else "all layers"
    own, other_geometry = geometry_of(MODELS["DeepSeek-V2"]), baselines().get(baseline)
    if other_geometry is None:  # the report's own baseline has a KV head per query head, too
        other_geometry = baselines()["mha"]
    differ = [f"the attention ({attention_name(own)} for {attention_name(other_geometry)})"]
    if baseline == "67b" and layers == "model":
        differ.append(f"the depth ({own.n_layers} layers for {other_geometry.n_layers})")
    if baseline == "matched":
        differ.append("perhaps the depth (not in print)")
    if mine["bits"] != other["bits"]:
        differ.append(f"the precision ({mine['bits']} bits for {other['bits']})")
    *most, last = differ
    listed = f"{', '.join(most)} and {last}" if most else f"{last} alone"
    return (
        f"A token takes {mine['bytes']} bytes in {part} of V2, at {mine['bits']} bits per"
        f" number, and {other['bytes']} bytes in {part} of {whose}, at {other['bits']} bits:"
        f" {saving:.1f} % less, or one part in {ratio:.1f}. What differs: {listed}."
    )
