"""The headline dissector: nine numbers about caches, and what each is relative to."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import product
from typing import Any, NamedTuple

import traitlets

from attnlib.book.widgets.base import StateError, Widget, one_of, table
from attnlib.costs import Geometry, evaluate, geometry_of, kv_cache_bytes
from attnlib.layers import LayerKind, cache_size, growth_bytes, layers_of, step_reads
from attnlib.models import MODELS
from attnlib.variants import variant_of

HEADLINE = 93.3  # percent. Source: DeepSeek-V2, arXiv 2405.04434, abstract
MATCHED_NUMBERS = 860_200  # per token. Source: the same, Table 9, "860.2K", all layers
BASE_BITS = 16
PRECISIONS = {"equal": 16, "deployed": 6}  # bits of a cached number of V2
LAYERS = ("model", "layer")

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
        " a token, rounded, for all layers together. The MLA model beside it has V2’s 34.6K."
    ),
}
SOURCES = (
    ("DeepSeek-V2, Tables 1 and 9, and page 16 on 6 bits", "https://arxiv.org/abs/2405.04434"),
    ("DeepSeek 67B, Table 2", "https://arxiv.org/abs/2401.02954"),
)


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
        headline: the headline shown at first, one of :data:`HEADLINES`.
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
    """Return all states of V2's switches as HTML.

    Args:
        data: the widget's.

    Returns:
        A table and a paragraph.
    """
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
    """Return all readings of a headline as HTML.

    Args:
        entry: one of the data's ``headlines``.

    Returns:
        Tables and a paragraph.
    """
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
    """Return notes and their sources as HTML.

    Args:
        notes: plain text.
        sources: the text and the address of each.

    Returns:
        A paragraph.
    """
    links = ", ".join(f'<a href="{url}">{html.escape(text)}</a>' for text, url in sources)
    return f"<p>{html.escape(notes)} Sources: {links}.</p>"


def states() -> Iterator[tuple[str, str, str]]:
    """Yield every state of the switches: precision, baseline, layers."""
    return product(*(TEXTS[name] for name in ("precision", "baseline", "layers")))


def dissector_data() -> dict[str, Any]:
    """Return all comparisons, each with its numbers and its sentence.

    Returns:
        The widget's data.
    """
    return {
        "own_name": f"DeepSeek-V2, {variant_of(geometry_of(MODELS['DeepSeek-V2'])).name}",
        "texts": {name: [[*item] for item in texts.items()] for name, texts in TEXTS.items()},
        "about": ABOUT,
        "sources": [list(source) for source in SOURCES],
        "caution": (
            f"The report says {HEADLINE} % and does not spell out the arithmetic. It is"
            " consistent with DeepSeek 67B as published, 16 bits there and 6 in V2, all"
            " layers, and with no other comparison here; 6 bits on average is what the report"
            " says of V2’s deployment."
        ),
        "headline": f"{HEADLINE} %",
        "states": {" ".join(state): compared(*state) for state in states()},
        "headlines": [
            {
                "name": name,
                "text": headline.text,
                "about": headline.about,
                "sources": [list(source) for source in headline.sources()],
                "readings": headline.readings(),
                "table": ladder_table() if name == "ladder" else None,
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
        layers: one of :data:`LAYERS`.

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
    """Return the cache per token of one model.

    Args:
        geometry: the model's sizes.
        bits: of a cached number.

    Returns:
        A dictionary as from :func:`labelled`.
    """
    per_layer = evaluate(variant_of(geometry).cache_numbers, geometry.sizes())
    numbers = per_layer * geometry.n_layers
    n_bytes = kv_cache_bytes(geometry, 1, dtype=bits)
    plural = "s" * (geometry.n_layers > 1)
    return labelled(numbers, n_bytes, bits, f"{geometry.n_layers} layer{plural}")


def labelled(
    numbers: int, n_bytes: int, bits: int, of: str, *, about: bool = False
) -> dict[str, Any]:
    """Return the cache per token in numbers, bytes and words.

    Args:
        numbers: cached numbers.
        n_bytes: their bytes.
        bits: per number.
        of: which layers.
        about: whether the numbers are rounded.

    Returns:
        A dictionary for the page.
    """
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
    """Return the factors whose product is the ratio.

    Args:
        geometry: of the other model; ``None`` if only its sum is published.
        mine: V2's side.
        other: the other's side.
        bits: per number of V2's cache.
        layers: one of :data:`LAYERS`.

    Returns:
        ``[name, how it is counted, factor]`` for each factor.
    """
    precision = ["bits per number", f"{BASE_BITS} / {bits}", f"{BASE_BITS / bits:.3f}"]
    if geometry is None:
        ratio = other["count"] / mine["count"]
        counted = f"{other['numbers']} / {mine['numbers']}"
        return [["numbers per token, all layers", counted, f"{ratio:.3f}"], precision]
    v2 = geometry_of(MODELS["DeepSeek-V2"])
    others = evaluate(variant_of(geometry).cache_numbers, geometry.sizes())
    own = evaluate(variant_of(v2).cache_numbers, v2.sizes())
    terms = [["numbers per token and layer", f"{others:,} / {own:,}", f"{others / own:.3f}"]]
    if layers == "model":
        depth = geometry.n_layers / v2.n_layers
        terms.append(["layers", f"{geometry.n_layers} / {v2.n_layers}", f"{depth:.3f}"])
    return [*terms, precision]


def attention_name(geometry: Geometry) -> str:
    """Return the name of a model's variant, with the number of KV heads if it has groups.

    Args:
        geometry: the model's sizes.

    Returns:
        Such as ``MLA`` or ``GQA-8``.
    """
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
    """Return a comparison in words.

    Args:
        baseline: one of :data:`ABOUT`.
        mine: V2's side.
        other: the other's side.
        saving: in percent.
        ratio: of the bytes.
        layers: one of :data:`LAYERS`.

    Returns:
        Two or three sentences.
    """
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
        depths = [
            geometry_of(MODELS[name]).n_layers for name in ("DeepSeek-V2", "DeepSeek LLM 67B")
        ]
        differ.append(f"the depth ({depths[0]} layers for {depths[1]})")
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


# The other headlines: each has readings, and each reading compares two sides.

DEVICES = 8
SHARED = (8192, 8)  # tokens of each sequence, and sequences, that the devices share
LONG, SHORT = 131_072, 2048  # tokens, for reads and for shares of a cache
MILLION = 1_048_576

# Milliseconds per token at a million tokens, each with the batch that its cache allows, and
# about how many times faster it is at batch 1. Source: Kimi Linear, arXiv 2510.26692.
KIMI_MS, MLA_MS = Fraction("1.84"), Fraction("11.48")
BATCH_1 = ("2.2", "2.3")

# p-RoPE rotates this part of a key in Gemma 4's global layers. Source: its report, section 2.
GEMMA_ROTATED = Fraction(1, 4)

# Source: NSA, arXiv 2502.11089, section 4.1: compressed blocks of 32 tokens, one every 16; 16
# selected blocks of 64; a window of 512; and the sizes of the model with 27B parameters.
NSA_BLOCK, NSA_STRIDE, NSA_SELECTED, NSA_WINDOW = 32, 16, 16 * 64, 512
NSA_FULL = LayerKind(n_layers=30, name="full", n_kv_heads=4, head_dim=192, v_head_dim=128)
NSA_KEPT = (NSA_FULL, replace(NSA_FULL, name="compressed", stride=NSA_STRIDE))

PRECISION = {
    "bfloat16": "16 bits per number",
    "float8_e4m3fn": "8 bits per number, no scales",
    "q8_0": "8 bits per number, a 2-byte scale per 32",
    "DeepSeek fp8": "the fp8 layout: 8 bits and scales, rotary key in 16 bits",
    "DeepSeek-V4": "V4’s layout: 8 bits and scales, rotary part in 16 bits, index key in 4",
    "DeepSeek-V4.1": "4 bits per number and scales",
}
STORED = {
    "bfloat16": "16 bits",
    "DeepSeek fp8": "fp8 layout",
    "DeepSeek-V4": "V4’s layout",
    "DeepSeek-V4.1": "4 bits and scales",
}
LADDER = (
    ("DeepSeek LLM 67B", "bfloat16"),
    ("DeepSeek-V2", "bfloat16"),
    ("DeepSeek-V3 / R1", "bfloat16"),
    ("DeepSeek-V3 / R1", "DeepSeek fp8"),
    ("DeepSeek-V3.2", "DeepSeek fp8"),
    ("DeepSeek-V4-Flash", "DeepSeek-V4"),
    ("DeepSeek-V4-Pro", "DeepSeek-V4"),
    ("DeepSeek-V4.1-Flash", "DeepSeek-V4.1"),
)
EACH_TOKEN = "each further token of one sequence"


class Claim(NamedTuple):
    """The number that a headline prints.

    Attributes:
        printed: as in the headline; "" if it prints none.
        value: of the number.
        of: what it counts: the ``"ratio"``, or the ``"saving"`` in percent.
        digits: after the point, as printed.
    """

    printed: str = ""
    value: float = 0
    of: str = "ratio"
    digits: int = 0

    def given_by(self, ratio: Fraction) -> bool:
        """Whether a ratio rounds to the number that is printed."""
        found = ratio if self.of == "ratio" else 100 * (1 - 1 / ratio)
        return bool(self.printed) and round(float(found), self.digits) == self.value

    def stamp(self, ratio: Fraction) -> str:
        """Return whether a ratio gives the number that is printed, as a sentence."""
        if not self.printed:
            return "The headline prints no number."
        verb = "gives" if self.given_by(ratio) else "does not give"
        return f"This reading {verb} the headline’s {self.printed}."


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: whose cache, or whose time.
        counted: what is counted.
        precision: of what is counted.
        context: tokens and sequences for which it is counted.
        amount: how much it is.
        unit: of the amount.
        shown: the amount in words, if it is not a whole number of units.
    """

    name: str
    counted: str
    precision: str
    context: str
    amount: Fraction
    unit: str = "bytes"
    shown: str = ""

    @property
    def takes(self) -> str:
        """The amount with its unit."""
        return self.shown or f"{round(self.amount):,} {self.unit}"

    def data(self) -> dict[str, Any]:
        """Return the side for the page."""
        return {
            "name": self.name,
            "counted": self.counted,
            "precision": self.precision,
            "context": self.context,
            "amount": float(self.amount),
            "takes": self.takes,
        }


