"""Headlines about caches: what each can be relative to, and what follows from it.

Each headline has readings, and each reading compares two sides. The headline about DeepSeek-V2
has switches instead; it is in :mod:`attnlib.book.widgets.dissector`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

from attnlib.layers import LayerKind, cache_size, growth_bytes, step_reads
from attnlib.models import MODELS

LONG, SHORT, MILLION = 131_072, 2048, 1_048_576  # tokens
EACH_TOKEN = "each further token of one sequence"
ANY_PRECISION = "any precision, the same on both sides"
PRECISION = {
    "bfloat16": "16 bits per number",
    "float8_e4m3fn": "8 bits per number, no scales",
    "q8_0": "8 bits per number, a 2-byte scale per 32",
    "DeepSeek fp8": "the fp8 layout: 8 bits and scales, rotary key in 16 bits",
    "DeepSeek-V4": "V4’s layout: 8 bits and scales, rotary part in 16 bits, index key in 4",
    "DeepSeek-V4.1": "4 bits per number and scales",
}


class Claim(NamedTuple):
    """The number that a headline prints, if any: its text, its value and its decimals."""

    printed: str = ""
    value: float = 0
    of: str = "ratio"  # or "saving", in percent
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
    """One side of a comparison: whose cache or time, how it is counted, and how much it is."""

    name: str
    counted: str
    precision: str
    context: str
    amount: Fraction | int
    unit: str = "bytes"
    words: str = ""  # for the amount, if it is not a whole number of units

    @property
    def takes(self) -> str:
        """The amount with its unit."""
        return self.words or f"{round(self.amount):,} {self.unit}"

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
class Reading:
    """What a headline can be relative to.

    Attributes:
        name: of the reading.
        text: for its radio button.
        mine: what is compared.
        other: with what.
        noun: what there is less of, such as "cache per token".
        factors: as from :func:`factor`; their product is the ratio.
        sentence: in words.
        remark: what follows the stamp.
        style: ``"percent"``, ``"times"``, or ``"faster"``.
        digits: after the point.
        strong: the result in words, if the sides do not say it exactly.
    """

    name: str
    text: str
    mine: Side
    other: Side
    noun: str
    factors: list[list[str]]
    sentence: str
    remark: str = ""
    style: str = "percent"
    digits: int = 1
    strong: str = ""

    def result(self, ratio: Fraction) -> str:
        """Return a ratio as a saving; what is more is in percent."""
        if ratio == 1:
            return "0 % less"
        if ratio < 1:
            return f"{float(100 * (1 / ratio - 1)):.{self.digits}f} % more"
        if self.style == "percent":
            return f"{float(100 * (1 - 1 / ratio)):.{self.digits}f} % less"
        return f"{float(ratio):.{self.digits}f} times {STYLES[self.style]}"

    def data(self, claim: Claim) -> dict[str, Any]:
        """Return the reading for the page, with what it says about the headline's number."""
        ratio = Fraction(self.other.amount) / Fraction(self.mine.amount)
        both = "on both sides" if ratio == 1 else f"instead of {self.other.takes}"
        rest = f" {self.noun}" if self.strong else f" {self.noun}: {self.mine.takes} {both}"
        return {
            "name": self.name,
            "text": self.text,
            "mine": self.mine.data(),
            "other": self.other.data(),
            "ratio": float(ratio),
            "strong": self.strong or self.result(ratio),
            "rest": rest,
            "headline": claim.given_by(ratio),
            "stamp": f"{claim.stamp(ratio)} {self.remark}".strip(),
            "factors": self.factors,
            "total": self.factors[-1][-1] if self.strong else f"{float(ratio):.2f}",
            "sentence": self.sentence,
        }


STYLES = {"times": "less", "faster": "faster"}


class Headline(NamedTuple):
    """A headline: its text, its number, a note, sources as text and address, and readings."""

    text: str
    claim: Claim
    about: str
    sources: Sequence[tuple[str, str]]
    readings: Sequence[Reading]
    table: dict[str, Any] | None = None

    def data(self) -> dict[str, Any]:
        """Return the headline for the page."""
        return {
            "text": self.text,
            "about": self.about,
            "sources": [list(source) for source in self.sources],
            "readings": [reading.data(self.claim) for reading in self.readings],
            "table": self.table,
        }


