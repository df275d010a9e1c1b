"""Exercises of the chapters: each ``grade_`` function grades a reader's code for one of them.

A module per chapter defines them as data, by the classes of
:mod:`attnlib.book.exercises.grading`. A grade prints itself at the end of a cell.
"""

from collections.abc import Callable
from importlib import import_module

# The module of each grader. It is imported when the grader is, for a chapter needs few of them.
TOPICS = {
    "grade_absorbed": "multi_head_latent_attention",
    "grade_any_cache": "choosing_a_variant",
    "grade_batched_attention": "dot_product_attention",
    "grade_cache_check": "bug_museum",
    "grade_cache_gib": "kv_cache",
    "grade_cached_layer": "kv_cache",
    "grade_first_share": "real_model",
    "grade_floor": "measure_it_yourself",
    "grade_half_split": "real_model",
    "grade_half_step": "grouped_query_attention",
    "grade_head_order": "conversion_lab",
    "grade_heads": "multi_head_attention",
    "grade_induction": "what_heads_learn",
    "grade_late_rotation": "rotary_positions",
    "grade_merge": "attention_in_pieces",
    "grade_mqa_to_mla": "conversion_lab",
    "grade_one_pass": "attention_in_pieces",
    "grade_paired_interval": "quality_lab",
    "grade_part": "more_than_one_device",
    "grade_qk_norm": "scaling",
    "grade_ring": "windows_sinks_and_hybrids",
    "grade_rotation": "rotary_positions",
    "grade_scale": "scaling",
    "grade_shares": "what_heads_learn",
    "grade_sink": "windows_sinks_and_hybrids",
    "grade_stretch": "rotary_positions",
    "grade_unrepeated": "multi_query_attention",
}
__all__ = list(TOPICS)


def __getattr__(name: str) -> Callable:
    if name not in TOPICS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{TOPICS[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *TOPICS})
