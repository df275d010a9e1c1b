"""Pictures of the book: one look, drawn from the numbers that a chapter computed.

Importing this package loads matplotlib; ``import attnlib`` does not.
"""

from attnlib.book.plots.basics import mask_tables, soft_lookup, training_and_inference
from attnlib.book.plots.caches import cache_growth, decode_reads, growing_cache
from attnlib.book.plots.choices import two_prices
from attnlib.book.plots.heads import (
    by_head,
    reach_tables,
    split_and_merge,
    two_heads,
    where_numbers_land,
)
from attnlib.book.plots.heatmaps import draw_weights, heatmap, heatmaps
from attnlib.book.plots.latent import latent_forms
from attnlib.book.plots.style import (
    ROLES,
    STYLE,
    arrow,
    blank,
    box,
    styled,
    tint,
)
from attnlib.book.plots.measured import step_times
from attnlib.book.plots.museum import bugs_and_checks
from attnlib.book.plots.overview import variants
from attnlib.book.plots.roofline import Roof, rooflines
from attnlib.book.plots.rotation import (
    kept_speed,
    pairings,
    turned_arrows,
    wavelengths,
)
from attnlib.book.plots.scaling import score_spread, softmax_gradients, temperatures
from attnlib.book.plots.sharing import cache_over_kv_heads, folded_queries, recovery

__all__ = [
    "ROLES",
    "STYLE",
    "Roof",
    "arrow",
    "blank",
    "box",
    "bugs_and_checks",
    "by_head",
    "cache_growth",
    "cache_over_kv_heads",
    "decode_reads",
    "draw_weights",
    "folded_queries",
    "growing_cache",
    "heatmap",
    "heatmaps",
    "kept_speed",
    "latent_forms",
    "mask_tables",
    "pairings",
    "reach_tables",
    "recovery",
    "rooflines",
    "score_spread",
    "soft_lookup",
    "softmax_gradients",
    "split_and_merge",
    "step_times",
    "styled",
    "temperatures",
    "tint",
    "training_and_inference",
    "turned_arrows",
    "two_heads",
    "two_prices",
    "variants",
    "wavelengths",
    "where_numbers_land",
]
