"""Headlines about caches: what each can be relative to, and what follows from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

from attnlib.layers import LayerKind, cache_size, growth_bytes, step_reads
from attnlib.models import MODELS

# What is said, by name: of a headline its text and a note, of a reading its button's text and
# a sentence or more.
WORDS = """
ladder = DeepSeek-V4.1-Flash: 437 times less than the first DeepSeek
  The report compares 4 bits and scales in 2026 with 16 bits in 2024. Windows of constant size
  are kept as well; they are not counted here.
first = as reported: 16 bits against 4 and scales
  Each further token takes {mine.takes} in {mine.name} and {other.takes} in {other.name}. The
  factor mixes two things: fewer numbers, and fewer bits for each.
bits = both at 16 bits
  Each further token takes {mine.takes} in {mine.name} and {other.takes} in {other.name}. The
  bits are equal here, so this is what the design does.
v3 = DeepSeek-V3 at 16 bits, which has MLA
  Each further token takes {mine.takes} in {mine.name} and {other.takes} in {other.name}. V3 has
  MLA already, so the first step of the ladder is left out. The bits still differ.
v4flash = DeepSeek-V4-Flash as stored
  Each further token takes {mine.takes} in {mine.name} and {other.takes} in {other.name}. The
  report calls this a quarter. The bits differ here as well: V4-Flash stores most of its numbers
  in 8.
kimi75 = Kimi Linear: up to 75 % less KV cache
  Linear layers keep a state of constant size instead of a cache that grows.
design = the design: 3 linear layers per MLA layer
  Three of four layers keep no growing cache, so a quarter of it is left. This holds if the
  number of layers is a multiple of 4.
token = all {total} layers MLA, per further token
  The published model has {linear} linear layers and {full} MLA layers. {total} is not a
  multiple of 4, so the saving is a little below 75 %. The constant state does not grow and is
  not counted here.
size = all MLA, at {tokens:,} tokens, state included
  The linear layers keep a constant state of {state:,} bytes, which is {share:.1f} % of Kimi
  Linear’s cache at {tokens:,} tokens. The saving grows with the context, because the state does
  not.
kimi6 = Kimi Linear: 6 times faster decoding at 1M tokens
  The times are the paper’s, measured on its authors’ machines. They are not computed here.
printed = as printed, with the larger batch
  The paper gives both times at a million tokens. The smaller cache leaves room for a larger
  batch, and a larger batch shares each read of the weights. The factor contains both effects.
one = one sequence: batch 1
  At batch 1 the same paper has steps that are {about} times faster: its figure prints 2.2, its
  text 2.3. With one sequence, a step reads the weights for one token only, and a smaller cache
  does not change that part.
cache = the cache alone, bytes at 1M tokens
  A step that only read its cache would gain this factor at any batch. The smaller cache also
  lets more sequences share each read of the weights.
gemma4 = Gemma 4: K = V, 37.5 % less global cache
  In the global layers of the larger models one projection gives both key and value. The report
  says 37.5 %, some write-ups say half, and two programs save nothing.
exact = what can be left out exactly
  K and V come from one projection. Only {rotated} of the {width} numbers of K are rotated. The
  others equal V up to a gain, which can move into the query. So {width} + {rotated} numbers are
  enough.
vector = if K and V were one vector
  This would hold if no part of K were rotated. The rotated quarter of K differs from V, so one
  vector is not enough.
stored = what transformers and vLLM store
  Both programs compute K and V from one projection and then store both. That saves weights, and
  nothing in the cache.
whole = the whole model at {tokens:,} tokens
  The {windows} layers with a window gain nothing, because their K and V come from two
  projections. The {full} global layers hold {before:.1f} % of the cache at this length, so the
  saving of the whole is a little smaller.
nsa = NSA: 11.6 times at 64k tokens
  NSA reads compressed tokens, selected blocks and a window instead of everything.
load = tokens loaded at {tokens:,}
  A step loads {added} tokens: compressed ones, selected ones, and those of the window. The
  ratio counts tokens. It is not a clocked speed.
everything = what is kept
  A later query may select any token, so all of them stay in the cache. One compressed entry per
  {stride} tokens is added. Nothing is saved.
