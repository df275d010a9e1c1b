"""Exercises of the chapters: each ``grade_`` function grades a reader's code for one of them.

A module per chapter defines them as data, by the classes of
:mod:`attnlib.book.exercises.grading`. A grade prints itself at the end of a cell.
"""

from attnlib.book.exercises.bug_museum import grade_cache_check
from attnlib.book.exercises.choosing_a_variant import grade_any_cache
from attnlib.book.exercises.conversion_lab import grade_mqa_to_mla, grade_pool
from attnlib.book.exercises.dot_product_attention import grade_merge
from attnlib.book.exercises.grouped_query_attention import grade_half_step, grade_head_order
from attnlib.book.exercises.kv_cache import grade_cache_gib, grade_cached_layer
from attnlib.book.exercises.measure_it_yourself import grade_floor
from attnlib.book.exercises.multi_head_attention import grade_heads, grade_shares
from attnlib.book.exercises.multi_head_latent_attention import grade_absorbed
from attnlib.book.exercises.multi_query_attention import grade_unrepeated
from attnlib.book.exercises.quality_lab import grade_paired_interval
from attnlib.book.exercises.rotary_positions import (
    grade_late_rotation,
    grade_rotation,
    grade_stretch,
)
from attnlib.book.exercises.scaling import grade_qk_norm, grade_scale

__all__ = [
    "grade_absorbed",
    "grade_any_cache",
    "grade_cache_check",
    "grade_cache_gib",
    "grade_cached_layer",
    "grade_floor",
    "grade_half_step",
    "grade_head_order",
    "grade_heads",
    "grade_late_rotation",
    "grade_merge",
    "grade_mqa_to_mla",
    "grade_paired_interval",
    "grade_pool",
    "grade_qk_norm",
    "grade_rotation",
    "grade_scale",
    "grade_shares",
    "grade_stretch",
    "grade_unrepeated",
]
