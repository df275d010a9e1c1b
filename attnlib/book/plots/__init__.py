"""The book's pictures, in one style, drawn from numbers that a chapter computed.

Importing this package loads matplotlib, of the extra ``attnlib[book]``; ``import attnlib`` does
not.
"""

from attnlib.book import missing_extra

try:
    import matplotlib  # noqa: F401  # fail here with a message that helps
except ModuleNotFoundError as error:
    raise missing_extra(error) from error

from attnlib.book.plots.basics import (
    mask_tables,
    score_table,
    soft_lookup,
    training_and_inference,
    transformer_block,
)
from attnlib.book.plots.caches import decode_reads, growing_cache
from attnlib.book.plots.choices import serving, two_prices
from attnlib.book.plots.conversion import cloud, healing, loss_by_cache, moves
from attnlib.book.plots.devices import split_times
from attnlib.book.plots.heads import (
    by_head,
    reach_tables,
    split_and_merge,
    two_heads,
    where_numbers_land,
)
from attnlib.book.plots.heatmaps import draw_weights, heatmap, heatmaps
from attnlib.book.plots.latent import latent_forms
from attnlib.book.plots.measured import step_times
from attnlib.book.plots.museum import bugs_and_checks
from attnlib.book.plots.overview import variants
from attnlib.book.plots.quality import (
    intervals,
    loss_beside_costs,
    loss_over_training,
    paired_differences,
)
from attnlib.book.plots.real_model import head_maps, perplexity_by_cache, resting_place
from attnlib.book.plots.roofline import Roof, rooflines
from attnlib.book.plots.rotation import (
    kept_speed,
    pairings,
    turned_arrows,
    wavelengths,
)
from attnlib.book.plots.scaling import score_spread, softmax_gradients, temperatures
from attnlib.book.plots.sharing import cache_over_kv_heads, folded_queries
from attnlib.book.plots.style import (
    ROLES,
    STYLE,
    arrow,
    blank,
    box,
    styled,
    tint,
)
from attnlib.book.plots.windows import needle_curves, perplexity_by_window

__all__ = [
    "ROLES",
    "STYLE",
    "Roof",
    "arrow",
    "blank",
    "box",
    "bugs_and_checks",
    "by_head",
    "cache_over_kv_heads",
    "cloud",
    "decode_reads",
    "draw_weights",
    "folded_queries",
    "growing_cache",
    "head_maps",
    "healing",
    "heatmap",
    "heatmaps",
    "intervals",
    "kept_speed",
    "latent_forms",
    "loss_beside_costs",
    "loss_by_cache",
    "loss_over_training",
    "mask_tables",
    "moves",
    "needle_curves",
    "paired_differences",
    "pairings",
    "perplexity_by_cache",
    "perplexity_by_window",
    "reach_tables",
    "resting_place",
    "rooflines",
    "score_spread",
    "score_table",
    "serving",
    "soft_lookup",
    "softmax_gradients",
    "split_and_merge",
    "split_times",
    "step_times",
    "styled",
    "temperatures",
    "tint",
    "training_and_inference",
    "transformer_block",
    "turned_arrows",
    "two_heads",
    "two_prices",
    "variants",
    "wavelengths",
    "where_numbers_land",
]