@dataclass(frozen=True)
class Headline:
    """A headline, and what it can be relative to.

    Attributes:
        text: for the list.
        claim: the number that it prints.
        about: a note on all its readings.
        sources: returns the text and the address of each source.
        compared: returns its readings from its claim.
    """

    text: str
    claim: Claim
    about: str
    sources: Callable[[], list[tuple[str, str]]]
    compared: Callable[[Claim], list[dict[str, Any]]]

    def readings(self) -> list[dict[str, Any]]:
        """Return the readings for the page."""
        return self.compared(self.claim)


def reading(
    name: str,
    text: str,
    sides: tuple[Side, Side],
    claim: Claim,
    *,
    noun: str,
    factors: list[list[str]],
    sentence: str,
    remark: str = "",
    style: str = "percent",
    digits: int = 1,
    strong: str = "",
) -> dict[str, Any]:
    """Return one reading of a headline.

    Args:
        name: of the reading.
        text: for its radio button.
        sides: what is compared, and with what.
        claim: of the headline.
        noun: what there is less of, such as "cache per token".
        factors: as from :func:`factor`; their product is the ratio.
        sentence: in words.
        remark: what follows the stamp.
        style: ``"percent"``, ``"times"``, or ``"faster"``.
        digits: after the point.
        strong: the result in words, if the sides do not say it exactly.

    Returns:
        A dictionary for the page.
    """
    mine, other = sides
    ratio = Fraction(other.amount) / Fraction(mine.amount)
    near = not strong
    rest = f" {noun}"
    if near:
        same = ratio == 1
        rest += f": {mine.takes} " + ("on both sides" if same else f"instead of {other.takes}")
    return {
        "name": name,
        "text": text,
        "mine": mine.data(),
        "other": other.data(),
        "ratio": float(ratio),
        "strong": strong or result(ratio, style, digits),
        "rest": rest,
        "headline": claim.given_by(ratio),
        "stamp": f"{claim.stamp(ratio)} {remark}".strip(),
        "factors": factors,
        "total": f"{float(ratio):.2f}" if near else factors[-1][-1],
        "sentence": sentence,
    }


