"""Measure one layer of each variant, beside the time that its FLOPs and bytes allow.

``python -m attnlib.bench`` measures how fast this machine reads memory and multiplies matrices,
then times decode steps and prefills of MHA, GQA, MQA and MLA over context lengths. Each time
stands beside its floor: the larger of bytes / bandwidth and FLOPs / rate of the same run. Where
transformers is installed, its layers of the same sizes are timed in the same rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.checks import check_size
from attnlib.costs import Geometry, decode_cost, prefill_cost, roofline_seconds
from attnlib.rope import Rope
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.mha import MultiHeadAttention
from attnlib.variants.mla import MultiHeadLatentAttention
from attnlib.variants.mqa import MultiQueryAttention

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
SDPA = "aten::_scaled_dot_product_"  # what the names of all its backends begin with


class Rates(NamedTuple):
    """What a machine did at best, in this run.

    Attributes:
        bytes_per_second: reading more memory than its caches hold.
        flops_per_second: multiplying two large square matrices.
        device: where.
        dtype: of the numbers read and multiplied.
        threads: of the CPU.
        read_bytes: size of the memory read.
        matmul_size: rows and columns of the matrices.
    """

    bytes_per_second: float
    flops_per_second: float
    device: str
    dtype: str
    threads: int
    read_bytes: int
    matmul_size: int


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        variant: "MHA", "GQA", "MQA" or "MLA".
        code: "attnlib", "transformers", or "parts": a prefill's projections and one call of
            ``scaled_dot_product_attention`` on tensors that lie ready, and nothing else.
        phase: "decode" (one new token) or "prefill".
        tokens: that the newest token sees, itself included.
        batch_size: sequences.
        seconds: median over the rounds.
        low: first quartile, in seconds.
        high: third quartile, in seconds.
        floor_seconds: the larger of bytes / bandwidth and FLOPs / rate.
        flops: least FLOPs that the step takes.
        n_bytes: weights and cache, each read once.
        backend: of ``scaled_dot_product_attention``, as the profiler saw it run.
        peak_bytes: most that the call held at once beyond what was there before.
        graph: whether a CUDA graph was replayed.
    """

    variant: str
    code: str
    phase: str
    tokens: int
    batch_size: int
    seconds: float
    low: float
    high: float
    floor_seconds: float
    flops: int
    n_bytes: int
    backend: str = ""
    peak_bytes: int = 0
    graph: bool = False

    @property
    def ratio(self) -> float:
        """How many times its floor the step took."""
        return self.seconds / self.floor_seconds


class Allocated(NamedTuple):
    """What a call took from the allocator.

    Attributes:
        held: bytes still taken when the call had returned, its result included.
        peak: most bytes taken at once during the call.
    """

    held: int
    peak: int


@dataclass
class Call:
    """Something to time, and how to make ready for the next time."""

    variant: str
    code: str
    run: Callable[[], object]
    rewind: Callable[[], object] = lambda: None
    graph: Callable[[], object] | None = None  # replays ``run``; timed in its place
    seconds: list[float] = field(default_factory=list)


def geometries(
    d_model: int = 2048,
    n_heads: int = 16,
    n_kv_heads: int = 4,
    *,
    kv_lora_rank: int = 512,
    qk_rope_head_dim: int = 64,
) -> dict[str, Geometry]:
    """One layer of each variant, all of one width and one number of query heads.

    Args:
        d_model: width of the residual stream.
        n_heads: query heads, H, which divides ``d_model``.
        n_kv_heads: key/value heads of GQA, more than 1 and fewer than H.
        kv_lora_rank: width of MLA's latent, d_c.
        qk_rope_head_dim: width of MLA's shared rotary key, d_h^R.

    Returns:
        Geometries by the names "MHA", "GQA", "MQA" and "MLA".

    Raises:
        ValueError: if a size is below 1, ``n_heads`` does not divide ``d_model``, or
            ``n_kv_heads`` does not make a GQA.
    """
    check_size("n_heads", n_heads)
    if check_size("d_model", d_model) % n_heads:
        raise ValueError(f"d_model must be a multiple of n_heads = {n_heads}, got {d_model}")
    if not 1 < check_size("n_kv_heads", n_kv_heads) < n_heads:
        raise ValueError(
            f"n_kv_heads must lie between 1 and n_heads = {n_heads}, got {n_kv_heads}"
        )
    head_dim = d_model // n_heads

    def heads(n: int, **latent: int) -> Geometry:
        return Geometry(1, n_heads, n, head_dim, d_model=d_model, **latent)

    latent = {"kv_lora_rank": kv_lora_rank, "qk_rope_head_dim": qk_rope_head_dim}
    return {
        "MHA": heads(n_heads),
        "GQA": heads(n_kv_heads),
        "MQA": heads(1),
        "MLA": heads(n_heads, **latent),
    }


