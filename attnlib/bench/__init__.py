"""Measure one layer of each variant, beside the time that its FLOPs and bytes allow.

``python -m attnlib.bench`` measures how fast this machine reads memory and multiplies matrices,
then times decode steps and prefills of every registered variant over context lengths. Each time
is set beside its floor, which adds the floors of its two parts, projections and core. Where
transformers is installed, its layers of the same sizes are timed in the same rounds.
"""

from attnlib.bench.machine import (
    Allocated,
    Rates,
    allocated,
    evict_caches,
    machine_rates,
    profiled,
    provenance,
    sdpa_backend,
    timed,
    using_threads,
)
from attnlib.bench.measure import (
    Row,
    decode_step,
    geometries,
    measure_decode,
    measure_prefill,
    prefill_parts,
)
from attnlib.bench.report import brief, disturbance, orders, rankings, summary, table
from attnlib.variants import build_layer

__all__ = [
    "Allocated",
    "Rates",
    "Row",
    "allocated",
    "brief",
    "build_layer",
    "decode_step",
    "disturbance",
    "evict_caches",
    "geometries",
    "machine_rates",
    "measure_decode",
    "measure_prefill",
    "orders",
    "prefill_parts",
    "profiled",
    "provenance",
    "rankings",
    "sdpa_backend",
    "summary",
    "table",
    "timed",
    "using_threads",
]