def result(ratio: Fraction, style: str, digits: int) -> str:
    """Return a ratio as a saving.

    Args:
        ratio: of the other side to this one.
        style: ``"percent"``, ``"times"``, or ``"faster"``.
        digits: after the point.

    Returns:
        Such as ``"50.0 % less"`` or ``"4.61 times less"``; what is more is in percent.
    """
    if ratio == 1:
        return "0 % less"
    if ratio < 1:
        return f"{float(100 * (1 / ratio - 1)):.{digits}f} % more"
    if style == "percent":
        return f"{float(100 * (1 - 1 / ratio)):.{digits}f} % less"
    return f"{float(ratio):.{digits}f} times {'faster' if style == 'faster' else 'less'}"


def factor(name: str, above: Fraction | int, below: Fraction | int) -> list[str]:
    """Return a factor of a ratio: its name, how it is counted, and its value."""
    return [name, f"{shown(above)} / {shown(below)}", f"{float(Fraction(above) / below):.3f}"]


def shown(number: Fraction | int) -> str:
    """Return a number with at most three decimals."""
    text = f"{float(number):,.3f}"
    return text.rstrip("0").rstrip(".")


def short(name: str) -> str:
    """Return the name of a model without its second one."""
    return name.split(" / ")[0]


def link(name: str, host: str = "huggingface.co") -> str:
    """Return the address at a host that the table of models has as a model's source."""
    return next(address for address in MODELS[name].links if host in address)


def growth_side(
    name: str, kinds: Sequence[LayerKind], dtype: str, counted: str | None = None
) -> Side:
    """Return what each further token adds to a cache.

    Args:
        name: of the model.
        kinds: of its layers.
        dtype: of the stored numbers.
        counted: what is counted; ``None`` means bytes per token in all layers.

    Returns:
        The side.
    """
    layers = sum(kind.n_layers for kind in kinds)
    counted = counted or f"bytes per token, all {layers} layers"
    amount = growth_bytes(kinds, dtype=dtype)
    return Side(name, counted, PRECISION[dtype], EACH_TOKEN, amount)


def model_side(name: str, dtype: str) -> Side:
    """Return what each further token adds to the cache of a published model."""
    return growth_side(short(name), MODELS[name].layers, dtype)


def size_side(name: str, kinds: Sequence[LayerKind], tokens: int) -> Side:
    """Return a whole cache of one sequence in bfloat16, with all that does not grow.

    Args:
        name: of the model.
        kinds: of its layers.
        tokens: of the sequence.

    Returns:
        The side.
    """
    amount = Fraction(cache_size(kinds, tokens).once)
    counted, precision = "bytes of the cache", PRECISION["bfloat16"]
    if any(kind.window for kind in kinds):
        counted += ", window layers included"
    if any(kind.state_heads for kind in kinds):
        counted, precision = f"{counted}, state included", f"{precision}, 32 in the state"
    return Side(name, counted, precision, f"{tokens:,} tokens, batch 1", amount)


def growth_factors(
    mine: Sequence[LayerKind],
    dtype: str,
    other: Sequence[LayerKind],
    other_dtype: str,
    what: str = "numbers per token, all layers",
) -> list[list[str]]:
    """Return a ratio of growths as numbers and bits.

    Args:
        mine: layers of this side.
        dtype: in which they store.
        other: layers of the other side.
        other_dtype: in which those store.
        what: the numbers are called.

    Returns:
        Two factors.
    """
    numbers = [growth_bytes(kinds, dtype="int8") for kinds in (other, mine)]  # a byte each
    stored = [growth_bytes(other, dtype=other_dtype), growth_bytes(mine, dtype=dtype)]
    bits = [8 * size / count for size, count in zip(stored, numbers, strict=True)]
    return [
        factor(what, *numbers),
        factor("bits per number, scales included", *bits),
    ]


# DeepSeek's ladder


def ladder_readings(claim: Claim) -> list[dict[str, Any]]:
    """Return V4.1-Flash against its predecessors."""
    rungs = {
        "first": ("as reported: 16 bits against 4 and scales", "DeepSeek LLM 67B", "bfloat16"),
        "bits": ("both at 16 bits", "DeepSeek LLM 67B", "bfloat16"),
        "v3": ("DeepSeek-V3 at 16 bits, which has MLA", "DeepSeek-V3 / R1", "bfloat16"),
        "v4flash": ("DeepSeek-V4-Flash as stored", "DeepSeek-V4-Flash", "DeepSeek-V4"),
    }
    remarks = {"v4flash": "It is the report’s other number, 1/4."}
    found = []
    for name, (text, base, base_dtype) in rungs.items():
        dtype = "bfloat16" if name == "bits" else "DeepSeek-V4.1"
        sides = model_side("DeepSeek-V4.1-Flash", dtype), model_side(base, base_dtype)
        layers = MODELS["DeepSeek-V4.1-Flash"].layers, dtype, MODELS[base].layers, base_dtype
        found.append(
            reading(
                name,
                text,
                sides,
                claim,
                noun="cache per token",
                factors=growth_factors(*layers),
                sentence=rung_sentence(name, *sides),
                remark=remarks.get(name, ""),
                style="times",
                digits=2 if name == "v4flash" else 1,
            )
        )
    return found


