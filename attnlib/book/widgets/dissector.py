"""The headline dissector: DeepSeek-V2's "93.3 % less KV cache", and compared with what."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import traitlets

from attnlib.book.widgets.base import Widget, one_of, table
from attnlib.costs import Geometry, evaluate, kv_cache_bytes
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
    """DeepSeek-V2's saving, with switches for each part of the comparison.

    The report's abstract says that V2 has 93.3 % less KV cache than DeepSeek 67B, and does not
    spell out the arithmetic. Source: arXiv 2405.04434, abstract, page 16 and Table 9.

    Args:
        label: the figure's title.
        precision: of V2's cache at first: ``"deployed"``, 6 bits per number, or ``"equal"``,
            16 like the other's.
        baseline: at first: ``"67b"``, DeepSeek 67B; ``"gqa"``, its attention with V2's number
            of layers; ``"mha"``, V2's own heads without a latent; ``"matched"``, the
            multi-head model with which the report compares V2's attention.
        layers: at first: ``"model"``, all layers, or ``"layer"``, one of each model.

    Attributes:
        precision: of V2's cache.
        baseline: the model that V2 is compared with.
        layers: whether all layers count, or one of each model.

    Raises:
        ValueError: if a first state is not one of the choices.
    """

    precision = traitlets.Unicode("deployed").tag(sync=True, state=True)
    baseline = traitlets.Unicode("67b").tag(sync=True, state=True)
    layers = traitlets.Unicode("model").tag(sync=True, state=True)

    _precision = one_of("precision", lambda self: TEXTS["precision"])
    _baseline = one_of("baseline", lambda self: TEXTS["baseline"])
    _layers = one_of("layers", lambda self: TEXTS["layers"])

    def __init__(
        self,
        *,
        label: str = "“93.3 % less KV cache”, taken apart",
        precision: str = "deployed",
        baseline: str = "67b",
        layers: str = "model",
    ):
        super().__init__(data=dissector_data(), label=label)
        self.set_trait("precision", precision)
        self.set_trait("baseline", baseline)
        self.set_trait("layers", layers)

    def fallback(self) -> str:
        """Return a table of all comparisons."""
        rows = []
        for precision, baseline, layers in states():
            state = self.data["states"][f"{precision} {baseline} {layers}"]
            names = [TEXTS["baseline"][baseline], TEXTS["layers"][layers]]
            names = [names[0], TEXTS["precision"][precision], names[1]]
            sides = [state["mine"], state["other"]]
            for side in sides:
                names += [side["numbers"], side["bytes"]] if side else ["not printed"] * 2
            rows.append([*names, state["saving"] or "", state["ratio"] or ""])
        head = ["V2 against", "bits", "of", "V2, numbers per token", "V2, bytes per token"]
        head += ["the other, numbers", "the other, bytes", "less", "as a ratio"]
        notes = " ".join([*ABOUT.values(), self.data["caution"]])
        links = ", ".join(f'<a href="{url}">{text}</a>' for text, url in SOURCES)
        caption = "DeepSeek-V2’s cache per token against others."
        return f"{table(head, rows, caption)}\n<p>{html.escape(notes)} Sources: {links}.</p>"


def states() -> Iterator[tuple[str, str, str]]:
    """Yield every state of the switches: precision, baseline, layers."""
    return product(*(TEXTS[name] for name in ("precision", "baseline", "layers")))


def dissector_data() -> dict:
    """Return all comparisons, each with its numbers and its sentence.

    Returns:
        The widget's data.
    """
    return {
        "own_name": f"DeepSeek-V2, {variant_of(MODELS['DeepSeek-V2'].geometry).name}",
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
    }


def baselines() -> dict[str, Geometry]:
    """Return the geometries that V2 is compared with; ``"matched"`` has no published one."""
    v2, base = MODELS["DeepSeek-V2"].geometry, MODELS["DeepSeek LLM 67B"].geometry
    return {
        "67b": base,
        "gqa": replace(base, n_layers=v2.n_layers),
        "mha": Geometry(v2.n_layers, v2.n_heads, v2.n_heads, v2.head_dim, v2.v_head_dim),
    }


def compared(precision: str, baseline: str, layers: str) -> dict:
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
    v2, bits = MODELS["DeepSeek-V2"].geometry, PRECISIONS[precision]
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


def side(geometry: Geometry, bits: int) -> dict:
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


def labelled(numbers: int, n_bytes: int, bits: int, of: str, *, about: bool = False) -> dict:
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
    }


def factors(
    geometry: Geometry | None, mine: dict, other: dict, bits: int, layers: str
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
    v2 = MODELS["DeepSeek-V2"].geometry
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
    baseline: str, mine: dict, other: dict, saving: float, ratio: float, layers: str
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
    own, other_geometry = MODELS["DeepSeek-V2"].geometry, baselines().get(baseline)
    if other_geometry is None:  # the report's own baseline has a KV head per query head, too
        other_geometry = baselines()["mha"]
    differ = [f"the attention ({attention_name(own)} for {attention_name(other_geometry)})"]
    if baseline == "67b" and layers == "model":
        depths = [
            MODELS[name].geometry.n_layers for name in ("DeepSeek-V2", "DeepSeek LLM 67B")
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