def build_layer(
    geometry: Geometry,
    *,
    rope: Rope | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Build attnlib's layer of a geometry, with random weights, for inference.

    A window of the geometry is left out: the layers here see all tokens they are given.

    Args:
        geometry: the sizes; ``d_model`` must be among them.
        rope: how positions rotate; ``None`` means not at all, and the default for MLA, which
            has a rotary part in any case.
        dtype: of the weights; ``None`` means torch's default.
        device: of the weights; ``None`` means torch's default.

    Returns:
        The layer, in eval mode, whose weights want no gradients.

    Raises:
        ValueError: if the geometry has no ``d_model``, or is one that no layer here has: biases
            of only one kind, norms of queries and keys, or, but for MLA, values of another
            width than keys.
    """
    g = geometry
    if g.d_model is None:
        raise ValueError(f"geometry must have a d_model to build a layer from, got {g}")
    if g.qk_norm or g.qkv_bias != g.o_bias:
        raise ValueError(f"geometry must have no qk_norm and equal biases, got {g}")
    if g.variant != "MLA" and g.v_head_dim != g.head_dim:
        raise ValueError(f"geometry must have v_head_dim = head_dim but for MLA, got {g}")
    if g.variant == "MLA":
        widths = {
            "kv_lora_rank": g.kv_lora_rank,
            "qk_nope_head_dim": g.head_dim,
            "qk_rope_head_dim": g.qk_rope_head_dim,
            "v_head_dim": g.v_head_dim,
            "q_lora_rank": g.q_lora_rank,
        }
        layer = MultiHeadLatentAttention(g.d_model, g.n_heads, **widths, rope=rope or Rope())
    else:
        options = {"head_dim": g.head_dim, "bias": g.o_bias, "rope": rope}
        if g.variant == "MHA":
            layer = MultiHeadAttention(g.d_model, g.n_heads, **options)
        elif g.variant == "MQA":
            layer = MultiQueryAttention(g.d_model, g.n_heads, **options)
        else:
            layer = GroupedQueryAttention(g.d_model, g.n_heads, g.n_kv_heads, **options)
    return layer.to(device=device, dtype=dtype).eval().requires_grad_(False)


def timed(
    function: Callable[[], object], device: torch.device | str, *, settle: bool = True
) -> float:
    """Return the seconds that one call takes, on the device's own clock.

    Args:
        function: what to call.
        device: "cpu", or "cuda", whose events are then the clock.
        settle: whether a GPU finishes earlier work first; the time then includes launching.

    Returns:
        Seconds.
    """
    if torch.device(device).type == "cuda":
        if settle:
            torch.cuda.synchronize(device)  # launches do not hide behind earlier work
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def machine_rates(
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    read_bytes: int | None = None,
    matmul_size: int | None = None,
    repeats: int = 15,
) -> Rates:
    """Measure how fast this machine reads memory and multiplies matrices, now.

    Args:
        device: "cpu" or "cuda".
        dtype: of the numbers.
        read_bytes: memory to read, in bytes; more than the caches hold. ``None`` means 512 MiB,
            on a GPU 2 GiB.
        matmul_size: rows and columns of the matrices; ``None`` means 2,048, on a GPU 8,192.
        repeats: the best of so many counts.

    Returns:
        The rates.

    Raises:
        ValueError: if a size is below 1, or the device is not there.
    """
    check_device(device)
    cuda = torch.device(device).type == "cuda"
    read_bytes = check_size("read_bytes", read_bytes or (2**31 if cuda else 2**29))
    size = check_size("matmul_size", matmul_size or (8192 if cuda else 2048))
    check_size("repeats", repeats)
    numbers = torch.ones(-(-read_bytes // 8) * 8 // dtype.itemsize, dtype=dtype, device=device)
    words = numbers.view(torch.float32)  # the same memory; some dtypes are slow to add
    reads = (numbers.sum, words.sum, lambda: torch.dot(words, words), words.max)
    read = min(timed(call, device) for _ in range(repeats) for call in reads)
    a = torch.randn(size, size, device=device).to(dtype)
    product = min(timed(lambda: a @ a, device) for _ in range(repeats))
    rates = numbers.nbytes / read, 2 * size**3 / product
    names = str(device), str(dtype).removeprefix("torch.")
    return Rates(*rates, *names, torch.get_num_threads(), numbers.nbytes, size)


def allocated(
    function: Callable[[], object], *, device: torch.device | str = "cpu"
) -> Allocated:
    """Ask the allocator what a call takes.

    On the CPU the profiler notes each request with its exact size. CUDA's allocator counts
    blocks, whose sizes are multiples of 512 bytes.

    Args:
        function: what to call; its result is kept until the count is made.
        device: whose memory counts: "cpu" or "cuda".

    Returns:
        Bytes held after the call and at its peak, beyond those held before.
    """
    if torch.device(device).type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = function()
        held = torch.cuda.memory_allocated(device) - before
        peak = torch.cuda.max_memory_allocated(device) - before
        del result
        return Allocated(held, peak)
    with profiled(profile_memory=True) as profile:
        result = function()
    del result
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return Allocated(held, peak)


def sdpa_backend(function: Callable[[], object]) -> str:
    """Name the backend of ``scaled_dot_product_attention`` that a call really runs.

    Args:
        function: what to call, once, under the profiler.

    Returns:
        The backend's operator without its common beginning, such as
        "flash_attention_for_cpu" or "attention_math"; several are joined by "+", and "none"
        means that the call never came there.
    """
    with profiled() as profile:
        function()
    names = {event.key for event in profile.key_averages() if event.key.startswith(SDPA)}
    return "+".join(sorted(name.removeprefix(SDPA) for name in names)) or "none"


@contextmanager
def profiled(**options) -> Iterator[torch.profiler.profile]:
    """Run torch's profiler on the CPU, without the lines that it may write to stderr itself.

    Args:
        options: of :class:`torch.profiler.profile`.

    Yields:
        The profile, to be read after the block.
    """
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, **options) as profile:
            yield profile
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


def measure_decode(
    geometries: Mapping[str, Geometry],
    tokens: Sequence[int],
    *,
    rates: Rates,
    batch_size: int = 1,
    steps: int = 15,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    compare: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Time decode steps: one new token, whose cache is full but for its own place.

    The variants take turns, round by round, and each step begins with cold caches of the
    processor, as in a model whose other layers have run since.

    Args:
        geometries: by variant, of one layer each, such as :func:`geometries` returns.
        tokens: context lengths; the new token sees so many, itself included.
        rates: of this machine, from :func:`machine_rates`.
        batch_size: sequences.
        steps: rounds; the median counts.
        dtype: of weights and caches.
        device: "cpu" or "cuda".
        compare: whether to time transformers' layers of the same sizes as well.
        progress: called with a line of text now and then.

    Returns:
        A row for each context length, variant and code; on a GPU, another for attnlib's step
        replayed as a CUDA graph, where it can be recorded.

    Raises:
        ValueError: if a number is below 1, a geometry has a window or several layers, the
            device is not there, or ``compare`` is asked for without transformers.
    """
    check_plan(geometries, tokens, batch_size, steps, device, compare)
    rows = []
    for S in tokens:
        calls = []
        for variant, geometry in geometries.items():
            layer = build_layer(geometry, rope=Rope(), dtype=dtype, device=device)
            x = torch.randn(batch_size, 1, geometry.d_model).to(device, dtype)
            step, rewind = decode_step(geometry, layer, x, S)
            calls.append(Call(variant, "attnlib", step, rewind))
            graph = graphed(step, rewind) if str(device) == "cuda" else None
            if graph is not None:
                calls.append(Call(variant, "attnlib", step, rewind, graph))
            if compare:
                step, rewind = their_decode_step(geometry, layer, x, S)
                calls.append(Call(variant, "transformers", step, rewind))
        rows += time_calls(calls, "decode", S, geometries, rates, batch_size, steps, dtype,
                           device, progress)  # fmt: skip
    return rows


def measure_prefill(
    geometries: Mapping[str, Geometry],
    tokens: Sequence[int],
    *,
    rates: Rates,
    batch_size: int = 1,
    steps: int = 5,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    compare: bool = False,
    parts: bool = False,
    progress: Callable[[str], None] | None = None,
) -> list[Row]:
    """Time prefills: all tokens at once, into an empty cache.

    Args:
        geometries: by variant, of one layer each, such as :func:`geometries` returns.
        tokens: lengths of the prompt.
        rates: of this machine, from :func:`machine_rates`.
        batch_size: sequences.
        steps: rounds; the median counts.
        dtype: of weights and caches.
        device: "cpu" or "cuda".
        compare: whether to time transformers' layers of the same sizes as well.
        parts: whether to time the projections and one fused call of attention alone as well.
        progress: called with a line of text now and then.

    Returns:
        A row for each length, variant and code.

    Raises:
        ValueError: if a number is below 1, a geometry has a window or several layers, the
            device is not there, or ``compare`` is asked for without transformers.
    """
    check_plan(geometries, tokens, batch_size, steps, device, compare)
    rows = []
    for T in tokens:
        calls = []
        for variant, geometry in geometries.items():
            layer = build_layer(geometry, rope=Rope(), dtype=dtype, device=device)
            x = torch.randn(batch_size, T, geometry.d_model).to(device, dtype)
            cache = layer.new_cache(batch_size, T)
            calls.append(Call(variant, "attnlib", partial(layer, x, cache), cache.reset))
            if compare:
                calls.append(Call(variant, "transformers", their_prefill(geometry, layer, x)))
            if parts:
                calls.append(Call(variant, "parts", prefill_parts(geometry, layer, x)))
        rows += time_calls(calls, "prefill", T, geometries, rates, batch_size, steps, dtype,
                           device, progress)  # fmt: skip
    return rows


def check_plan(geometries, tokens, batch_size, steps, device, compare) -> None:
    """Check what is asked of a measurement, before anything is built.

    Args:
        geometries: by variant; one layer each.
        tokens: lengths, each at least 1.
        batch_size: at least 1.
        steps: at least 1.
        device: "cpu", or "cuda" where there is a GPU.
        compare: whether transformers is needed.

    Raises:
        ValueError: if a number is below 1, a geometry has a window or several layers, the
            device is not there, or transformers is needed and not installed.
    """
    check_device(device)
    check_size("batch_size", batch_size)
    check_size("steps", steps)
    for S in tokens:
        check_size("tokens", S)
    for variant, geometry in geometries.items():
        if geometry.n_layers != 1:
            raise ValueError(
                f"geometries must have one layer each, got {geometry.n_layers} in {variant}"
            )
        if geometry.n_window_layers:
            raise ValueError(
                f"geometries must have no window, got {geometry.window} in {variant}"
            )
    if compare and find_spec("transformers") is None:
        raise ValueError("compare must be False where transformers is not installed, got True")


def check_device(device: torch.device | str) -> None:
    """Check that something can be measured there.

    Args:
        device: "cpu" or "cuda"; of several GPUs, the current one.

    Raises:
        ValueError: if it is another device, or there is no GPU.
    """
    if str(device) not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device}")
    if str(device) == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be cpu where torch finds no GPU, got cuda")