def rung_sentence(name: str, mine: Side, other: Side) -> str:
    """Return one step of the ladder in words.

    Args:
        name: of the reading.
        mine: V4.1-Flash.
        other: what it is compared with.

    Returns:
        Sentences.
    """
    begin = (
        f"Each further token takes {mine.takes} in {mine.name} and {other.takes} in"
        f" {other.name}."
    )
    ends = {
        "first": "The factor mixes two things: fewer numbers, and fewer bits for each.",
        "bits": "The bits are equal here, so this is what the design does.",
        "v3": (
            "V3 has MLA already, so the first step of the ladder is left out. The bits still"
            " differ."
        ),
        "v4flash": (
            "The report calls this a quarter. The bits differ here as well: V4-Flash stores"
            " most of its numbers in 8."
        ),
    }
    return f"{begin} {ends[name]}"


def ladder_table() -> dict[str, Any]:
    """Return the whole ladder, one row per model and format."""
    first = growth_bytes(MODELS[LADDER[0][0]], dtype=LADDER[0][1])
    rows = []
    for name, dtype in LADDER:
        growth = growth_bytes(MODELS[name], dtype=dtype)
        times = f"{float(first / growth):,.1f}"
        label = f"{short(name)}, {STORED[dtype]}"
        rows.append([label, f"{round(growth):,}", times, windows_of(MODELS[name].layers)])
    return {
        "caption": "The ladder: what each further token adds, all layers together.",
        "head": ["model, and how it stores", "bytes per token", "times less", "kept besides"],
        "rows": rows,
    }


def windows_of(kinds: Sequence[LayerKind]) -> str:
    """Return which uncompressed tokens layers keep, whatever the context."""
    spans = [(kind.window or kind.recent, kind.n_layers) for kind in kinds]
    widths = sorted({width for width, _ in spans if width})
    found = [
        f"the last {width:,} tokens in {sum(n for w, n in spans if w == width)} layers"
        for width in widths
    ]
    return " and ".join(found) or "nothing"


def ladder_sources() -> list[tuple[str, str]]:
    """Return the sources of the ladder."""
    return [
        ("DeepSeek LLM, Table 2", "https://arxiv.org/abs/2401.02954"),
        ("DeepSeek-V2", "https://arxiv.org/abs/2405.04434"),
        ("DeepSeek-V3", link("DeepSeek-V3 / R1", "arxiv.org")),
        ("DeepSeek-V3.2, code", "https://github.com/deepseek-ai/DeepSeek-V3.2-Exp"),
        ("DeepSeek-V4", "https://arxiv.org/abs/2606.19348"),
        ("DeepSeek-V4.1-Flash, checkpoint", link("DeepSeek-V4.1-Flash")),
    ]


# Kimi Linear


def kimi_layers() -> tuple[tuple[LayerKind, ...], LayerKind, int]:
    """Return Kimi Linear's layers, the kind that has a growing cache, and all it has."""
    model = MODELS["Kimi Linear 48B-A3B"]
    full = next(kind for kind in model.layers if kind.kv_lora_rank)
    return model.layers, full, model.n_layers


def kimi75_readings(claim: Claim) -> list[dict[str, Any]]:
    """Return Kimi Linear's saving by design, per token, and with its constant state."""
    layers, full, total = kimi_layers()
    linear = next(kind for kind in layers if kind.state_heads)
    design = (replace(linear, n_layers=3), replace(full, n_layers=1))
    return [
        kimi_growth(
            "design",
            "the design: 3 linear layers per MLA layer",
            ("3 linear layers and 1 MLA layer", design),
            claim,
            "Three of four layers keep no growing cache, so a fourth of it is left. A model"
            " reaches this if its number of layers is a multiple of 4.",
        ),
        kimi_growth(
            "token",
            f"all {total} layers MLA, per further token",
            ("Kimi Linear", layers),
            claim,
            f"The published model has {linear.n_layers} linear layers and {full.n_layers} MLA"
            f" layers. {total} is not a multiple of 4, so it saves a little less than 75 %."
            " Its constant state does not grow and is not counted here.",
        ),
        kimi_size("8k", 8192, claim),
        kimi_size("1m", MILLION, claim),
    ]


def kimi_growth(
    name: str, text: str, of: tuple[str, Sequence[LayerKind]], claim: Claim, sentence: str
) -> dict[str, Any]:
    """Return a saving per further token against MLA in every layer.

    Args:
        name: of the reading.
        text: for its button.
        of: name and layers of what saves.
        claim: of the headline.
        sentence: in words.

    Returns:
        The reading.
    """
    called, kinds = of
    full = next(kind for kind in kinds if kind.kv_lora_rank)
    total = sum(kind.n_layers for kind in kinds)
    base = growth_side(f"{total} MLA layers", [replace(full, n_layers=total)], "bfloat16")
    return reading(
        name,
        text,
        (growth_side(called, kinds, "bfloat16"), base),
        claim,
        noun="cache per further token",
        factors=[factor("layers whose cache grows", total, full.n_layers)],
        sentence=sentence,
    )