tp8 = Tensor parallelism over 8 devices divides the cache by 8
  Devices can divide a cache by heads, by positions or by sequences. Tensor parallelism divides
  heads.
heads = DeepSeek-V3, by heads
  Tensor parallelism divides KV heads. MLA keeps one latent per token that every query head
  needs, so there is nothing to divide and each device keeps a copy.
positions = DeepSeek-V3, by positions
  Each device keeps every eighth position, and the partial outputs are merged. This is context
  parallelism for decoding.
sequences = DeepSeek-V3, by sequences
  Each device keeps the whole cache of 1 of the 8 sequences. A single long sequence gains
  nothing. This is data-parallel attention.
llama = Llama-3 70B, by heads
  Llama-3 70B has {heads} KV heads, so each of the {devices} devices keeps one. With more
  devices than KV heads, copies begin.
fp8 = fp8 halves the cache
  Numbers of 8 bits need scales beside them, and some numbers stay at 16 bits.
byte = DeepSeek-V3, one byte per number
  Many calculators count one byte per number and no scales. Programs that serve the model store
  more than that.
layout = DeepSeek-V3, the layout in use
  The latent’s 512 numbers take a byte each, with a 4-byte scale per 128. The rotary key’s 64
  numbers stay at 16 bits.
q8 = Llama-3 70B, llama.cpp’s q8_0
  The format q8_0 stores 32 numbers in 34 bytes: 32 for the numbers and 2 for their scale.
dsa = DeepSeek-V3.2: sparse attention shrinks the cache
  An indexer chooses the entries that a query reads. It needs its own key per token.
kept = what is kept
  V3.2 keeps everything that V3 keeps, because a later query may choose any token. Each layer
  adds an index key of {index} numbers per token.
long = what a decode step reads at {tokens:,}
  A step reads the index keys of all {tokens:,} tokens, then the {chosen:,} entries that they
  choose. It reads less, although more is kept.
short = what a decode step reads at {tokens:,}
  The indexer may choose {chosen:,} entries, and there are no more. So a step reads all of them,
  and the index keys as well.