def factor(name: str, above: Fraction | int, below: Fraction | int) -> list[str]:
    """Return a factor of a ratio: its name, how it is counted, and its value."""
    shown = (f"{float(number):,.3f}".rstrip("0").rstrip(".") for number in (above, below))
    return [name, " / ".join(shown), f"{float(Fraction(above) / below):.3f}"]


def short(name: str) -> str:
    """Return the name of a model without its second one."""
    return name.split(" / ")[0]


def link(name: str, host: str = "huggingface.co") -> str:
    """Return the address at a host that the table of models has as a model's source."""
    return next(address for address in MODELS[name].links if host in address)


def growth(
    name: str, dtype: str, kinds: Sequence[LayerKind] | None = None, counted: str = ""
) -> Side:
    """Return what each further token adds to the cache of a published model, or of layers."""
    kinds = MODELS[name].layers if kinds is None else kinds
    counted = counted or f"bytes per token, all {sum(kind.n_layers for kind in kinds)} layers"
    amount = growth_bytes(kinds, dtype=dtype)
    return Side(short(name), counted, PRECISION[dtype], EACH_TOKEN, amount)


def growth_factors(
    mine: tuple[Sequence[LayerKind], str],
    other: tuple[Sequence[LayerKind], str],
    what: str = "numbers per token, all layers",
) -> list[list[str]]:
    """Return a ratio of growths, of layers in a format each, as numbers and bits."""
    numbers = [growth_bytes(kinds, dtype="int8") for kinds, _ in (other, mine)]  # a byte each
    sizes = [growth_bytes(kinds, dtype=dtype) for kinds, dtype in (other, mine)]
    bits = [8 * size / count for size, count in zip(sizes, numbers, strict=True)]
    return [factor(what, *numbers), factor("bits per number, scales included", *bits)]


def whole_cache(name: str, kinds: Sequence[LayerKind], tokens: int) -> Side:
    """Return a whole cache of one sequence in bfloat16, with all that does not grow."""
    counted, precision = "bytes of the cache", PRECISION["bfloat16"]
    if any(kind.window for kind in kinds):
        counted += ", window layers included"
    if any(kind.state_heads for kind in kinds):
        counted, precision = f"{counted}, state included", f"{precision}, 32 in the state"
    amount = cache_size(kinds, tokens).once
    return Side(name, counted, precision, f"{tokens:,} tokens, batch 1", amount)


LADDER = (
    ("DeepSeek LLM 67B", "bfloat16", "16 bits"),
    ("DeepSeek-V2", "bfloat16", "16 bits"),
    ("DeepSeek-V3 / R1", "bfloat16", "16 bits"),
    ("DeepSeek-V3 / R1", "DeepSeek fp8", "fp8 layout"),
    ("DeepSeek-V3.2", "DeepSeek fp8", "fp8 layout"),
    ("DeepSeek-V4-Flash", "DeepSeek-V4", "V4’s layout"),
    ("DeepSeek-V4-Pro", "DeepSeek-V4", "V4’s layout"),
    ("DeepSeek-V4.1-Flash", "DeepSeek-V4.1", "4 bits and scales"),
)