def kimi_size(name: str, tokens: int, claim: Claim) -> dict[str, Any]:
    """Return the saving at a context, the constant state included.

    Args:
        name: of the reading.
        tokens: of the sequence.
        claim: of the headline.

    Returns:
        The reading.
    """
    sides, factors = kimi_cache(tokens)
    constant = sides[0].amount - tokens * growth_bytes(MODELS["Kimi Linear 48B-A3B"])
    share = float(100 * constant / sides[0].amount)
    return reading(
        name,
        f"all MLA, at {tokens:,} tokens, state included",
        sides,
        claim,
        noun="cache",
        factors=factors,
        sentence=(
            f"The linear layers keep a constant state of {round(constant):,} bytes, which is"
            f" {share:.1f} % of Kimi Linear’s cache at {tokens:,} tokens. The saving grows with"
            " the context, because the state does not."
        ),
    )


def kimi_cache(tokens: int) -> tuple[tuple[Side, Side], list[list[str]]]:
    """Return both caches at a context, and the factors of their ratio.

    Args:
        tokens: of the sequence.

    Returns:
        Kimi Linear's side and that of MLA in every layer; two factors.
    """
    layers, full, total = kimi_layers()
    base = [replace(full, n_layers=total)]
    mine = size_side("Kimi Linear", layers, tokens)
    other = size_side(f"{total} MLA layers", base, tokens)
    growing = tokens * growth_bytes(layers)
    factors = [
        factor("layers whose cache grows", total, full.n_layers),
        factor("bytes without and with the state", growing, mine.amount),
    ]
    return (mine, other), factors


def kimi6_readings(claim: Claim) -> list[dict[str, Any]]:
    """Return Kimi Linear's published times, and its cache alone."""
    sides, factors = kimi_cache(MILLION)
    return [
        kimi_times(claim),
        kimi_batch_1(claim),
        reading(
            "cache",
            "the cache alone, bytes at 1M tokens",
            sides,
            claim,
            noun="cache",
            factors=factors,
            sentence=(
                "A step that only read its cache would gain this factor at any batch. The"
                " smaller cache also lets more sequences share each read of the weights."
            ),
            style="times",
            digits=2,
        ),
    ]


def time_side(name: str, context: str, amount: Fraction, takes: str) -> Side:
    """Return a published time per token."""
    run = "precision as in the paper’s run"
    return Side(name, "time per token, as published", run, context, amount, shown=takes)


def kimi_times(claim: Claim) -> dict[str, Any]:
    """Return the ratio of the two published times."""
    kimi, base = float(KIMI_MS), float(MLA_MS)
    most = "1M tokens, the larger batch that the smaller cache allows"
    least = "1M tokens, the batch that its cache allows"
    run = "the paper’s MLA model"
    sides = (
        time_side("Kimi Linear", most, KIMI_MS, f"{kimi:.2f} ms"),
        time_side(run, least, MLA_MS, f"{base:.2f} ms"),
    )
    return reading(
        "printed",
        "as printed, with the larger batch",
        sides,
        claim,
        noun="per token",
        factors=[factor("milliseconds per token", MLA_MS, KIMI_MS)],
        sentence=(
            "The paper gives both times at a million tokens. The smaller cache leaves room for"
            " a larger batch, and a larger batch shares each read of the weights. The factor"
            " contains both effects."
        ),
        style="faster",
        digits=2,
    )


def kimi_batch_1(claim: Claim) -> dict[str, Any]:
    """Return what the same paper shows at batch 1, no more precisely than it can be read."""
    low, high = BATCH_1
    middle = (Fraction(low) + Fraction(high)) / 2
    context, about = "1M tokens, batch 1", f"about {low} to {high}"
    sides = (
        time_side("Kimi Linear", context, Fraction(1), "1 unit of time"),
        time_side("the paper’s MLA model", context, middle, f"{about} of these units"),
    )
    return reading(
        "one",
        "one sequence: batch 1",
        sides,
        claim,
        noun="per token",
        factors=[["time per token, published as a ratio", f"{low} to {high} / 1", about]],
        sentence=(
            f"At batch 1 the same paper shows steps that are {about} times faster. It can be"
            " read no more exactly than that. With one sequence, a step reads the weights for"
            " one token only, and a smaller cache does not change that part."
        ),
        strong=f"{about} times faster",
    )


def kimi_sources() -> list[tuple[str, str]]:
    """Return the sources on Kimi Linear."""
    return [
        ("Kimi Linear", "https://arxiv.org/abs/2510.26692"),
        ("Kimi Linear, checkpoint", link("Kimi Linear 48B-A3B")),
    ]


# Gemma 4


def gemma_readings(claim: Claim) -> list[dict[str, Any]]:
    """Return what can be left out of Gemma 4's global layers, and what is left out."""
    layers = MODELS["Gemma 4 31B"].layers
    full = next(kind for kind in layers if kind.window is None)
    rotated = int(GEMMA_ROTATED * full.head_dim)
    least = full.head_dim + rotated
    return [
        gemma_vector(
            "exact",
            "what can be left out exactly",
            ("V, and the rotated part of K", full, least),
            claim,
            f"K and V come from one projection. Only {rotated} of the {full.head_dim} numbers"
            " of K are rotated. The others equal V up to a gain, which can move into the"
            f" query. So {full.head_dim} + {rotated} numbers are enough.",
        ),
        gemma_vector(
            "vector",
            "if K and V were one vector",
            ("one vector that is K and V", full, full.head_dim),
            claim,
            "This would hold if no part of K were rotated. The rotated quarter of K differs"
            " from V, so one vector is not enough.",
            remark="It is the “half” of some write-ups.",
        ),
        gemma_vector(
            "stored",
            "what transformers and vLLM store",
            ("K and V as two tensors", full, 2 * full.head_dim),
            claim,
            "Both programs compute K and V from one projection and then store both. That saves"
            " weights, and nothing in the cache.",
        ),
        gemma_whole(least, claim),
    ]


