"""Exercise of the measurements: the least time of a decode step."""

from __future__ import annotations

from collections.abc import Callable

from attnlib.book.exercises.grading import Exercise, Grade, Mistake, combined
from attnlib.costs import Geometry, attention_params, kv_cache_bytes
from attnlib.models import MODELS

# From the four times of reading and arithmetic: of the weights, then of the core.
JOINS = (
    lambda rw, aw, rc, ac: max(rw, aw) + max(rc, ac),
    Mistake("one roofline for the whole step. The core calculates after the weights are read,"
            " so each part has a longer time of its own.",
            lambda rw, aw, rc, ac: max(rw + rc, aw + ac)),
    Mistake("reading and arithmetic of a part are added. They run side by side.",
            lambda rw, aw, rc, ac: rw + aw + rc + ac),
    Mistake("the shorter of the two times. The longer one decides.",
            lambda rw, aw, rc, ac: min(rw, aw) + min(rc, ac)),
    Mistake("the longer of the two parts. They run one after the other.",
            lambda rw, aw, rc, ac: max(rw, aw, rc, ac)),
    Mistake("the reading alone. Arithmetic may take longer.", lambda rw, aw, rc, ac: rw + rc),
    Mistake("the arithmetic alone. Reading may take longer.", lambda rw, aw, rc, ac: aw + ac),
)  # fmt: skip
WEIGHT_BYTES = (
    lambda params, batch_size: 2 * params,
    Mistake("the weights are left out. Every step reads them.", lambda params, b: 0),
    Mistake("the weights once per sequence. The batch shares them.",
            lambda params, b: 2 * b * params),
    Mistake("weights of one byte. In bfloat16 a number takes two.", lambda params, b: params),
    Mistake("weights of four bytes. In bfloat16 it is two.", lambda params, b: 4 * params),
)  # fmt: skip
CACHE_READS = (
    lambda g, batch_size: 1,
    Mistake("the cache of one sequence. Each sequence has its own.", lambda g, b: 1 / b),
    Mistake("the cache is read once for each query head. A group reads its keys once.",
            lambda g, b: g.n_heads / g.n_kv_heads),
    Mistake("the cache is not among the bytes. All of it is read.", lambda g, b: 0),
    Mistake("the cache twice. kv_cache_bytes has keys and values.", lambda g, b: 2),
)  # fmt: skip
CORES = (
    lambda g: g.n_layers * g.n_heads * 2 * g.head_dim,
    Mistake("the core goes by the KV heads. Every query head multiplies with keys.",
            lambda g: g.n_layers * g.n_kv_heads * 2 * g.head_dim),
    Mistake("d_model for n_heads * head_dim in the core.",
            lambda g: g.n_layers * 2 * g.d_model),
    Mistake("the core is left out. Scores and mixing are arithmetic.", lambda g: 0),
    Mistake("scores without mixing, or the other way round. The core is both.",
            lambda g: g.n_layers * g.n_heads * g.head_dim),
    Mistake("the core of one layer instead of all.", lambda g: g.n_heads * 2 * g.head_dim),
)  # fmt: skip
FLOPS = (  # of the weights and of the core
    lambda params, core, b: (2 * b * params, 2 * b * core),
    Mistake("a multiply-add counts as one FLOP. It is two, a product and a sum.",
            lambda params, core, b: (b * params, b * core)),
    Mistake("the arithmetic of one sequence. Each has its own new token.",
            lambda params, core, b: (2 * params, 2 * core)),
    Mistake("the core's arithmetic alone. Each weight meets each new token, too.",
            lambda params, core, b: (0, 2 * b * core)),
    Mistake("the core's arithmetic of one sequence. Each new token sees a cache.",
            lambda params, core, b: (2 * b * params, 2 * core)),
)  # fmt: skip
LAYERS = (
    lambda g: 1,
    Mistake("the layers twice. attention_params counts them all.", lambda g: g.n_layers),
)
UNITS = (
    lambda seconds, batch_size: seconds,
    Mistake("milliseconds, not seconds.", lambda seconds, b: 1e3 * seconds),
    Mistake("microseconds, not seconds.", lambda seconds, b: 1e6 * seconds),
    Mistake("the share of one sequence, not the whole step.", lambda seconds, b: seconds / b),
    Mistake("steps per second, not seconds per step.", lambda seconds, b: 1 / seconds),
)
PARTS = (JOINS, WEIGHT_BYTES, CACHE_READS, CORES, FLOPS, LAYERS, UNITS)


def floor(
    join: Callable,
    weight_bytes: Callable,
    cache_reads: Callable,
    core: Callable,
    flops: Callable,
    n_layers: Callable,
    unit: Callable,
) -> Callable[..., float]:
    """An answer made of seven parts."""

    def seconds(
        g: Geometry,
        tokens: int,
        batch_size: int,
        bytes_per_second: float,
        flops_per_second: float,
    ) -> float:
        params = attention_params(g) * n_layers(g)
        cache = kv_cache_bytes(g, tokens, batch_size=batch_size) * cache_reads(g, batch_size)
        read = weight_bytes(params, batch_size), cache
        calculated = flops(params, core(g) * tokens, batch_size)
        times = [
            time
            for part in zip(read, calculated, strict=True)
            for time in (part[0] / bytes_per_second, part[1] / flops_per_second)
        ]
        return unit(join(*times), batch_size)

    return seconds


right_floor = floor(*(part[0] for part in PARTS))

FLOOR = Exercise(
    answer=right_floor,
    cases={
        "Llama-3 8B on a CPU": (MODELS["Llama-3 8B"].geometry, 8192, 1, 36e9, 195e9),
        "Falcon 7B on a CPU": (MODELS["Falcon 7B"].geometry, 8192, 1, 36e9, 195e9),
        "16 sequences, H100": (MODELS["Llama-3 8B"].geometry, 8192, 16, 3.35e12, 989e12),
        "Falcon 7B, H100": (MODELS["Falcon 7B"].geometry, 2048, 1, 3.35e12, 989e12),
        "slow arithmetic": (MODELS["Qwen3-4B"].geometry, 2048, 64, 3.35e12, 2e11),
    },
    mistakes=[
        *combined(floor, *PARTS),
        Mistake(
            "the two rates are exchanged. Bytes go by bytes_per_second.",
            lambda g, tokens, batch_size, bytes_per_second, flops_per_second: right_floor(
                g, tokens, batch_size, flops_per_second, bytes_per_second
            ),
        ),
    ],
)


def grade_floor(function: Callable[[Geometry, int, int, float, float], float]) -> Grade:
    """Grade the least time of a decode step (Measure it yourself).

    Args:
        function: takes ``(geometry, tokens, batch_size, bytes_per_second, flops_per_second)``;
            the geometry has neither windows nor latents; returns seconds for weights and cache
            in bfloat16.

    Returns:
        The grade.
    """
    return FLOOR.grade(function)