def ladder() -> Headline:
    """Return DeepSeek-V4.1-Flash against its predecessors."""
    first, newest = LADDER[0][0], LADDER[-1][0]

    def rung(
        name: str, text: str, base: tuple[str, str], end: str, dtype: str, **more: Any
    ) -> Reading:
        mine, other = growth(newest, dtype), growth(*base)
        layers = (MODELS[newest].layers, dtype), (MODELS[base[0]].layers, base[1])
        begin = (
            f"Each further token takes {mine.takes} in {mine.name} and {other.takes} in"
            f" {other.name}."
        )
        factors = growth_factors(*layers)
        sentence, more = f"{begin} {end}", {"style": "times", **more}
        return Reading(name, text, mine, other, "cache per token", factors, sentence, **more)

    readings = [
        rung(
            "first",
            "as reported: 16 bits against 4 and scales",
            (first, "bfloat16"),
            "The factor mixes two things: fewer numbers, and fewer bits for each.",
            "DeepSeek-V4.1",
        ),
        rung(
            "bits",
            "both at 16 bits",
            (first, "bfloat16"),
            "The bits are equal here, so this is what the design does.",
            "bfloat16",
        ),
        rung(
            "v3",
            "DeepSeek-V3 at 16 bits, which has MLA",
            ("DeepSeek-V3 / R1", "bfloat16"),
            "V3 has MLA already, so the first step of the ladder is left out. The bits still"
            " differ.",
            "DeepSeek-V4.1",
        ),
        rung(
            "v4flash",
            "DeepSeek-V4-Flash as stored",
            ("DeepSeek-V4-Flash", "DeepSeek-V4"),
            "The report calls this a quarter. The bits differ here as well: V4-Flash stores"
            " most of its numbers in 8.",
            "DeepSeek-V4.1",
            remark="It is the report’s other number, 1/4.",
            digits=2,
        ),
    ]
    return Headline(
        "DeepSeek-V4.1-Flash: 437 times less than the first DeepSeek",
        Claim("437 times", 437),
        "The report compares 4 bits and scales in 2026 with 16 bits in 2024. Windows of"
        " constant size are kept besides and not counted per token.",
        [
            ("DeepSeek LLM, Table 2", "https://arxiv.org/abs/2401.02954"),
            ("DeepSeek-V2", "https://arxiv.org/abs/2405.04434"),
            ("DeepSeek-V3", link("DeepSeek-V3 / R1", "arxiv.org")),
            ("DeepSeek-V3.2, code", "https://github.com/deepseek-ai/DeepSeek-V3.2-Exp"),
            ("DeepSeek-V4", "https://arxiv.org/abs/2606.19348"),
            ("DeepSeek-V4.1-Flash, checkpoint", link("DeepSeek-V4.1-Flash")),
        ],
        readings,
        ladder_table(),
    )


def ladder_table() -> dict[str, Any]:
    """Return the whole ladder, one row per model and format."""
    rows: list[list[str]] = []
    sizes = [growth_bytes(MODELS[name], dtype=dtype) for name, dtype, _ in LADDER]
    for (name, _, stored), size in zip(LADDER, sizes, strict=True):
        layers: Counter[int] = Counter()
        for kind in MODELS[name].layers:
            layers[kind.window or kind.recent] += kind.n_layers
        kept = " and ".join(
            f"the last {width:,} tokens in {layers[width]} layers"
            for width in sorted(layers)
            if width
        )
        times = f"{float(sizes[0] / size):,.1f}"
        rows.append([f"{short(name)}, {stored}", f"{round(size):,}", times, kept or "nothing"])
    return {
        "caption": "The ladder: what each further token adds, all layers together.",
        "head": ["model, and how it stores", "bytes per token", "times less", "kept besides"],
        "rows": rows,
    }


KIMI = "Kimi Linear 48B-A3B"
KIMI_SOURCES = (
    ("Kimi Linear", "https://arxiv.org/abs/2510.26692"),
    ("Kimi Linear, checkpoint", link(KIMI)),
)


def kimi_cache(tokens: int) -> tuple[Side, Side, str, list[list[str]]]:
    """Return both caches at a context, their noun and the factors of their ratio."""
    layers, total = MODELS[KIMI].layers, MODELS[KIMI].n_layers
    full = next(kind for kind in layers if kind.kv_lora_rank)
    mine = whole_cache("Kimi Linear", layers, tokens)
    other = whole_cache(f"{total} MLA layers", [replace(full, n_layers=total)], tokens)
    growing = tokens * growth_bytes(layers)
    factors = [
        factor("layers whose cache grows", total, full.n_layers),
        factor("bytes without and with the state", growing, mine.amount),
    ]
    return mine, other, "cache", factors