@torch.no_grad()
def time_calls(calls, phase, tokens, geometries, rates, batch_size, steps, dtype, device,
               progress) -> list[Row]:  # fmt: skip
    """Time calls that take turns, and set each beside its floor.

    Args:
        calls: what to time; each is called twice before, to warm up and to be looked at.
        phase: "decode" or "prefill".
        tokens: context length, or length of the prompt.
        geometries: by variant.
        rates: of the machine.
        batch_size: sequences.
        steps: rounds.
        dtype: of weights and caches.
        device: where.
        progress: called with a line of text, or ``None``.

    Returns:
        A row for each call.
    """
    say = progress or (lambda line: None)
    looks = []
    for call in calls:
        peak = allocated(call.run, device=device).peak
        call.rewind()
        looks.append({"backend": sdpa_backend(call.run), "peak_bytes": peak})
        call.rewind()
    for i in range(steps):
        say(f"{phase}, {tokens:,} tokens, round {i + 1} of {steps}")
        for call in calls:
            evict_caches(device)
            if call.graph is None:
                call.seconds.append(timed(call.run, device))
            else:  # the graph waits behind the eviction, so that its launch is not timed
                call.seconds.append(timed(call.graph, device, settle=False))
            call.rewind()
    rows = []
    for call, look in zip(calls, looks, strict=True):
        cost = (decode_cost if phase == "decode" else prefill_cost)(
            geometries[call.variant], tokens, batch_size=batch_size, dtype=dtype
        )
        floor = roofline_seconds(
            cost.flops,
            cost.bytes,
            bytes_per_second=rates.bytes_per_second,
            flops_per_second=rates.flops_per_second,
        )
        look["graph"] = call.graph is not None
        what = call.variant, call.code, phase, tokens, batch_size
        rows.append(Row(*what, *quartiles(call.seconds), floor, cost.flops, cost.bytes, **look))
    return rows