"""
SAID = {name: lines for name, *lines in re.findall(r"(\w+) = (.*)\n((?: .*\n)+)", WORDS)}

LONG, SHORT, MILLION = 131_072, 2048, 1_048_576  # tokens
V3, LLAMA, DSA = "DeepSeek-V3 / R1", "Llama-3 70B", "DeepSeek-V3.2"
KIMI = MODELS["Kimi Linear 48B-A3B"]
LINEAR, FULL = KIMI.layers
Stored = tuple[str, Sequence[LayerKind], str]  # whose layers, and the format of their cache
HUB, GITHUB = "https://huggingface.co", "https://github.com"
VLLM = "https://docs.vllm.ai/en/v0.11.0/api/vllm/v1/attention/backends/mla/flashmla_sparse.html"
GGML = f"{GITHUB}/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h"
GEMMA = f"{GITHUB}/huggingface/transformers/blob/main/src/transformers/models/gemma4"
EACH_TOKEN, CACHE = "each further token of one sequence", "cache per token"
ALL = "bytes per token, all {} layers"
ANY_PRECISION = "any precision, the same on both sides"
PRECISION = {
    "bfloat16": "16 bits per number",
    "float8_e4m3fn": "8 bits per number, no scales",
    "q8_0": "8 bits per number, a 2-byte scale per 32",
    "DeepSeek fp8": "the fp8 layout: 8 bits and scales, rotary key in 16 bits",
    "DeepSeek-V4": "V4’s layout: 8 bits and scales, rotary part in 16 bits, index key in 4",
    "DeepSeek-V4.1": "4 bits per number and scales",
}
LADDER = (
    ("DeepSeek LLM 67B", "bfloat16", "16 bits"),
    ("DeepSeek-V2", "bfloat16", "16 bits"),
    (V3, "bfloat16", "16 bits"),
    (V3, "DeepSeek fp8", "fp8 layout"),
    (DSA, "DeepSeek fp8", "fp8 layout"),
    ("DeepSeek-V4-Flash", "DeepSeek-V4", "V4’s layout"),
    ("DeepSeek-V4-Pro", "DeepSeek-V4", "V4’s layout"),
    ("DeepSeek-V4.1-Flash", "DeepSeek-V4.1", "4 bits and scales"),
)
KIMI_SOURCES = (
    ("Kimi Linear", "https://arxiv.org/abs/2510.26692"),
    ("Kimi Linear, checkpoint", f"{HUB}/moonshotai/Kimi-Linear-48B-A3B-Instruct"),
)


def say(name: str, **numbers: object) -> tuple[str, str]:
    """Return the two texts that a headline or a reading has, with numbers filled in."""
    text, lines = SAID[name]
    return text.format(**numbers), " ".join(lines.split()).format(**numbers)


class Claim(NamedTuple):
    """The number that a headline prints, if any: its text, its value and its decimals."""

    printed: str = ""
    value: float = 0
    of: str = "ratio"  # or "saving", in percent
    digits: int = 0


@dataclass
class Side:
    """One side of a comparison: whose cache or time, how it is counted, and how much it is."""

    name: str
    counted: str
    precision: str
    context: str
    amount: Fraction | int
    takes: str = "{:,} bytes"  # the amount in words; a placeholder is filled in

    def __post_init__(self) -> None:
        self.takes = self.takes.format(round(self.amount))


@dataclass(frozen=True)
class Reading:
    """What a headline can be relative to: one side compared with the other."""

    name: str
    said: tuple[str, str]  # its button's text and a sentence
    mine: Side
    other: Side
    noun: str  # what there is less of
    factors: list[list[str]]  # their product is the ratio
    remark: str = ""  # after the stamp
    digits: int = 1
    less: str = "less"  # or "faster"
    strong: str = ""  # the result in words, if the sides do not say it exactly

    def data(self, claim: Claim) -> dict[str, Any]:
        """Return the reading for the page, with what it says about the headline's number."""
        mine, other, digits = self.mine, self.other, self.digits
        ratio = Fraction(other.amount) / Fraction(mine.amount)
        saving = 100 * (1 - 1 / ratio)  # percent
        strong = f"{float(ratio):.{digits}f} times {self.less}"
        if ratio <= 1 or claim.of == "saving":
            shown = f"{float(abs(saving)):.{digits}f}" if saving else "0"
            strong = f"{shown} % {'less' if ratio >= 1 else 'more'}"
        given, stamp = False, "The headline prints no number."
        if claim.printed:
            found = float(ratio if claim.of == "ratio" else saving)
            given = round(found, claim.digits) == claim.value
            verb = "gives" if given else "does not give"
            stamp = f"This reading {verb} the headline’s {claim.printed}."
        both = "on both sides" if ratio == 1 else f"instead of {other.takes}"
        return {
            "name": self.name,
            "text": self.said[0],
            "mine": {**asdict(mine), "amount": float(mine.amount)},
            "other": {**asdict(other), "amount": float(other.amount)},
            "ratio": float(ratio),
            "strong": self.strong or strong,
            "rest": f" {self.noun}" + f": {mine.takes} {both}" * (not self.strong),
            "headline": given,
            "stamp": f"{stamp} {self.remark}".strip(),
            "factors": self.factors,
            "total": self.factors[-1][-1] if self.strong else f"{float(ratio):.2f}",
            "sentence": self.said[1],
        }


class Headline(NamedTuple):
    """A headline: its text, a note, its number, sources as text and address, and readings."""

    text: str
    about: str
    claim: Claim
    sources: Sequence[tuple[str, str]]
    readings: Sequence[Reading] = ()
    table: dict[str, Any] | None = None


def factor(name: str, above: Fraction | int, below: Fraction | int) -> list[str]:
    """Return a factor of a ratio: its name, how it is counted, and its value."""
    shown = (f"{float(number):,.3f}".rstrip("0").rstrip(".") for number in (above, below))
    return [name, " / ".join(shown), f"{float(Fraction(above) / below):.3f}"]


def short(name: str) -> str:
    """Return the name of a model without its second one."""
    return name.split(" / ")[0]