def kimi75() -> Headline:
    """Return Kimi Linear's saving by design, per token, and with its constant state."""
    layers, total = MODELS[KIMI].layers, MODELS[KIMI].n_layers
    full = next(kind for kind in layers if kind.kv_lora_rank)
    linear = next(kind for kind in layers if kind.state_heads)
    design = (replace(linear, n_layers=3), replace(full, n_layers=1))

    def token(
        name: str, text: str, called: str, kinds: Sequence[LayerKind], sentence: str
    ) -> Reading:
        every = sum(kind.n_layers for kind in kinds)
        grow = sum(kind.n_layers for kind in kinds if kind.kv_lora_rank)
        base = growth(f"{every} MLA layers", "bfloat16", [replace(full, n_layers=every)])
        factors = [factor("layers whose cache grows", every, grow)]
        mine, noun = growth(called, "bfloat16", kinds), "cache per further token"
        return Reading(name, text, mine, base, noun, factors, sentence)

    def size(name: str, tokens: int) -> Reading:
        cache = kimi_cache(tokens)
        constant = cache[0].amount - tokens * growth_bytes(layers)
        share = float(100 * constant / cache[0].amount)
        sentence = (
            f"The linear layers keep a constant state of {round(constant):,} bytes, which is"
            f" {share:.1f} % of Kimi Linear’s cache at {tokens:,} tokens. The saving grows with"
            " the context, because the state does not."
        )
        text = f"all MLA, at {tokens:,} tokens, state included"
        return Reading(name, text, *cache, sentence)

    readings = [
        token(
            "design",
            "the design: 3 linear layers per MLA layer",
            "3 linear layers and 1 MLA layer",
            design,
            "Three of four layers keep no growing cache, so a fourth of it is left. A model"
            " reaches this if its number of layers is a multiple of 4.",
        ),
        token(
            "token",
            f"all {total} layers MLA, per further token",
            "Kimi Linear",
            layers,
            f"The published model has {linear.n_layers} linear layers and {full.n_layers} MLA"
            f" layers. {total} is not a multiple of 4, so it saves a little less than 75 %."
            " Its constant state does not grow and is not counted here.",
        ),
        size("8k", 8192),
        size("1m", MILLION),
    ]
    return Headline(
        "Kimi Linear: up to 75 % less KV cache",
        Claim("75 %", 75, "saving"),
        "Linear layers keep a state of constant size instead of a cache that grows.",
        KIMI_SOURCES,
        readings,
    )


def kimi6() -> Headline:
    """Return Kimi Linear's published times per token, and its cache alone."""
    # Milliseconds, each with the batch that its cache allows; at batch 1 their ratio alone is
    # in print. Source: Kimi Linear, arXiv 2510.26692, Figures 1 and 7 and section 6.3.
    kimi, mla, low, high = (Fraction(text) for text in ("1.84", "11.48", "2.2", "2.3"))
    about = f"about {float(low)} to {float(high)}"

    def time(name: str, context: str, amount: Fraction, words: str) -> Side:
        counted, run = "time per token, as published", "precision as in the paper’s run"
        return Side(name, counted, run, f"1M tokens, {context}", amount, words=words)

    readings = [
        Reading(
            "printed",
            "as printed, with the larger batch",
            time(
                "Kimi Linear",
                "the larger batch that the smaller cache allows",
                kimi,
                f"{float(kimi)} ms",
            ),
            time(
                "the paper’s MLA model",
                "the batch that its cache allows",
                mla,
                f"{float(mla)} ms",
            ),
            "per token",
            [factor("milliseconds per token", mla, kimi)],
            "The paper gives both times at a million tokens. The smaller cache leaves room for"
            " a larger batch, and a larger batch shares each read of the weights. The factor"
            " contains both effects.",
            style="faster",
            digits=2,
        ),
        Reading(
            "one",
            "one sequence: batch 1",
            time("Kimi Linear", "batch 1", Fraction(1), "1 unit of time"),
            time(
                "the paper’s MLA model", "batch 1", (low + high) / 2, f"{about} of these units"
            ),
            "per token",
            [
                [
                    "time per token, published as a ratio",
                    f"{float(low)} to {float(high)} / 1",
                    about,
                ]
            ],
            f"At batch 1 the same paper shows steps that are {about} times faster. It can be"
            " read no more exactly than that. With one sequence, a step reads the weights for"
            " one token only, and a smaller cache does not change that part.",
            strong=f"{about} times faster",
        ),
        Reading(
            "cache",
            "the cache alone, bytes at 1M tokens",
            *kimi_cache(MILLION),
            "A step that only read its cache would gain this factor at any batch. The smaller"
            " cache also lets more sequences share each read of the weights.",
            style="times",
            digits=2,
        ),
    ]
    return Headline(
        "Kimi Linear: 6 times faster decoding at 1M tokens",
        Claim("6 times", 6),
        "The times are the paper’s, measured on its authors’ machines. They are not computed"
        " here.",
        KIMI_SOURCES,
        readings,
    )


