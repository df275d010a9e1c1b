"""Exercise on choosing a variant: the bytes of any published model's cache."""

from __future__ import annotations

from collections.abc import Callable

from attnlib.book.exercises.grading import Exercise, Grade, Mistake, combined
from attnlib.costs import Geometry, kv_cache_bytes
from attnlib.models import MODELS


def full_layers(g: Geometry) -> int:
    """Layers without a window."""
    return g.n_layers - g.n_window_layers


def kept_tokens(g: Geometry, tokens: int) -> int:
    """Tokens that all layers keep together."""
    if g.window is None:
        return g.n_layers * tokens
    return full_layers(g) * tokens + g.n_window_layers * min(tokens, g.window)


HEADS = (
    lambda g: 2 * g.n_kv_heads * g.head_dim,
    Mistake("query heads. Count n_kv_heads.", lambda g: 2 * g.n_heads * g.head_dim),
    Mistake("d_model / n_heads for the width of a head. The published width is head_dim.",
            lambda g: 2 * g.n_kv_heads * g.d_model / g.n_heads),
    Mistake("K or V is missing. Both are cached.", lambda g: g.n_kv_heads * g.head_dim),
    Mistake("d_model for the width n_kv_heads * head_dim of all keys.",
            lambda g: 2 * g.d_model),
)  # fmt: skip
LATENTS = (
    lambda g: g.kv_lora_rank + g.qk_rope_head_dim,
    Mistake("a factor 2 for latents. The latent is key and value at once, stored once.",
            lambda g: 2 * (g.kv_lora_rank + g.qk_rope_head_dim)),
    Mistake("the latent without the shared rotary key.", lambda g: g.kv_lora_rank),
    Mistake("a rotary key for each head. One is shared by all.",
            lambda g: g.kv_lora_rank + g.n_heads * g.qk_rope_head_dim),
    Mistake("two latents, for keys and for values. There is one, and a rotary key.",
            lambda g: 2 * g.kv_lora_rank + g.qk_rope_head_dim),
    Mistake("keys and values of all heads in MLA. They are not kept: latents are.",
            lambda g: 2 * g.n_kv_heads * g.head_dim),
    Mistake("d_model for MLA. It keeps a latent and a rotary key.", lambda g: 2 * g.d_model),
)  # fmt: skip
KEPT = (
    kept_tokens,
    Mistake("no windows. They limit what a layer keeps.",
            lambda g, tokens: g.n_layers * tokens),
    Mistake("windows in all layers. Only n_window_layers have one.",
            lambda g, tokens: g.n_layers * min(tokens, g.window or tokens)),
    Mistake("a full window from the first token on. A short text does not fill it.",
            lambda g, tokens: full_layers(g) * tokens + g.n_window_layers * (g.window or 0)),
    Mistake("layers with a window are left out. They keep up to window tokens.",
            lambda g, tokens: full_layers(g) * tokens),
    Mistake("layers with a window count twice. They are among the n_layers.",
            lambda g, tokens: kept_tokens(g, tokens) + g.n_window_layers * tokens),
    Mistake(
        "windows in the wrong layers. n_window_layers have one, the others keep all.",
        lambda g, tokens: (
            g.n_window_layers * tokens + full_layers(g) * min(tokens, g.window or tokens)
        ),
    ),
    Mistake("one layer instead of all.", lambda g, tokens: kept_tokens(g, tokens) / g.n_layers),
    Mistake("the layers twice.", lambda g, tokens: kept_tokens(g, tokens) * g.n_layers),
    Mistake("one token, not the sequence.", lambda g, tokens: kept_tokens(g, tokens) / tokens),
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


def cache_bytes(
    of_heads: Callable, of_latents: Callable, kept: Callable, number_bytes: float
) -> Callable[[Geometry, int], float]:
    """An answer made of four parts."""

    def n_bytes(g: Geometry, tokens: int) -> float:
        numbers = of_heads(g) if g.kv_lora_rank is None else of_latents(g)
        return number_bytes * numbers * kept(g, tokens)

    return n_bytes


ANY_CACHE = Exercise(
    answer=kv_cache_bytes,
    cases={
        "Llama-3 8B": (MODELS["Llama-3 8B"].geometry, 8192),
        "Qwen3-4B": (MODELS["Qwen3-4B"].geometry, 4096),
        "Falcon 7B": (MODELS["Falcon 7B"].geometry, 2048),
        "DeepSeek-V3": (MODELS["DeepSeek-V3 / R1"].geometry, 4096),
        "Gemma-3 27B, short": (MODELS["Gemma-3 27B"].geometry, 512),
        "Gemma-3 27B, long": (MODELS["Gemma-3 27B"].geometry, 131_072),
    },
    mistakes=combined(cache_bytes, HEADS, LATENTS, KEPT, NUMBER_BYTES, at_most=3),
)


def grade_any_cache(function: Callable[[Geometry, int], float]) -> Grade:
    """Grade the bytes of any published model's cache (Choosing a variant).

    Args:
        function: takes ``(geometry, tokens)``; returns the bytes that all layers keep of one
            sequence, in bfloat16, latents and windows included.

    Returns:
        The grade.
    """
    return ANY_CACHE.grade(function)