def published(name: str, dtype: str) -> Stored:
    """Return the layers of a published model, stored in a format."""
    return short(name), MODELS[name].layers, dtype


def growth(
    name: str, mine: Stored, other: Stored, noun: str, counted: str = ALL, **options: Any
) -> Reading:
    """Return a reading on what each further token adds to two caches, as numbers and bits."""
    stored, sides = (mine, other), []
    for whose, kinds, dtype in stored:
        of = counted.format(sum(kind.n_layers for kind in kinds))
        size = growth_bytes(kinds, dtype=dtype)
        sides.append(Side(whose, of, PRECISION[dtype], EACH_TOKEN, size))
    own, base = (growth_bytes(kinds, dtype="int8") for _, kinds, _ in stored)  # a byte each
    place = "token, all layers" if counted == ALL else "token and layer"
    bits = 8 * sides[1].amount / base, 8 * sides[0].amount / own
    factors = [
        factor(f"numbers per {place}", base, own),
        factor("bits per number, scales included", *bits),
    ]
    said = say(name, mine=sides[0], other=sides[1], **options.pop("words", {}))
    return replace(Reading(name, said, sides[0], sides[1], noun, factors), **options)


def whole_cache(name: str, kinds: Sequence[LayerKind], tokens: int) -> Side:
    """Return a whole cache of one sequence in bfloat16, with all that does not grow."""
    counted, precision = "bytes of the cache", PRECISION["bfloat16"]
    if any(kind.window for kind in kinds):
        counted += ", window layers included"
    if any(kind.state_heads for kind in kinds):
        counted, precision = f"{counted}, state included", f"{precision}, 32 in the state"
    amount = cache_size(kinds, tokens).once
    return Side(name, counted, precision, f"{tokens:,} tokens, batch 1", amount)


def ladder() -> Headline:
    """Return DeepSeek-V4.1-Flash against its predecessors, and the table of all of them."""
    rows: list[list[str]] = []
    sizes = [growth_bytes(MODELS[name], dtype=dtype) for name, dtype, _ in LADDER]
    for (name, _, stored), size in zip(LADDER, sizes, strict=True):
        layers: Counter[int] = Counter()
        for kind in MODELS[name].layers:
            layers[kind.window or kind.recent] += kind.n_layers
        kept = [f"the last {w:,} tokens in {n} layers" for w, n in sorted(layers.items()) if w]
        cells = [f"{round(size):,}", f"{float(sizes[0] / size):,.1f}"]
        rows.append([f"{short(name)}, {stored}", *cells, " and ".join(kept) or "nothing"])
    table = {
        "caption": "The ladder: what each further token adds, all layers together.",
        "head": ["model, and how it stores", "bytes per token", "times less", "kept besides"],
        "rows": rows,
    }
    first, v3, v4 = (published(*LADDER[step][:2]) for step in (0, 2, 5))
    last, same = published(*LADDER[-1][:2]), published(LADDER[-1][0], "bfloat16")
    quarter = "It is the report’s other number, 1/4."
    readings = [
        growth("first", last, first, CACHE),
        growth("bits", same, first, CACHE),
        growth("v3", last, v3, CACHE),
        growth("v4flash", last, v4, CACHE, remark=quarter, digits=2),
    ]
    sources = [
        ("DeepSeek LLM, Table 2", "https://arxiv.org/abs/2401.02954"),
        ("DeepSeek-V2", "https://arxiv.org/abs/2405.04434"),
        ("DeepSeek-V3", "https://arxiv.org/abs/2412.19437"),
        ("DeepSeek-V3.2, code", f"{GITHUB}/deepseek-ai/DeepSeek-V3.2-Exp"),
        ("DeepSeek-V4", "https://arxiv.org/abs/2606.19348"),
        ("DeepSeek-V4.1-Flash, checkpoint", f"{HUB}/deepseek-ai/DeepSeek-V4.1-Flash"),
    ]
    return Headline(*say("ladder"), Claim("437 times", 437), sources, readings, table)