def gemma_vector(
    name: str,
    text: str,
    of: tuple[str, LayerKind, int],
    claim: Claim,
    sentence: str,
    remark: str = "",
) -> dict[str, Any]:
    """Return one way of storing an entry of a global layer.

    Args:
        name: of the reading.
        text: for its button.
        of: what is stored, the kind of the layer, and how many numbers.
        claim: of the headline.
        sentence: in words.
        remark: what follows the stamp.

    Returns:
        The reading.
    """
    stored, kind, numbers = of
    both = Fraction(2 * kind.head_dim)
    counted = "numbers per KV head and token, one global layer"
    same = "any precision, the same on both sides"
    sides = (
        Side(stored, counted, same, EACH_TOKEN, Fraction(numbers), "numbers"),
        Side("K and V, both stored", counted, same, EACH_TOKEN, both, "numbers"),
    )
    return reading(
        name,
        text,
        sides,
        claim,
        noun="in a global layer",
        factors=[factor("numbers per KV head and token", both, numbers)],
        sentence=sentence,
        remark=remark,
    )


def gemma_whole(least: int, claim: Claim) -> dict[str, Any]:
    """Return the saving as a share of the whole model's cache.

    Args:
        least: numbers that a global layer needs per KV head and token.
        claim: of the headline.

    Returns:
        The reading.
    """
    layers = MODELS["Gemma 4 31B"].layers
    full = next(kind for kind in layers if kind.window is None)
    smaller = replace(full, v_head_dim=least - full.head_dim)  # a row of that many numbers
    pairs = [
        [smaller if kind == full else kind for kind in layers],
        list(layers),
    ]
    names = ("Gemma 4 31B, stored at its least", "Gemma 4 31B, K and V both stored")
    mine, other = (
        size_side(name, kinds, LONG) for name, kinds in zip(names, pairs, strict=True)
    )
    after = 100 * cache_size([smaller], LONG).once / mine.amount
    before = 100 * cache_size([full], LONG).once / other.amount
    windows = sum(kind.n_layers for kind in layers if kind.window)
    return reading(
        "whole",
        f"the whole model at {LONG:,} tokens",
        (mine, other),
        claim,
        noun="cache",
        factors=[
            factor("numbers per KV head and token", 2 * full.head_dim, least),
            factor("percent of the cache in global layers, after / before", after, before),
        ],
        sentence=(
            f"The {windows} layers with a window gain nothing, because their K and V come from"
            f" two projections. The {full.n_layers} global layers hold {float(before):.1f} % of"
            " the cache at this length, so the saving of the whole is a little smaller."
        ),
    )


def gemma_sources() -> list[tuple[str, str]]:
    """Return the sources on Gemma 4."""
    code = "https://github.com/huggingface/transformers/blob/main/src/transformers/models/"
    return [
        ("Gemma 4, section 2", "https://arxiv.org/abs/2607.02770"),
        ("transformers, gemma4", f"{code}gemma4/modeling_gemma4.py"),
        ("Gemma 4 31B, checkpoint", link("Gemma 4 31B")),
    ]


# NSA


def tokens_loaded(tokens: int) -> tuple[int, int, int]:
    """Return what a decode step of NSA loads: compressed, selected, and in the window."""
    return (tokens - NSA_BLOCK) // NSA_STRIDE, NSA_SELECTED, NSA_WINDOW


def nsa_readings(claim: Claim) -> list[dict[str, Any]]:
    """Return what NSA loads, and what it keeps."""
    kept = growth_side("NSA, 27B model", NSA_KEPT, "bfloat16", "bytes per token, 30 layers")
    full = growth_side("full attention", [NSA_FULL], "bfloat16", "bytes per token, 30 layers")
    return [
        nsa_loads("load64k", 65_536, claim),
        nsa_loads("load8k", 8192, claim),
        reading(
            "everything",
            "what is kept",
            (kept, full),
            claim,
            noun="cache per token",
            factors=[factor(f"entries per {NSA_STRIDE} tokens", NSA_STRIDE, NSA_STRIDE + 1)],
            sentence=(
                "A later query may select any token, so all of them stay in the cache. One"
                f" compressed entry per {NSA_STRIDE} tokens comes besides. Nothing is saved."
            ),
            digits=2,
        ),
    ]


def nsa_loads(name: str, tokens: int, claim: Claim) -> dict[str, Any]:
    """Return the ratio of tokens that a decode step loads.

    Args:
        name: of the reading.
        tokens: of the sequence.
        claim: of the headline.

    Returns:
        The reading.
    """
    parts = tokens_loaded(tokens)
    counted, same = "tokens loaded per decode step", "any precision, the same on both sides"
    context = f"{tokens:,} tokens, batch 1"
    sides = (
        Side("NSA", counted, same, context, Fraction(sum(parts)), "tokens"),
        Side("full attention", counted, same, context, Fraction(tokens), "tokens"),
    )
    added = " + ".join(f"{part:,}" for part in parts)
    return reading(
        name,
        f"tokens loaded at {tokens:,}",
        sides,
        claim,
        noun="loaded per decode step",
        factors=[factor("tokens loaded", tokens, sum(parts))],
        sentence=(
            f"A step loads {added} tokens: compressed ones, selected ones, and those of the"
            " window. The ratio counts tokens. It is not a clocked speed."
        ),
        style="times",
    )


# Tensor parallelism


