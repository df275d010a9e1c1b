"""Exercise on choosing a variant: the bytes of any model's cache, whatever its layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attnlib.book.exercises.grading import Exercise, Grade, Mistake, combined
from attnlib.layers import LayerKind, cache_size
from attnlib.models import MODELS


def values_of(kind: LayerKind) -> int:
    """Width of a value."""
    return kind.head_dim if kind.v_head_dim is None else kind.v_head_dim


def entries_of(kind: LayerKind, tokens: int) -> int:
    """Entries that one layer keeps."""
    return min(tokens, kind.window or tokens)


HEADS = (
    lambda k: k.n_kv_heads * (k.head_dim + values_of(k)),
    Mistake("query heads. Count n_kv_heads.",
            lambda k: (k.n_heads or 0) * (k.head_dim + values_of(k))),
    Mistake("K or V is missing. Both are cached.", lambda k: k.n_kv_heads * k.head_dim),
    Mistake("values as wide as keys. Where v_head_dim is given, they are not.",
            lambda k: 2 * k.n_kv_heads * k.head_dim),
)  # fmt: skip
LATENTS = (
    lambda k: k.kv_lora_rank + k.qk_rope_head_dim,
    Mistake("a factor 2 for latents. The latent is key and value at once, stored once.",
            lambda k: 2 * (k.kv_lora_rank + k.qk_rope_head_dim)),
    Mistake("the latent without the shared rotary key.", lambda k: k.kv_lora_rank),
    Mistake("a rotary key for each head. One is shared by all.",
            lambda k: k.kv_lora_rank + (k.n_heads or 0) * k.qk_rope_head_dim),
    Mistake("two latents, for keys and for values. There is one, and a rotary key.",
            lambda k: 2 * k.kv_lora_rank + k.qk_rope_head_dim),
    Mistake("nothing for MLA. Where kv_lora_rank is not 0, a layer keeps a latent.",
            lambda k: 0),
)  # fmt: skip
KEPT = (
    entries_of,
    Mistake("no windows. They limit what a layer keeps.", lambda k, tokens: tokens),
    Mistake("a full window from the first token on. A short text does not fill it.",
            lambda k, tokens: k.window or tokens),
    Mistake("layers with a window are left out. They keep up to window tokens.",
            lambda k, tokens: 0 if k.window else tokens),
    Mistake("one token, not the sequence.", lambda k, tokens: 1),
)  # fmt: skip
LAYERS = (
    lambda k: 0 if k.borrows else k.n_layers,
    Mistake("layers that borrow. They read another layer's cache and keep none.",
            lambda k: k.n_layers),
    Mistake("one layer of each kind instead of all.", lambda k: 0 if k.borrows else 1),
)  # fmt: skip
NUMBER_BYTES = (
    2,
    Mistake("one byte per number. In bfloat16 a number takes two.", 1),
    Mistake("four bytes per number. In bfloat16 a number takes two.", 4),
    Mistake("bits, not bytes.", 16),
    Mistake("GiB, not bytes.", 2 / 2**30),
    Mistake("MiB, not bytes.", 2 / 2**20),
    Mistake("GB, not bytes.", 2 / 10**9),
)
Count = Callable[..., float]


def cache_bytes(
    of_heads: Count, of_latents: Count, kept: Count, layers_of: Count, number_bytes: float
) -> Count:
    """An answer made of five parts."""

    def n_bytes(layers: Sequence[LayerKind], tokens: int) -> float:
        total = 0.0
        for kind in layers:
            numbers = of_latents(kind) if kind.kv_lora_rank else of_heads(kind)
            total += number_bytes * layers_of(kind) * kept(kind, tokens) * numbers
        return total

    return n_bytes


CASES = {
    "Llama-3 8B": ("Llama-3 8B", 8192),
    "DeepSeek-V3": ("DeepSeek-V3 / R1", 4096),
    "gpt-oss-120b, short": ("gpt-oss-120b", 100),
    "gpt-oss-120b, long": ("gpt-oss-120b", 131_072),
    "MiMo-V2-Flash": ("MiMo-V2-Flash", 32_768),
    "Gemma 4 E4B": ("Gemma 4 E4B", 131_072),
}
ANY_CACHE = Exercise(
    answer=lambda layers, tokens: cache_size(layers, tokens).once,
    cases={name: (MODELS[model].layers, tokens) for name, (model, tokens) in CASES.items()},
    mistakes=combined(cache_bytes, HEADS, LATENTS, KEPT, LAYERS, NUMBER_BYTES, at_most=3),
)


def grade_any_cache(function: Callable[[Sequence[LayerKind], int], float]) -> Grade:
    """Grade the bytes of any published model's cache (Choosing a variant).

    Args:
        function: takes ``(layers, tokens)``, the kinds of a model's layers and the tokens of
            one sequence; returns the bytes that all layers keep of it, in bfloat16.

    Returns:
        The grade.
    """
    return ANY_CACHE.grade(function)