def gemma4() -> Headline:
    """Return what can be left out of Gemma 4's global layers, and what is left out."""
    layers = MODELS["Gemma 4 31B"].layers
    full = next(kind for kind in layers if kind.window is None)
    width = full.head_dim
    rotated = width // 4  # p-RoPE rotates a quarter of a key. Source: the report, section 2

    def vector(
        name: str, text: str, stored: str, numbers: int, sentence: str, remark: str = ""
    ) -> Reading:
        how = ("numbers per KV head and token, one global layer", ANY_PRECISION, EACH_TOKEN)
        mine = Side(stored, *how, numbers, "numbers")
        other = Side("K and V, both stored", *how, 2 * width, "numbers")
        factors = [factor("numbers per KV head and token", 2 * width, numbers)]
        return Reading(name, text, mine, other, "in a global layer", factors, sentence, remark)

    least = replace(full, v_head_dim=rotated)
    mine = whole_cache(
        "Gemma 4 31B, stored at its least",
        [least if kind == full else kind for kind in layers],
        LONG,
    )
    other = whole_cache("Gemma 4 31B, K and V both stored", layers, LONG)
    after = Fraction(100 * cache_size([least], LONG).once, mine.amount)
    before = Fraction(100 * cache_size([full], LONG).once, other.amount)
    windows = sum(kind.n_layers for kind in layers if kind.window)
    readings = [
        vector(
            "exact",
            "what can be left out exactly",
            "V, and the rotated part of K",
            width + rotated,
            f"K and V come from one projection. Only {rotated} of the {width} numbers of K are"
            " rotated. The others equal V up to a gain, which can move into the query. So"
            f" {width} + {rotated} numbers are enough.",
        ),
        vector(
            "vector",
            "if K and V were one vector",
            "one vector that is K and V",
            width,
            "This would hold if no part of K were rotated. The rotated quarter of K differs"
            " from V, so one vector is not enough.",
            "It is the “half” of some write-ups.",
        ),
        vector(
            "stored",
            "what transformers and vLLM store",
            "K and V as two tensors",
            2 * width,
            "Both programs compute K and V from one projection and then store both. That saves"
            " weights, and nothing in the cache.",
        ),
        Reading(
            "whole",
            f"the whole model at {LONG:,} tokens",
            mine,
            other,
            "cache",
            [
                factor("numbers per KV head and token", 2 * width, width + rotated),
                factor("percent of the cache in global layers, after / before", after, before),
            ],
            f"The {windows} layers with a window gain nothing, because their K and V come from"
            f" two projections. The {full.n_layers} global layers hold {float(before):.1f} % of"
            " the cache at this length, so the saving of the whole is a little smaller.",
        ),
    ]
    code = "https://github.com/huggingface/transformers/blob/main/src/transformers/models/"
    return Headline(
        "Gemma 4: K = V, 37.5 % less global cache",
        Claim("37.5 %", 37.5, "saving", 1),
        "In the global layers of the larger models one projection gives both key and value."
        " The report says 37.5 %, some write-ups say half, and two programs save nothing.",
        [
            ("Gemma 4, section 2", "https://arxiv.org/abs/2607.02770"),
            ("transformers, gemma4", f"{code}gemma4/modeling_gemma4.py"),
            ("Gemma 4 31B, checkpoint", link("Gemma 4 31B")),
        ],
        readings,
    )