def quartiles(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Return median, first and third quartile.

    Args:
        seconds: at least one number.

    Returns:
        The three numbers.
    """
    if len(seconds) == 1:
        return (seconds[0],) * 3
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return median, low, high


@cache
def ballast(device: str) -> Tensor:
    """Memory that is larger than the processor's caches; allocated once for each device.

    Args:
        device: where.

    Returns:
        A tensor of 128 MiB; on a GPU of 1 GiB, whose reading outlasts the launch of a graph.
    """
    return torch.ones(2**28 if device.startswith("cuda") else 2**25, device=device)


def evict_caches(device: torch.device | str) -> None:
    """Read more memory than the processor's caches hold, so that the next step is cold.

    Args:
        device: where.
    """
    ballast(str(device)).sum()


def decode_step(
    geometry: Geometry, layer: nn.Module, x: Tensor, tokens: int
) -> tuple[Callable[[], Tensor], Callable[[], None]]:
    """Make a decode step of attnlib's layer, and what takes its token back.

    Args:
        geometry: of the layer.
        layer: one of attnlib's.
        x: hidden state of the new token, shape ``(B, 1, d_model)``.
        tokens: that the new token sees, itself included.

    Returns:
        ``(step, rewind)``.
    """
    cache = layer.new_cache(len(x), tokens)
    if tokens > 1:  # what a prefill would have stored, but random
        cache.update(*random_entries(geometry, x, tokens - 1))

    def rewind() -> None:
        cache.length = tokens - 1

    return partial(layer, x, cache), rewind


def random_entries(geometry: Geometry, x: Tensor, tokens: int) -> list[Tensor]:
    """Make random numbers of the shapes that a layer caches.

    Args:
        geometry: of the layer.
        x: hidden states, for batch size, dtype and device.
        tokens: how many to make entries for.

    Returns:
        What ``update`` of the layer's cache takes: keys and values, or MLA's rows.
    """
    B, like = len(x), {"dtype": x.dtype, "device": x.device}
    if geometry.variant == "MLA":
        width = geometry.kv_lora_rank + geometry.qk_rope_head_dim
        return [torch.randn(B, tokens, width, **like)]
    shape = (B, geometry.n_kv_heads, tokens, geometry.head_dim)
    return [torch.randn(shape, **like) for _ in ("keys", "values")]


def graphed(
    step: Callable[[], object], rewind: Callable[[], None]
) -> Callable[[], object] | None:
    """Record a step as a CUDA graph, so that the processor launches it as one.

    A graph replays the same kernels on the same memory. A decode step may be recorded since its
    cache is rewound each time: the new token always goes to the same place.

    Args:
        step: what to record.
        rewind: what undoes it.

    Returns:
        A function that replays the graph; ``None`` where the step cannot be recorded.
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):  # libraries settle what they do only once
        for _ in range(3):
            step()
            rewind()
    torch.cuda.current_stream().wait_stream(stream)
    try:
        with torch.no_grad(), torch.cuda.graph(graph):
            step()
    except RuntimeError:  # an operation that waits for the GPU, or a driver without graphs
        return None
    finally:
        rewind()
    return graph.replay