def kimi_cache(name: str, words: str, tokens: int, digits: int = 1) -> Reading:
    """Return Kimi Linear's cache at a context, its state included, against MLA alone."""
    total = KIMI.n_layers
    mine = whole_cache("Kimi Linear", KIMI.layers, tokens)
    other = whole_cache(f"{total} MLA layers", [replace(FULL, n_layers=total)], tokens)
    growing = int(tokens * growth_bytes(KIMI))
    factors = [
        factor("layers whose cache grows", total, FULL.n_layers),
        factor("bytes without and with the state", growing, mine.amount),
    ]
    state = mine.amount - growing
    said = say(words, tokens=tokens, state=state, share=float(100 * state / mine.amount))
    return Reading(name, said, mine, other, "cache", factors, digits=digits)


def kimi75() -> Headline:
    """Return Kimi Linear's saving by design, per token, and with its constant state."""

    def token(name: str, called: str, linear: int, full: int) -> Reading:
        total = linear + full
        kinds = [replace(LINEAR, n_layers=linear), replace(FULL, n_layers=full)]
        mine = (called, kinds, "bfloat16")
        other = (f"{total} MLA layers", [replace(FULL, n_layers=total)], "bfloat16")
        factors = [factor("layers whose cache grows", total, full)]
        words: dict[str, object] = {"linear": linear, "full": full, "total": total}
        noun = "cache per further token"
        return growth(name, mine, other, noun, factors=factors, words=words)

    readings = [
        token("design", "3 linear layers and 1 MLA layer", 3, 1),
        token("token", "Kimi Linear", LINEAR.n_layers, FULL.n_layers),
        kimi_cache("8k", "size", 8192),
        kimi_cache("1m", "size", MILLION),
    ]
    return Headline(*say("kimi75"), Claim("75 %", 75, "saving"), KIMI_SOURCES, readings)


def kimi6() -> Headline:
    """Return Kimi Linear's published times per token, and its cache alone."""
    # Source: arXiv 2510.26692. Milliseconds at a million tokens, each with the batch that its
    # cache allows: Figure 1b. At batch 1, Figure 7b prints 2.2 times, and section 6.3 says 2.3
    # of that figure. The 2.3 of Figure 7a is prefill at 512K.
    ours, mla, at_1 = Fraction("1.84"), Fraction("11.48"), Fraction("2.25")
    about, kimi, base = "about 2.2 to 2.3", "Kimi Linear", "the paper’s MLA model"
    how = ("time per token, as published", "precision as in the paper’s run")
    most = "1M tokens, the larger batch that the smaller cache allows"
    least, one = "1M tokens, the batch that its cache allows", "1M tokens, batch 1"
    times = (
        Side(kimi, *how, most, ours, "1.84 milliseconds"),
        Side(base, *how, least, mla, "11.48 milliseconds"),
    )
    units = (
        Side(kimi, *how, one, 1, "1 unit of time"),
        Side(base, *how, one, at_1, f"{about} of these units"),
    )
    factors = [factor("milliseconds per token", mla, ours)]
    said, strong = say("one", about=about), f"{about} times faster"
    ratio = [["time per token, published as a ratio", "2.2 to 2.3 / 1", about]]
    noun, faster = "per token", "faster"
    readings = [
        Reading("printed", say("printed"), *times, noun, factors, digits=2, less=faster),
        Reading("one", said, *units, noun, ratio, strong=strong),
        kimi_cache("cache", "cache", MILLION, digits=2),
    ]
    return Headline(*say("kimi6"), Claim("6 times", 6), KIMI_SOURCES, readings)