def nsa() -> Headline:
    """Return what NSA loads, and what it keeps."""
    # Source: arXiv 2502.11089, section 4.1: compressed blocks of 32 tokens, one every 16; 16
    # selected blocks of 64; a window of 512; and the sizes of the model with 27B parameters.
    block, stride, selected, window = 32, 16, 16 * 64, 512
    full = LayerKind(n_layers=30, name="full", n_kv_heads=4, head_dim=192, v_head_dim=128)
    counted = f"bytes per token, {full.n_layers} layers"

    def loads(name: str, tokens: int) -> Reading:
        parts = ((tokens - block) // stride, selected, window)
        how = ("tokens loaded per decode step", ANY_PRECISION, f"{tokens:,} tokens, batch 1")
        sentence = (
            f"A step loads {' + '.join(f'{part:,}' for part in parts)} tokens: compressed ones,"
            " selected ones, and those of the window. The ratio counts tokens. It is not a"
            " clocked speed."
        )
        return Reading(
            name,
            f"tokens loaded at {tokens:,}",
            Side("NSA", *how, sum(parts), "tokens"),
            Side("full attention", *how, tokens, "tokens"),
            "loaded per decode step",
            [factor("tokens loaded", tokens, sum(parts))],
            sentence,
            style="times",
        )

    kept = [full, replace(full, name="compressed", stride=stride)]
    readings = [
        loads("load64k", 65_536),
        loads("load8k", 8192),
        Reading(
            "everything",
            "what is kept",
            growth("NSA, 27B model", "bfloat16", kept, counted),
            growth("full attention", "bfloat16", [full], counted),
            "cache per token",
            [factor(f"entries per {stride} tokens", stride, stride + 1)],
            "A later query may select any token, so all of them stay in the cache. One"
            f" compressed entry per {stride} tokens comes besides. Nothing is saved.",
            digits=2,
        ),
    ]
    return Headline(
        "NSA: 11.6 times at 64k tokens",
        Claim("11.6 times", 11.6, digits=1),
        "NSA reads compressed tokens, selected blocks and a window instead of everything.",
        [("NSA", "https://arxiv.org/abs/2502.11089")],
        readings,
    )


def tp8() -> Headline:
    """Return one device's share of a cache, by what the devices divide."""
    devices, tokens, batch = 8, 8192, 8
    v3, llama = "DeepSeek-V3 / R1", "Llama-3 70B"

    def share(
        model: str, split: str, sentence: str, name: str = "", remark: str = ""
    ) -> Reading:
        layers = MODELS[model].layers
        size = cache_size(layers, tokens, batch_size=batch, devices=devices, split=split)
        context = f"{tokens:,} tokens, batch {batch}"
        how = ("bytes on one device", PRECISION["bfloat16"], context)
        return Reading(
            name or split,
            f"{short(model)}, by {split}",
            Side(f"{short(model)}, each of {devices} devices", *how, size.per_device),
            Side(f"{short(model)}, one device", *how, size.once),
            "cache per device",
            [factor("devices", devices, 1), factor("copies of each number", 1, size.copies)],
            sentence,
            remark,
            style="times",
            digits=0,
        )

    readings = [
        share(
            v3,
            "heads",
            "Tensor parallelism divides KV heads. MLA keeps one latent per token that every"
            " query head needs, so there is nothing to divide and each device keeps a copy.",
        ),
        share(
            v3,
            "positions",
            "Each device keeps every eighth position, and the partial outputs are merged. This"
            " is context parallelism for decoding.",
            remark="But it is not what tensor parallelism divides.",
        ),
        share(
            v3,
            "sequences",
            "Each device keeps the whole cache of 1 of the 8 sequences. A single long sequence"
            " gains nothing. This is data-parallel attention.",
            remark="But it is not what tensor parallelism divides.",
        ),
        share(
            llama,
            "heads",
            f"Llama-3 70B has {MODELS[llama].layers[0].n_kv_heads} KV heads, so each of the"
            f" {devices} devices keeps one. With more devices than KV heads, copies begin.",
            name="llama",
        ),
    ]
    vllm = "https://github.com/vllm-project/vllm/blob/main/vllm/config/model.py"
    return Headline(
        "Tensor parallelism over 8 devices divides the cache by 8",
        Claim("division by 8", 8),
        "Devices can divide a cache by heads, by positions or by sequences. Tensor parallelism"
        " divides heads.",
        [
            ("DeepSeek-V3, section 4.2", link(v3, "arxiv.org")),
            ("Llama 3, Table 3", link(llama, "arxiv.org")),
            ("vLLM, get_num_kv_heads", vllm),
        ],
        readings,
    )


VLLM_LAYOUT = (
    "vLLM, the layout of 656 bytes",
    "https://docs.vllm.ai/en/v0.11.0/api/vllm/v1/attention/backends/mla/flashmla_sparse.html",
)


def fp8() -> Headline:
    """Return what 8 bits save, with the scales that are stored beside them."""

    def layer(name: str, text: str, model: str, dtype: str, sentence: str) -> Reading:
        kinds = [replace(MODELS[model].layers[0], n_layers=1)]
        counted, what = "bytes per token, one layer", "numbers per token and layer"
        return Reading(
            name,
            f"{short(model)}, {text}",
            growth(f"{short(model)}, 8 bits", dtype, kinds, counted),
            growth(f"{short(model)}, 16 bits", "bfloat16", kinds, counted),
            "per token and layer",
            growth_factors((kinds, dtype), (kinds, "bfloat16"), what),
            sentence,
        )

    v3 = "DeepSeek-V3 / R1"
    readings = [
        layer(
            "byte",
            "one byte per number",
            v3,
            "float8_e4m3fn",
            "Many calculators count one byte per number and no scales. Programs that serve the"
            " model store more than that.",
        ),
        layer(
            "layout",
            "the layout in use",
            v3,
            "DeepSeek fp8",
            "The latent’s 512 numbers take a byte each, with a 4-byte scale per 128. The"
            " rotary key’s 64 numbers stay at 16 bits.",
        ),
        layer(
            "q8",
            "llama.cpp’s q8_0",
            "Llama-3 70B",
            "q8_0",
            "The format q8_0 stores 32 numbers in 34 bytes: 32 for the numbers and 2 for their"
            " scale.",
        ),
    ]
    ggml = "https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h"
    return Headline(
        "fp8 halves the cache",
        Claim("half", 50, "saving"),
        "Numbers of 8 bits need scales beside them, and some numbers stay at 16 bits.",
        [
            VLLM_LAYOUT,
            ("FlashMLA", "https://github.com/deepseek-ai/FlashMLA"),
            ("llama.cpp, block_q8_0", ggml),
        ],
        readings,
    )


def dsa() -> Headline:
    """Return what DeepSeek-V3.2 keeps, and what a step reads of it, against V3."""
    models, dtype = ("DeepSeek-V3.2", "DeepSeek-V3 / R1"), "DeepSeek fp8"
    new, old = (MODELS[model].layers for model in models)
    chosen = new[0].top_k or 0
    dense = growth_bytes(old, dtype=dtype)

    def reads(name: str, tokens: int, sentence: str, less: str, digits: int) -> Reading:
        context, counted = (
            f"{tokens:,} tokens, batch 1",
            "bytes of the cache read per decode step",
        )
        mine, other = (
            Side(
                short(model),
                counted,
                PRECISION[dtype],
                context,
                step_reads(MODELS[model], tokens, dtype=dtype).bytes,
            )
            for model in models
        )
        entries = min(tokens, chosen)
        plain = entries * dense
        indexed = plain + tokens * (growth_bytes(new, dtype=dtype) - dense)
        return Reading(
            name,
            f"what a decode step reads at {tokens:,}",
            mine,
            other,
            "read per decode step",
            [
                factor("entries read", tokens, entries),
                factor("bytes of those entries, without / with index keys", plain, indexed),
            ],
            sentence,
            f"A step reads {less}: the ratio is {float(other.amount / mine.amount):.2f}.",
            "times",
            digits,
        )

    readings = [
        Reading(
            "kept",
            "what is kept",
            growth(models[0], dtype),
            growth(models[1], dtype),
            "cache per token",
            growth_factors((new, dtype), (old, dtype)),
            "V3.2 keeps everything that V3 keeps, because a later query may choose any token."
            f" Each layer adds an index key of {new[0].index_dim} numbers per token.",
            "What is kept grows.",
        ),
        reads(
            "long",
            LONG,
            f"A step reads the index keys of all {LONG:,} tokens, then the {chosen:,} entries"
            " that they choose. It reads less, although more is kept.",
            "less",
            2,
        ),
        reads(
            "short",
            SHORT,
            f"The indexer may choose {chosen:,} entries, and there are no more than that. So a"
            " step reads all of them, and the index keys besides.",
            "more",
            1,
        ),
    ]
    return Headline(
        "DeepSeek-V3.2: sparse attention shrinks the cache",
        Claim(),
        "An indexer chooses the entries that a query reads. It needs its own key per token.",
        [
            ("DeepSeek-V3.2, code", "https://github.com/deepseek-ai/DeepSeek-V3.2-Exp"),
            ("DeepSeek-V3.2, checkpoint", link("DeepSeek-V3.2")),
            VLLM_LAYOUT,
        ],
        readings,
    )


#: The headlines that have readings, by name, in the order of the list.
WITH_READINGS: dict[str, Headline] = {
    make.__name__: make() for make in (ladder, kimi75, kimi6, gemma4, nsa, tp8, fp8, dsa)
}