def their_layer(
    geometry: Geometry, layer: nn.Module, tokens: int
) -> tuple[nn.Module, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]]:
    """Build transformers' attention layer of the same sizes and weights.

    Args:
        geometry: of one layer.
        layer: attnlib's layer of that geometry, whose weights are taken.
        tokens: positions that the configuration allows.

    Returns:
        ``(layer, rotary)``: Llama's or DeepSeek-V3's attention with the SDPA backend, and what
        makes cosines and sines of ``(x, positions)``.
    """
    g = geometry
    options = {
        "hidden_size": g.d_model,
        "num_attention_heads": g.n_heads,
        "num_key_value_heads": g.n_kv_heads,
        "max_position_embeddings": tokens,
        "attn_implementation": "sdpa",
    }
    if g.variant == "MLA":
        from transformers import DeepseekV3Config as Config
        from transformers.models.deepseek_v3 import modeling_deepseek_v3 as theirs

        kind, rotary = theirs.DeepseekV3Attention, theirs.DeepseekV3RotaryEmbedding
        options |= {
            "q_lora_rank": g.q_lora_rank,
            "kv_lora_rank": g.kv_lora_rank,
            "qk_nope_head_dim": g.head_dim,
            "qk_rope_head_dim": g.qk_rope_head_dim,
            "v_head_dim": g.v_head_dim,
            "rope_interleave": False,
        }
    else:
        from transformers import LlamaConfig as Config
        from transformers.models.llama import modeling_llama as theirs

        kind, rotary = theirs.LlamaAttention, theirs.LlamaRotaryEmbedding
        options |= {"head_dim": g.head_dim, "attention_bias": g.o_bias}
    config = Config(**options)
    weight = layer.o_proj.weight
    module = kind(config, layer_idx=0).to(weight.device, weight.dtype)
    module.load_state_dict(layer.state_dict())
    return module.eval().requires_grad_(False), rotary(config).to(weight.device)