def tp8_readings(claim: Claim) -> list[dict[str, Any]]:
    """Return one device's share of a cache, by what the devices divide."""
    v3, llama = "DeepSeek-V3 / R1", "Llama-3 70B"
    return [
        split_reading(
            "heads",
            "DeepSeek-V3, by heads",
            (v3, "heads"),
            claim,
            "Tensor parallelism divides KV heads. MLA keeps one latent per token that every"
            " query head needs, so there is nothing to divide and each device keeps a copy.",
        ),
        split_reading(
            "positions",
            "DeepSeek-V3, by positions",
            (v3, "positions"),
            claim,
            "Each device keeps every eighth position, and the partial outputs are merged. This"
            " is context parallelism for decoding.",
            remark="But it is not what tensor parallelism divides.",
        ),
        split_reading(
            "sequences",
            "DeepSeek-V3, by sequences",
            (v3, "sequences"),
            claim,
            "Each device keeps the whole cache of 1 of the 8 sequences. A single long sequence"
            " gains nothing. This is data-parallel attention.",
            remark="But it is not what tensor parallelism divides.",
        ),
        split_reading(
            "llama",
            "Llama-3 70B, by heads",
            (llama, "heads"),
            claim,
            f"Llama-3 70B has {geometry_of(MODELS[llama]).n_kv_heads} KV heads, so each of the"
            f" {DEVICES} devices keeps one. With more devices than KV heads, copies begin.",
        ),
    ]


def split_reading(
    name: str, text: str, of: tuple[str, str], claim: Claim, sentence: str, remark: str = ""
) -> dict[str, Any]:
    """Return what one of several devices keeps.

    Args:
        name: of the reading.
        text: for its button.
        of: the model and what is divided.
        claim: of the headline.
        sentence: in words.
        remark: what follows the stamp.

    Returns:
        The reading.
    """
    model, split = of
    tokens, batch = SHARED
    size = cache_size(
        MODELS[model].layers, tokens, batch_size=batch, devices=DEVICES, split=split
    )
    context = f"{tokens:,} tokens, batch {batch}"
    counted, bits = "bytes on one device", PRECISION["bfloat16"]
    sides = (
        Side(
            f"{short(model)}, each of {DEVICES} devices",
            counted,
            bits,
            context,
            Fraction(size.per_device),
        ),
        Side(f"{short(model)}, one device", counted, bits, context, Fraction(size.once)),
    )
    return reading(
        name,
        text,
        sides,
        claim,
        noun="cache per device",
        factors=[
            factor("devices", DEVICES, 1),
            factor("copies of each number", 1, size.copies),
        ],
        sentence=sentence,
        remark=remark,
        style="times",
        digits=0,
    )


def tp8_sources() -> list[tuple[str, str]]:
    """Return the sources on sharing a cache among devices."""
    code = "https://github.com/vllm-project/vllm/blob/main/vllm/config/model.py"
    return [
        ("DeepSeek-V3, section 4.2", link("DeepSeek-V3 / R1", "arxiv.org")),
        ("Llama 3, Table 3", link("Llama-3 70B", "arxiv.org")),
        ("vLLM, get_num_kv_heads", code),
    ]


# Precision


def fp8_readings(claim: Claim) -> list[dict[str, Any]]:
    """Return what 8 bits save, with the scales that are stored beside them."""
    v3, llama = "DeepSeek-V3 / R1", "Llama-3 70B"
    return [
        layer_reading(
            "byte",
            "DeepSeek-V3, one byte per number",
            (v3, "float8_e4m3fn"),
            claim,
            "Many calculators count one byte per number and no scales. Programs that serve the"
            " model store more than that.",
        ),
        layer_reading(
            "layout",
            "DeepSeek-V3, the layout in use",
            (v3, "DeepSeek fp8"),
            claim,
            "The latent’s 512 numbers take a byte each, with a 4-byte scale per 128. The"
            " rotary key’s 64 numbers stay at 16 bits.",
        ),
        layer_reading(
            "q8",
            "Llama-3 70B, llama.cpp’s q8_0",
            (llama, "q8_0"),
            claim,
            "The format q8_0 stores 32 numbers in 34 bytes: 32 for the numbers and 2 for their"
            " scale.",
        ),
    ]


def layer_reading(
    name: str, text: str, of: tuple[str, str], claim: Claim, sentence: str
) -> dict[str, Any]:
    """Return one layer's growth in a format against 16 bits.

    Args:
        name: of the reading.
        text: for its button.
        of: the model and the format.
        claim: of the headline.
        sentence: in words.

    Returns:
        The reading.
    """
    model, dtype = of
    layer = [replace(layers_of(MODELS[model])[0], n_layers=1)]
    counted = "bytes per token, one layer"
    sides = (
        growth_side(f"{short(model)}, 8 bits", layer, dtype, counted),
        growth_side(f"{short(model)}, 16 bits", layer, "bfloat16", counted),
    )
    return reading(
        name,
        text,
        sides,
        claim,
        noun="per token and layer",
        factors=growth_factors(layer, dtype, layer, "bfloat16", "numbers per token and layer"),
        sentence=sentence,
    )


def fp8_sources() -> list[tuple[str, str]]:
    """Return the sources on formats of 8 bits."""
    vllm = "https://docs.vllm.ai/en/v0.11.0/api/vllm/v1/attention/backends/mla/"
    ggml = "https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h"
    return [
        ("vLLM, the layout of 656 bytes", f"{vllm}flashmla_sparse.html"),
        ("FlashMLA", "https://github.com/deepseek-ai/FlashMLA"),
        ("llama.cpp, block_q8_0", ggml),
    ]


# Sparse attention


