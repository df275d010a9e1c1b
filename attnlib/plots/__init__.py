"""Pictures of the book: one look, drawn from the numbers that a chapter computed.

Importing this package loads matplotlib; ``import attnlib`` does not.
"""

from attnlib.plots.basics import mask_tables, soft_lookup, training_and_inference
from attnlib.plots.caches import cache_growth, decode_reads, growing_cache
from attnlib.plots.choices import two_prices
from attnlib.plots.heads import (
    by_head,
    reach_tables,
    split_and_merge,
    two_heads,
    where_numbers_land,
)
from attnlib.plots.heatmaps import draw_weights, heatmap, heatmaps
from attnlib.plots.latent import latent_forms
from attnlib.plots.look import (
    LINES,
    MARKERS,
    ROLES,
    STYLE,
    VARIANTS,
    arrow,
    blank,
    box,
    styled,
    tint,
)
from attnlib.plots.measured import step_times
from attnlib.plots.museum import bugs_and_checks
from attnlib.plots.overview import variants
from attnlib.plots.roofline import Roof, rooflines
from attnlib.plots.rotation import (
    kept_speed,
    pairings,
    turned_arrows,
    wavelengths,
)
from attnlib.plots.scaling import score_spread, softmax_gradients, temperatures
from attnlib.plots.sharing import cache_over_kv_heads, folded_queries, recovery

__all__ = [
    "LINES",
    "MARKERS",
    "ROLES",
    "STYLE",
    "VARIANTS",
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