def their_decode_step(
    geometry: Geometry, layer: nn.Module, x: Tensor, tokens: int
) -> tuple[Callable[[], object], Callable[[], None]]:
    """Make a decode step of transformers' layer, and what takes its token back.

    Cosines and sines are made beforehand, since there all layers of a model share them.

    Args:
        geometry: of the layer.
        layer: attnlib's layer, whose weights are taken.
        x: hidden state of the new token, shape ``(B, 1, d_model)``.
        tokens: that the new token sees, itself included.

    Returns:
        ``(step, rewind)``.
    """
    from transformers import DynamicCache

    module, rotary = their_layer(geometry, layer, tokens)
    where = rotary(x, torch.full((len(x), 1), tokens - 1, device=x.device))
    cache = DynamicCache()
    if tokens > 1:
        module(x, where, None, past_key_values=cache)  # to learn the shapes that it stores
        stored = cache.layers[0].keys, cache.layers[0].values
        cache = DynamicCache()
        past = [t.new_empty(*t.shape[:2], tokens - 1, t.shape[3]).normal_() for t in stored]
        cache.update(*past, 0)
    return partial(module, x, where, None, past_key_values=cache), lambda: cache.crop(-1)


def their_prefill(geometry: Geometry, layer: nn.Module, x: Tensor) -> Callable[[], object]:
    """Make a prefill of transformers' layer into a new cache.

    Args:
        geometry: of the layer.
        layer: attnlib's layer, whose weights are taken.
        x: hidden states, shape ``(B, T, d_model)``.

    Returns:
        The prefill.
    """
    from transformers import DynamicCache

    module, rotary = their_layer(geometry, layer, x.shape[1])
    where = rotary(x, torch.arange(x.shape[1], device=x.device).expand(len(x), -1))
    return lambda: module(x, where, None, past_key_values=DynamicCache())