def gemma4() -> Headline:
    """Return what can be left out of Gemma 4's global layers, and what is left out."""
    layers = MODELS["Gemma 4 31B"].layers
    full = next(kind for kind in layers if kind.window is None)
    width = full.head_dim
    rotated = width // 4  # p-RoPE rotates a quarter of a key. Source: the report, section 2
    how = ("numbers per KV head and token, one global layer", ANY_PRECISION, EACH_TOKEN)
    what = "numbers per KV head and token"

    def vector(name: str, stored: str, numbers: int, remark: str = "") -> Reading:
        mine = Side(stored, *how, numbers, "{:,} numbers")
        other = Side("K and V, both stored", *how, 2 * width, "{:,} numbers")
        factors = [factor(what, 2 * width, numbers)]
        said = say(name, width=width, rotated=rotated)
        return Reading(name, said, mine, other, "in a global layer", factors, remark)

    least = replace(full, v_head_dim=rotated)
    smaller = [least if kind == full else kind for kind in layers]
    mine = whole_cache("Gemma 4 31B, stored at its least", smaller, LONG)
    other = whole_cache("Gemma 4 31B, K and V both stored", layers, LONG)
    after = Fraction(100 * cache_size([least], LONG).once, mine.amount)
    before = Fraction(100 * cache_size([full], LONG).once, other.amount)
    share = "percent of the cache in global layers, after / before"
    factors = [factor(what, 2 * width, width + rotated), factor(share, after, before)]
    windows = sum(kind.n_layers for kind in layers if kind.window)
    half = "It is the “half” of some write-ups."
    said = say("whole", tokens=LONG, windows=windows, full=full.n_layers, before=float(before))
    readings = [
        vector("exact", "V, and the rotated part of K", width + rotated),
        vector("vector", "one vector that is K and V", width, half),
        vector("stored", "K and V as two tensors", 2 * width),
        Reading("whole", said, mine, other, "cache", factors),
    ]
    sources = [
        ("Gemma 4, section 2", "https://arxiv.org/abs/2607.02770"),
        ("transformers, gemma4", f"{GEMMA}/modeling_gemma4.py"),
        ("Gemma 4 31B, checkpoint", f"{HUB}/google/gemma-4-31B"),
    ]
    return Headline(*say("gemma4"), Claim("37.5 %", 37.5, "saving", 1), sources, readings)


