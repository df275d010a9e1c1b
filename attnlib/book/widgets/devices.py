"""Who holds what: one attention layer that is shared by several devices."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import NamedTuple

import traitlets

from attnlib.book.widgets.base import Widget, one_of, table
from attnlib.checks import check_size
from attnlib.costs import Geometry
from attnlib.labs.devices import sent_bytes
from attnlib.layers import LayerKind

HEADS, SEQUENCES, POSITIONS = 8, 4, 8  # query heads; of the example's cache
HEAD_DIM = 16  # D and D_v
D_MODEL = HEADS * HEAD_DIM
LATENT, ROTARY = 64, 8  # as many times D as in DeepSeek's models: 4 and a half
NUMBER_BYTES = 2  # bfloat16
RANKS = (1, 2, 4, 8)
# The label of each variant and its KV heads; a latent is one thing for all query heads.
VARIANTS = {
    "heads-8": ("MHA: 8 KV heads", 8),
    "heads-4": ("GQA-4: 4", 4),
    "heads-2": ("GQA-2: 2", 2),
    "heads-1": ("MQA: 1", 1),
    "latent": ("MLA: a latent", 1),
}
SPLITS = {"heads": "by heads", "sequences": "by sequences", "context": "by positions (context)"}

# What engines do, with the sources that say so, read in November 2026.
LINKS = {
    "vLLM, llama.py": "https://github.com/vllm-project/vllm/blob/main/vllm/model_executor/models/llama.py",
    "SGLang, llama.py": "https://github.com/sgl-project/sglang/blob/main/python/sglang/srt/models/llama.py",
    "Megatron-LM #2565": "https://github.com/NVIDIA/Megatron-LM/pull/2565",
    "ms-swift #8219": "https://github.com/modelscope/ms-swift/issues/8219",
    "vLLM on context parallelism": "https://github.com/vllm-project/vllm/blob/main/docs/serving/context_parallel_deployment.md",
    "vLLM on data parallelism": "https://github.com/vllm-project/vllm/blob/main/docs/serving/data_parallel_deployment.md",
    "SGLang on data-parallel attention": "https://github.com/sgl-project/sglang/blob/main/docs/advanced_features/dp_dpa_smg_guide.md",
    "SGLang on decode context parallelism": "https://docs.sglang.io/docs/advanced_features/dcp.md",
    "DeepSeek on serving V3 and R1": "https://github.com/deepseek-ai/open-infra-index/blob/main/202502OpenSourceWeek/day_6_one_more_thing_deepseekV3R1_inference_system_overview.md",
}
LLAMAS = ("vLLM, llama.py", "SGLang, llama.py")
DPA = ("vLLM on data parallelism", "SGLang on data-parallel attention")
DCP = ("vLLM on context parallelism",)
DEEPSEEK = ("DeepSeek on serving V3 and R1",)
# Each situation: sentences, and the sources that say so.
ENGINES = {
    "one rank": ("", ()),
    "by heads": (
        "vLLM and SGLang divide the KV heads like this: it is tensor parallelism.",
        LLAMAS,
    ),
    "copied by heads": (
        "vLLM and SGLang store a copy of the KV head on each rank that reads it. Megatron-Core"
        " refused fewer KV heads than ranks up to version 0.15; since 0.16, each of its ranks"
        " has one KV head as well.",
        (*LLAMAS, "Megatron-LM #2565", "ms-swift #8219"),
    ),
    "MLA by heads": (
        "vLLM and SGLang then keep the latent on every rank, and their guides offer ways around"
        " it. DeepSeek serves V3 and R1 with data-parallel attention, that is by sequences.",
        (*DCP, DPA[1], *DEEPSEEK),
    ),
    "by sequences": (
        "vLLM and SGLang offer this: it is data-parallel attention.",
        DPA,
    ),
    "MLA by sequences": (
        "vLLM and SGLang offer this above all for MLA: it is data-parallel attention. DeepSeek"
        " serves V3 and R1 in this way.",
        (*DPA, *DEEPSEEK),
    ),
    "by positions, heads left": (
        "vLLM does not split like this: it divides the {kv_heads} KV heads first, and positions"
        " only among ranks that would otherwise hold copies.",
        DCP,
    ),
    "by positions and heads": (
        "vLLM divides the {kv_heads} KV heads first, and then positions among the {each} ranks"
        " of each head. It deals them out in turn, as here.",
        DCP,
    ),
    "by positions": (
        "vLLM does this to avoid copies, and deals the positions out in turn, as here: it is"
        " decode context parallelism.",
        DCP,
    ),
    "MLA by positions": (
        "vLLM and SGLang do this to avoid copies of the latent, and deal the positions out in"
        " turn, as here: it is decode context parallelism.",
        (*DCP, "SGLang on decode context parallelism"),
    ),
}


class Rank(NamedTuple):
    """What one rank holds.

    Attributes:
        queries: query heads that it computes.
        heads: KV heads that it stores, or 0 for a latent.
        sequences: of which it stores entries.
        positions: of which it stores entries.
        bytes: of its cache.
        first: the lowest rank that holds the same; its own number unless it holds a copy.
    """

    queries: tuple[int, ...]
    heads: tuple[int, ...]
    sequences: tuple[int, ...]
    positions: tuple[int, ...]
    bytes: int
    first: int


class Shared(NamedTuple):
    """How ranks share a layer.

    Attributes:
        ranks: what each of them holds.
        once: bytes of the cache, each entry counted once.
        copies: how often each entry is stored.
        sent: numbers that each rank sends per new token, in a ring.
    """

    ranks: tuple[Rank, ...]
    once: int
    copies: int
    sent: int


class DeviceSplit(Widget, file="devices"):
    """What each of several devices holds and sends when they share one attention layer.

    The example has 8 query heads and 4 sequences of 8 positions. The page looks up what
    ``shared`` computes.

    Args:
        variant: at first: one of `attnlib.book.widgets.devices.VARIANTS`.
        ranks: devices at first: 1, 2, 4 or 8.
        split: how they share the layer at first: ``"heads"``, ``"sequences"`` or
            ``"context"``, that is by positions.
        rank: the rank chosen at first, counted from 0.
        label: the figure's title.

    Attributes:
        variant: ``"heads-8"``, ``"heads-4"``, ``"heads-2"``, ``"heads-1"`` or ``"latent"``.
        ranks: devices.
        split: ``"heads"``, ``"sequences"`` or ``"context"``.
        rank: the rank chosen; the last one if there are fewer than before.

    Raises:
        ValueError: if a first state is not one of the choices.
    """

    anchor = "device-split"

    variant = traitlets.Unicode("heads-8").tag(sync=True, state=True)
    ranks = traitlets.Int(1).tag(sync=True, state=True)
    split = traitlets.Unicode("heads").tag(sync=True, state=True)
    rank = traitlets.Int(0).tag(sync=True, state=True)

    _variant = one_of("variant", lambda self: VARIANTS)
    _ranks = one_of("ranks", lambda self: RANKS)
    _split = one_of("split", lambda self: SPLITS)
    _rank = one_of("rank", lambda self: range(self.ranks))

    def __init__(
        self,
        variant: str = "heads-2",
        ranks: int = 8,
        *,
        split: str = "heads",
        rank: int = 0,
        label: str = "Who holds what",
    ):
        super().__init__(data=device_data(), label=label)
        state = {"variant": variant, "ranks": check_size("ranks", ranks), "split": split}
        state["rank"] = check_size("rank", rank, least=0)
        for name, value in state.items():
            self.set_trait(name, value)

    @traitlets.observe("ranks")
    def _keep_rank(self, change: dict[str, int]) -> None:
        self.rank = min(self.rank, change["new"] - 1)

    def fallback(self) -> str:
        """Return tables of copies and shares by heads, and of what is sent."""
        several = RANKS[1:]
        head = ["", *(f"{ranks} ranks" for ranks in several)]
        rows = [
            [label] + [in_words(shared(variant, ranks, "heads")) for ranks in several]
            for variant, (label, _) in VARIANTS.items()
        ]
        held = (
            "What each rank keeps if one layer is split by heads. Split by sequences or by"
            " positions, each entry is stored once, and each of N ranks keeps 1/N of the cache;"
            f" but {SEQUENCES} sequences leave ranks {SEQUENCES} to 7 of 8 empty."
        )
        sent = [
            [label] + [f"{shared('heads-8', ranks, split).sent} numbers" for ranks in several]
            for split, label in SPLITS.items()
        ]
        each = f"What each rank sends per new token in a ring, d_model = {D_MODEL}."
        return table(head, rows, held) + table(head, sent, each)


def layer(variant: str) -> LayerKind:
    """Return the example's layer in the terms of :mod:`attnlib.layers`.

    Args:
        variant: one of :data:`VARIANTS`.

    Returns:
        One layer.
    """
    if variant == "latent":
        return LayerKind(
            n_layers=1, n_heads=HEADS, kv_lora_rank=LATENT, qk_rope_head_dim=ROTARY
        )
    _, kv_heads = VARIANTS[variant]
    return LayerKind(n_layers=1, n_heads=HEADS, n_kv_heads=kv_heads, head_dim=HEAD_DIM)


def entry_numbers(variant: str) -> int:
    """Return the numbers that a layer stores of one token for one KV head, or its latent."""
    return sum(part.width for part in layer(variant).parts)


def shared(variant: str, ranks: int, split: str) -> Shared:
    """Return what each rank holds, and what it sends per new token.

    By heads, a rank has its share of the query heads and stores what these read: a KV head
    whose query heads are on several ranks is on all of them, as MLA's latent always is. After
    the output projection, an all-reduce adds up ``d_model`` numbers. By sequences, a rank
    stores whole sequences, and attention sends nothing. By context, rank r of N stores each
    position p with p mod N = r; an all-gather brings to every rank the partial outputs and
    log-sum-exps of all, ``H (D_v + 1)`` numbers of each.

    In a ring of N ranks, each sends ``2 (N - 1) / N`` times the numbers of an all-reduce, and
    ``N - 1`` times its own part in an all-gather.

    Args:
        variant: one of :data:`VARIANTS`.
        ranks: N, one of :data:`RANKS`.
        split: one of :data:`SPLITS`.

    Returns:
        The ranks, the cache's bytes, copies of each entry, and numbers sent.
    """
    _, kv_heads = VARIANTS[variant]
    entry_bytes = NUMBER_BYTES * entry_numbers(variant)
    found: list[Rank] = []
    for rank in range(ranks):
        queries, sequences = tuple(range(HEADS)), tuple(range(SEQUENCES))
        positions = tuple(range(POSITIONS))
        if split == "heads":
            queries = tuple(q for q in queries if q * ranks // HEADS == rank)
        elif split == "sequences":
            sequences = tuple(s for s in sequences if s // -(-SEQUENCES // ranks) == rank)
        else:
            positions = positions[rank::ranks]
        heads = tuple(sorted({q * kv_heads // HEADS for q in queries}))
        held = (heads, sequences, positions)
        n_bytes = len(heads) * len(sequences) * len(positions) * entry_bytes
        same = (at for at, other in enumerate(found) if n_bytes and other[1:4] == held)
        found.append(Rank(queries, *held, n_bytes, next(same, rank)))
    stored = Counter(entry for rank in found for entry in product(*rank[1:4]))
    [copies] = set(stored.values())  # the same for all entries
    sizes = Geometry(1, HEADS, HEADS, HEAD_DIM, d_model=D_MODEL)
    name = "positions" if split == "context" else split
    sent = 0  # by sequences, unless what follows attention wants the outputs gathered
    if split != "sequences":  # at one byte per number, bytes are numbers
        sent = sent_bytes(sizes, devices=ranks, split=name, dtype="int8")
    return Shared(tuple(found), len(stored) * entry_bytes, copies, sent)


def in_words(case: Shared) -> str:
    """Return copies and share of the cache, such as "2 copies, 1/4 of the cache each"."""
    share = case.once // max(rank.bytes for rank in case.ranks)
    stored = "stored once" if case.copies == 1 else f"{case.copies} copies"
    return f"{stored}, {'the whole cache' if share == 1 else f'1/{share} of the cache'} each"


def sending(variant: str, ranks: int, split: str) -> str:
    """Return what is sent per new token, and why, in words.

    Args:
        variant: one of :data:`VARIANTS`.
        ranks: one of :data:`RANKS`.
        split: one of :data:`SPLITS`.

    Returns:
        Sentences.
    """
    if ranks == 1:
        return "One rank has nothing to send."
    numbers = shared(variant, ranks, split).sent
    if split == "heads":
        return (
            "The output of each token is a sum over all heads. After the output projection, an"
            f" all-reduce adds up its d_model = {D_MODEL} numbers. In a ring, each rank sends"
            f" 2\u00a0(N\u00a0−\u00a01)/N × {D_MODEL} = {numbers} numbers."
        )
    if split == "sequences":
        return (
            "Attention itself sends nothing: what a token attends to is on its own rank. But if"
            " the ranks share the feed-forward layer or the experts, the tokens of all ranks"
            " are gathered before it (all-gather) or sent to their experts and back"
            " (all-to-all)."
        )
    part = HEADS * (HEAD_DIM + 1)
    expands = ", which MLA expands to D_v before," if variant == "latent" else ""
    return (
        "Each rank attends to the positions that it holds. An all-gather then brings to every"
        f" rank the partial outputs{expands} and the log-sum-exps of all ranks:"
        f" H\u00a0(D_v\u00a0+\u00a01) = {HEADS} × {HEAD_DIM + 1} = {part} numbers of each, from"
        " which it merges the output. In a ring, each rank sends"
        f" (N\u00a0−\u00a01) × {part} = {numbers} numbers."
    )


def situation(variant: str, ranks: int, split: str) -> str:
    """Return the key of :data:`ENGINES` for a case.

    Args:
        variant: one of :data:`VARIANTS`.
        ranks: one of :data:`RANKS`.
        split: one of :data:`SPLITS`.

    Returns:
        The key.
    """
    if ranks == 1:
        return "one rank"
    if split == "sequences":
        return "MLA by sequences" if variant == "latent" else "by sequences"
    _, kv_heads = VARIANTS[variant]
    if split == "heads":
        if variant == "latent":
            return "MLA by heads"
        return "copied by heads" if ranks > kv_heads else "by heads"
    if ranks <= kv_heads:
        return "by positions, heads left"
    if kv_heads > 1:
        return "by positions and heads"
    return "MLA by positions" if variant == "latent" else "by positions"


def device_data() -> dict[str, object]:
    """Return all cases for the page.

    Returns:
        The choices; for each variant its rows and the numbers of an entry; for each case its
        ranks, in the order of :class:`Rank` with numbers as digits, its bytes, its copies, what
        each rank sends, and two indices: of ``sent``, why, and of ``engines``, what they do.
    """
    why: list[str] = []
    said: list[tuple[str, tuple[str, ...]]] = []
    cases: dict[str, dict[str, dict[str, dict[str, object]]]] = {}
    for variant, split, ranks in product(VARIANTS, SPLITS, RANKS):
        case, (_, kv_heads) = shared(variant, ranks, split), VARIANTS[variant]
        words, sources = ENGINES[situation(variant, ranks, split)]
        what = words.format(kv_heads=kv_heads, each=ranks // kv_heads), sources
        reason = sending(variant, ranks, split)
        why += [] if reason in why else [reason]
        said += [] if what in said else [what]
        cases.setdefault(variant, {}).setdefault(split, {})[str(ranks)] = {
            "ranks": [
                ["".join(map(str, n)) for n in one[:4]] + [*one[4:]] for one in case.ranks
            ],
            "once": case.once,
            "copies": case.copies,
            "sent": case.sent,
            "why": why.index(reason),
            "engines": said.index(what),
        }
    return {
        "variants": [[name, label] for name, (label, _) in VARIANTS.items()],
        "splits": [list(item) for item in SPLITS.items()],
        "ranks": list(RANKS),
        "sequences": SEQUENCES,
        "positions": POSITIONS,
        "rows": {name: kv_heads for name, (_, kv_heads) in VARIANTS.items()},
        "numbers": {name: entry_numbers(name) for name in VARIANTS},
        "cases": cases,
        "sent": why,
        "engines": [[words, [[name, LINKS[name]] for name in names]] for words, names in said],
    }