def prefill_parts(geometry: Geometry, layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Make the least that a prefill can be: its projections and one fused call of attention.

    Queries, keys and values of all heads lie ready and contiguous, MLA's values filled up with
    zeros to the keys' width, as the CPU's fused kernel wants them.

    Args:
        geometry: of the layer.
        layer: attnlib's layer, whose projections are used.
        x: hidden states, shape ``(B, T, d_model)``.

    Returns:
        The call.
    """
    g, like = geometry, {"dtype": x.dtype, "device": x.device}
    D = g.head_dim + (g.qk_rope_head_dim or 0)
    q, k, v = (torch.randn(len(x), g.n_heads, x.shape[1], D, **like) for _ in "qkv")
    merged = torch.randn(*x.shape[:2], g.n_heads * g.v_head_dim, **like)
    inputs = {
        "q_b_proj": g.q_lora_rank,
        "kv_b_proj": g.kv_lora_rank,
        "o_proj": g.n_heads * g.v_head_dim,
    }
    products = []
    for name, module in layer.named_children():
        if isinstance(module, nn.Linear):
            narrow = torch.randn(*x.shape[:2], inputs.get(name) or g.d_model, **like)
            products.append(partial(module, merged if name == "o_proj" else narrow))

    def call() -> Tensor:
        for product in products:
            product()
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return call


def provenance(device: torch.device | str, dtype: torch.dtype) -> dict[str, object]:
    """Say where and with what numbers came about, without naming the machine.

    Args:
        device: "cpu" or "cuda".
        dtype: of weights and caches.

    Returns:
        Names and values, ready for JSON.
    """
    facts = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "device": str(device),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": version_of("transformers"),
        "attnlib": version_of("attnlib"),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    if torch.device(device).type == "cuda":
        gpu = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": gpu.name,
            "compute_capability": f"{gpu.major}.{gpu.minor}",
            "gpu_memory_bytes": gpu.total_memory,
            "cuda": torch.version.cuda,
        }
    return facts


def version_of(package: str) -> str | None:
    """Return the version of an installed package.

    Args:
        package: its name.

    Returns:
        The version, or ``None`` if it is not installed.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor_name() -> str:
    """Return what the system calls its processor.

    Returns:
        A name such as "AMD EPYC"; the architecture if there is no better one.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def table(rows: Sequence[Row]) -> str:
    """Write rows as a table of plain text.

    Args:
        rows: from :func:`measure_decode` and :func:`measure_prefill`.

    Returns:
        A line for each row, below a line of headings; times in milliseconds.
    """
    head = ["phase", "tokens", "variant", "code", "ms", "quartiles", "floor", "x floor", "peak"]
    lines = [[*head, "SDPA backend"]]
    for row in rows:
        low, high, ms, floor = (
            1000 * t for t in (row.low, row.high, row.seconds, row.floor_seconds)
        )
        code = row.code + (" (graph)" if row.graph else "")
        lines.append([row.phase, f"{row.tokens:,}", row.variant, code, f"{ms:.2f}",
                      f"{low:.2f} to {high:.2f}", f"{floor:.2f}", f"{row.ratio:.2f}",
                      f"{row.peak_bytes / 2**20:,.1f} MiB", row.backend])  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    left = (0, 2, 3, 9)
    return "\n".join(
        "  ".join(
            text.ljust(width) if i in left else text.rjust(width)
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def rankings(rows: Sequence[Row]) -> dict[int, tuple[list[str], list[str]]]:
    """Compare the order of the variants that the floors predict with the one measured.

    Args:
        rows: of one phase; only attnlib's count, and those of a CUDA graph where there are
            such.

    Returns:
        For each context length ``(predicted, measured)``: variants, the slowest first.
    """
    graphs = any(row.graph for row in rows)
    mine = [row for row in rows if row.code == "attnlib" and row.graph == graphs]

    def slowest_first(tokens: int, key: str) -> list[str]:
        some = [row for row in mine if row.tokens == tokens]
        return [row.variant for row in sorted(some, key=lambda row: -getattr(row, key))]

    return {
        tokens: (slowest_first(tokens, "floor_seconds"), slowest_first(tokens, "seconds"))
        for tokens in dict.fromkeys(row.tokens for row in mine)
    }


def numbers(text: str) -> list[int]:
    """Read whole numbers with commas between them, as the command line has them.

    Args:
        text: such as "2048,8192".

    Returns:
        The numbers.
    """
    return [int(part) for part in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark: progress to stderr, a table to stdout, everything to a JSON file.

    Args:
        arguments: of the command line; ``None`` takes the program's own.
    """
    parser = argparse.ArgumentParser(
        prog="python -m attnlib.bench", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--dtype", default="float32", choices=DTYPES)
    add("--tokens", type=numbers, help="context lengths of decode, such as 2048,8192,32768")
    add("--prefill", type=numbers, help="lengths of prompts, such as 512,2048")
    add("--batch-size", type=int, default=1)
    add("--steps", type=int, default=15, help="rounds; medians count")
    add("--quick", action="store_true", help="small layers and short contexts")
    add("--no-compare", action="store_true", help="leave transformers out")
    add("--json", type=Path, metavar="FILE", help="where to write all numbers")
    run(parser.parse_args(arguments))


def summary(rates: Rates, later: Rates, rows: Sequence[Row]) -> str:
    """Write what a whole run found, for the terminal.

    Args:
        rates: of the machine, which the floors go by.
        later: the same, measured again when all was done.
        rows: all measurements.

    Returns:
        Rates, table, and the order of the variants at each context length.
    """
    lines = [
        f"{when}: read {measured.bytes_per_second / 1e9:.1f} GB/s,"
        f" multiply {measured.flops_per_second / 1e9:.1f} GFLOP/s"
        for when, measured in (("rates of the floors", rates), ("rates afterwards", later))
    ]
    lines.append(table(rows))
    decode = [row for row in rows if row.phase == "decode"]
    for tokens, (predicted, measured) in rankings(decode).items():
        lines.append(
            f"decode, {tokens:,} tokens, slowest first: predicted {', '.join(predicted)};"
            f" measured {', '.join(measured)}"
        )
        floors = {row.variant: row.floor_seconds for row in decode if row.tokens == tokens}
        for slow, fast in pairwise(predicted):
            if floors[slow] < 1.1 * floors[fast]:
                lines.append(f"  (the floors of {slow} and {fast} differ by less than 10 %)")
    return "\n".join(lines)


def run(options: argparse.Namespace) -> None:
    """Measure what the command line asks for.

    Args:
        options: as parsed.
    """

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    dtype, device = DTYPES[options.dtype], options.device
    layers = geometries(256, 4, 2, kv_lora_rank=64, qk_rope_head_dim=16) if options.quick else (
        geometries())  # fmt: skip
    contexts = options.tokens or ([256, 1024] if options.quick else [2048, 8192, 32768])
    prompts = options.prefill or ([128] if options.quick else [512, 2048])
    compare = not options.no_compare and find_spec("transformers") is not None
    say("read bandwidth and matmul rate of this machine")
    rates = machine_rates(device=device, dtype=dtype)
    plan = {"rates": rates, "batch_size": options.batch_size, "dtype": dtype, "device": device,
            "compare": compare, "progress": say}  # fmt: skip
    rows = measure_decode(layers, contexts, steps=options.steps, **plan)
    fewer = max(1, options.steps // 3)
    rows += measure_prefill(layers, prompts, steps=fewer, parts=True, **plan)
    later = machine_rates(device=device, dtype=dtype)
    print(summary(rates, later, rows))
    if options.json:
        report = {
            "provenance": provenance(device, dtype),
            "rates": rates._asdict(),
            "rates_afterwards": later._asdict(),
            "geometries": {name: asdict(geometry) for name, geometry in layers.items()},
            "rows": [asdict(row) | {"ratio": row.ratio} for row in rows],
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
        say(f"wrote {options.json}")