def dsa_readings(claim: Claim) -> list[dict[str, Any]]:
    """Return what DeepSeek-V3.2 keeps, and what a step reads of it."""
    mine, other = "DeepSeek-V3.2", "DeepSeek-V3 / R1"
    dtype = "DeepSeek fp8"
    layers = MODELS[mine].layers, dtype, MODELS[other].layers, dtype
    index = layers[0][0].index_dim
    return [
        reading(
            "kept",
            "what is kept",
            (model_side(mine, dtype), model_side(other, dtype)),
            claim,
            noun="cache per token",
            factors=growth_factors(*layers),
            sentence=(
                "V3.2 keeps everything that V3 keeps, because a later query may choose any"
                f" token. Each layer adds an index key of {index} numbers per token."
            ),
            remark="What is kept grows.",
        ),
        dsa_reads("long", LONG, claim),
        dsa_reads("short", SHORT, claim),
    ]


def dsa_reads(name: str, tokens: int, claim: Claim) -> dict[str, Any]:
    """Return what a decode step reads, sparse against dense.

    Args:
        name: of the reading.
        tokens: that the new one sees.
        claim: of the headline.

    Returns:
        The reading.
    """
    dtype, models = "DeepSeek fp8", ("DeepSeek-V3.2", "DeepSeek-V3 / R1")
    read = [step_reads(MODELS[model], tokens, dtype=dtype).bytes for model in models]
    context = f"{tokens:,} tokens, batch 1"
    counted = "bytes of the cache read per decode step"
    mine, other = (
        Side(short(model), counted, PRECISION[dtype], context, Fraction(size))
        for model, size in zip(models, read, strict=True)
    )
    chosen = MODELS[models[0]].layers[0].top_k or 0
    entries = min(tokens, chosen)
    if tokens > chosen:
        sentence = (
            f"A step reads the index keys of all {tokens:,} tokens, then the {chosen:,} entries"
            " that they choose. It reads less, although more is kept."
        )
    else:
        sentence = (
            f"The indexer may choose {chosen:,} entries, and there are no more than that. So a"
            " step reads all of them, and the index keys besides."
        )
    ratio = Fraction(read[1], read[0])
    less = "less" if ratio > 1 else "more"
    dense = growth_bytes(MODELS[models[1]], dtype=dtype)
    index = growth_bytes(MODELS[models[0]], dtype=dtype) - dense
    whole = tokens * index + entries * dense
    return reading(
        name,
        f"what a decode step reads at {tokens:,}",
        (mine, other),
        claim,
        noun="read per decode step",
        factors=[
            factor("entries read", tokens, entries),
            factor("bytes of those entries, without / with index keys", entries * dense, whole),
        ],
        sentence=sentence,
        remark=f"A step reads {less}: the ratio is {float(ratio):.2f}.",
        style="times",
        digits=2 if ratio > 1 else 1,
    )


def dsa_sources() -> list[tuple[str, str]]:
    """Return the sources on DeepSeek-V3.2."""
    vllm = "https://docs.vllm.ai/en/v0.11.0/api/vllm/v1/attention/backends/mla/"
    return [
        ("DeepSeek-V3.2, code", "https://github.com/deepseek-ai/DeepSeek-V3.2-Exp"),
        ("DeepSeek-V3.2, checkpoint", link("DeepSeek-V3.2")),
        ("vLLM, the layout of 656 bytes", f"{vllm}flashmla_sparse.html"),
    ]


#: The headlines by name, in the order of the list.
HEADLINES: dict[str, Headline] = {
    "v2": Headline(
        "DeepSeek-V2: 93.3 % less KV cache",
        Claim(f"{HEADLINE} %", HEADLINE, "saving", 1),
        "",
        lambda: [*SOURCES],
        lambda _claim: [],
    ),
    "ladder": Headline(
        "DeepSeek-V4.1-Flash: 437 times less than the first DeepSeek",
        Claim("437 times", 437),
        "The report compares 4 bits and scales in 2026 with 16 bits in 2024. Windows of"
        " constant size are kept besides and not counted per token.",
        ladder_sources,
        ladder_readings,
    ),
    "kimi75": Headline(
        "Kimi Linear: up to 75 % less KV cache",
        Claim("75 %", 75, "saving"),
        "Linear layers keep a state of constant size instead of a cache that grows.",
        kimi_sources,
        kimi75_readings,
    ),
    "kimi6": Headline(
        "Kimi Linear: 6 times faster decoding at 1M tokens",
        Claim("6 times", 6),
        "The times are the paper’s, measured on its authors’ machines. They are not computed"
        " here.",
        kimi_sources,
        kimi6_readings,
    ),
    "gemma4": Headline(
        "Gemma 4: K = V, 37.5 % less global cache",
        Claim("37.5 %", 37.5, "saving", 1),
        "In the global layers of the larger models one projection gives both key and value."
        " The report says 37.5 %, some write-ups say half, and two programs save nothing.",
        gemma_sources,
        gemma_readings,
    ),
    "nsa": Headline(
        "NSA: 11.6 times at 64k tokens",
        Claim("11.6 times", 11.6, digits=1),
        "NSA reads compressed tokens, selected blocks and a window instead of everything.",
        lambda: [("NSA", "https://arxiv.org/abs/2502.11089")],
        nsa_readings,
    ),
    "tp8": Headline(
        "Tensor parallelism over 8 devices divides the cache by 8",
        Claim("division by 8", 8),
        "Devices can divide a cache by heads, by positions or by sequences. Tensor parallelism"
        " divides heads.",
        tp8_sources,
        tp8_readings,
    ),
    "fp8": Headline(
        "fp8 halves the cache",
        Claim("half", 50, "saving"),
        "Numbers of 8 bits need scales beside them, and some numbers stay at 16 bits.",
        fp8_sources,
        fp8_readings,
    ),
    "dsa": Headline(
        "DeepSeek-V3.2: sparse attention shrinks the cache",
        Claim(),
        "An indexer chooses the entries that a query reads. It needs its own key per token.",
        dsa_sources,
        dsa_readings,
    ),
}