def nsa() -> Headline:
    """Return what NSA loads, and what it keeps."""
    # Source: arXiv 2502.11089, section 4.1: compressed blocks of 32 tokens, one every 16; 16
    # selected blocks of 64; a window of 512; and the sizes of the model with 27B parameters.
    block, stride, selected, window = 32, 16, 16 * 64, 512
    full = LayerKind(n_layers=30, name="full", n_kv_heads=4, head_dim=192, v_head_dim=128)

    def loads(name: str, tokens: int) -> Reading:
        parts = ((tokens - block) // stride, selected, window)
        how = ("tokens loaded per decode step", ANY_PRECISION, f"{tokens:,} tokens, batch 1")
        mine = Side("NSA", *how, sum(parts), "{:,} tokens")
        other = Side("full attention", *how, tokens, "{:,} tokens")
        said = say("load", tokens=tokens, added=" + ".join(f"{part:,}" for part in parts))
        factors = [factor("tokens loaded", tokens, sum(parts))]
        return Reading(name, said, mine, other, "loaded per decode step", factors)

    compressed = replace(full, name="compressed", stride=stride)
    kept = ("NSA, 27B model", [full, compressed], "bfloat16")
    whole = ("full attention", [full], "bfloat16")
    counted = f"bytes per token, {full.n_layers} layers"
    factors = [factor(f"entries per {stride} tokens", stride, stride + 1)]
    options: dict[str, Any] = {"factors": factors, "words": {"stride": stride}, "digits": 2}
    readings = [
        loads("load64k", 65_536),
        loads("load8k", 8192),
        growth("everything", kept, whole, CACHE, counted, **options),
    ]
    sources = [("NSA", "https://arxiv.org/abs/2502.11089")]
    return Headline(*say("nsa"), Claim("11.6 times", 11.6, digits=1), sources, readings)


def tp8() -> Headline:
    """Return one device's share of a cache, by what the devices divide."""
    devices, tokens, batch = 8, 8192, 8
    how = ("bytes on one device", PRECISION["bfloat16"], f"{tokens:,} tokens, batch {batch}")

    def share(name: str, model: str, split: str, remark: str = "") -> Reading:
        kinds, whose = MODELS[model].layers, short(model)
        size = cache_size(kinds, tokens, batch_size=batch, devices=devices, split=split)
        mine = Side(f"{whose}, each of {devices} devices", *how, size.per_device)
        other = Side(f"{whose}, one device", *how, size.once)
        copies = factor("copies of each number", 1, size.copies)
        factors = [factor("devices", devices, 1), copies]
        said = say(name, heads=kinds[0].n_kv_heads, devices=devices)
        return Reading(name, said, mine, other, "cache per device", factors, remark, digits=0)

    but = "But it is not what tensor parallelism divides."
    readings = [
        share("heads", V3, "heads"),
        share("positions", V3, "positions", but),
        share("sequences", V3, "sequences", but),
        share("llama", LLAMA, "heads"),
    ]
    code = f"{GITHUB}/vllm-project/vllm/blob/main/vllm/config/model.py"
    sources = [
        ("DeepSeek-V3, section 4.2", "https://arxiv.org/abs/2412.19437"),
        ("Llama 3, Table 3", "https://arxiv.org/abs/2407.21783"),
        ("vLLM, get_num_kv_heads", code),
    ]
    return Headline(*say("tp8"), Claim("division by 8", 8), sources, readings)


def fp8() -> Headline:
    """Return what 8 bits save, with the scales that are stored beside them."""

    def layer(name: str, model: str, dtype: str) -> Reading:
        kinds = [replace(MODELS[model].layers[0], n_layers=1)]
        mine = (f"{short(model)}, 8 bits", kinds, dtype)
        other = (f"{short(model)}, 16 bits", kinds, "bfloat16")
        return growth(name, mine, other, "per token and layer", "bytes per token, one layer")

    readings = [
        layer("byte", V3, "float8_e4m3fn"),
        layer("layout", V3, "DeepSeek fp8"),
        layer("q8", LLAMA, "q8_0"),
    ]
    sources = [
        ("vLLM, the layout of 656 bytes", VLLM),
        ("FlashMLA", f"{GITHUB}/deepseek-ai/FlashMLA"),
        ("llama.cpp, block_q8_0", GGML),
    ]
    return Headline(*say("fp8"), Claim("half", 50, "saving"), sources, readings)


def dsa() -> Headline:
    """Return what DeepSeek-V3.2 keeps, and what a step reads of it, against V3."""
    dtype = "DeepSeek fp8"
    new, old = published(DSA, dtype), published(V3, dtype)
    first = new[1][0]
    dense, both = (growth_bytes(kinds, dtype=dtype) for _, kinds, _ in (old, new))

    def reads(name: str, tokens: int, less: str, digits: int) -> Reading:
        chosen, context = first.top_k or tokens, f"{tokens:,} tokens, batch 1"
        how = ("bytes of the cache read per decode step", PRECISION[dtype], context)
        mine, other = (
            Side(whose, *how, step_reads(kinds, tokens, dtype=dtype).bytes)
            for whose, kinds, _ in (new, old)
        )
        plain = dense * min(tokens, chosen)
        what = "bytes of those entries, without / with index keys"
        factors = [
            factor("entries read", tokens, min(tokens, chosen)),
            factor(what, plain, plain + tokens * (both - dense)),
        ]
        ratio = float(other.amount / mine.amount)
        remark = f"A step reads {less}: the ratio is {ratio:.2f}."
        said = say(name, tokens=tokens, chosen=chosen)
        return Reading(name, said, mine, other, "read per decode step", factors, remark, digits)

    index, grows = {"index": first.index_dim}, "What is kept grows."
    readings = [
        growth("kept", new, old, CACHE, words=index, remark=grows),
        reads("long", LONG, "less", 2),
        reads("short", SHORT, "more", 1),
    ]
    sources = [
        ("DeepSeek-V3.2, code", f"{GITHUB}/deepseek-ai/DeepSeek-V3.2-Exp"),
        ("DeepSeek-V3.2, checkpoint", f"{HUB}/deepseek-ai/DeepSeek-V3.2"),
        ("vLLM, the layout of 656 bytes", VLLM),
    ]
    return Headline(*say("dsa"), Claim(), sources, readings)


#: The headlines that have readings, by name, in the order of the list.
WITH_READINGS: dict[str, Headline] = {
    make.__name__: make() for make in (ladder, kimi75, kimi6, gemma4, nsa, tp8, fp8, dsa)
}
