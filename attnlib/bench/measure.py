"""Time decode steps and prefills of every variant, and set each time beside its floor."""

from __future__ import annotations

import gc
import random
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib import variants
from attnlib.bench.baseline import BASELINES, baseline_decode_step, baseline_prefill
from attnlib.bench.machine import (
    Probes,
    Rates,
    Timing,
    allocated,
    check_device,
    evict_caches,
    sdpa_backend,
    timing,
    using_threads,
)
from attnlib.bench.stack import Stack, build_layers
from attnlib.checks import check_size
from attnlib.core import widen
from attnlib.costs import Geometry, decode_cost, prefill_cost
from attnlib.variants import Sizes

FILL_TOKENS = 4096  # entries that a cache gets at once while it is filled
T = TypeVar("T")
#: Makes the candidates of a layer, from the name of its geometry, the layer and a length.
Maker: TypeAlias = Callable[[str, nn.Module, int], "list[Candidate]"]


@dataclass(frozen=True)
class Row:
    """One measurement.

    Attributes:
        variant: name of the geometry that was measured, such as "MHA".
        code: "attnlib", "transformers", or "parts": a prefill's projections and one call of
            ``scaled_dot_product_attention`` on tensors that are ready, and nothing else.
        phase: "decode" (one new token) or "prefill".
        tokens: tokens that the newest one sees, itself included.
        batch_size: sequences.
        seconds: median over the rounds.
        low: first quartile, in seconds.
        high: third quartile, in seconds.
        floor_seconds: least time by :meth:`attnlib.costs.Cost.floor`, at the two rates below.
        flops: least FLOPs that the step takes.
        n_bytes: weights and cache, each read once.
        bytes_per_second: rate of reading, median over the same rounds or as given.
        flops_per_second: rate of multiplying, the same.
        rate_spread: third quartile over first of the rate that varied more.
        interrupted: share of the timed calls in which another program took a processor.
        threads: of the CPU.
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
    bytes_per_second: float
    flops_per_second: float
    rate_spread: float = 1.0
    interrupted: float = 0.0
    threads: int = 1
    backend: str = ""
    peak_bytes: int = 0
    graph: bool = False

    @property
    def ratio(self) -> float:
        """How many times its floor the step took."""
        return self.seconds / self.floor_seconds


@dataclass
class Candidate:
    """Something to time, and how to make ready for the next time.

    Attributes:
        variant: name of its geometry.
        code: as in :class:`Row`.
        run: what to time.
        rewind: undoes what ``run`` stored.
        graph: replays ``run``; timed instead of it.
        backend: as in :class:`Row`.
        peak_bytes: as in :class:`Row`.
        work: bytes or FLOPs, of what shows a rate of the machine.
        timings: one per round.
    """

    variant: str
    code: str
    run: Callable[[], object]
    rewind: Callable[[], object] = lambda: None
    graph: Callable[[], object] | None = None
    backend: str = ""
    peak_bytes: int = 0
    work: int = 0
    timings: list[Timing] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.variant}, {self.code}" + (" (graph)" if self.graph else "")


@dataclass(frozen=True)
class Plan:
    """What all measurements of one call share.

    Attributes:
        phase: "decode" or "prefill".
        geometries: by variant.
        rates: of the machine; ``None`` if they are measured in the same rounds.
        batch_size: sequences.
        steps: rounds.
        dtype: of weights and caches.
        device: where.
        threads: of the CPU; ``None`` leaves them as they are.
        progress: called with a line of text now and then, or ``None``.
        on_failure: called with a line of text for what failed, or ``None`` to raise.
    """

    phase: str
    geometries: Mapping[str, Geometry]
    rates: Rates | None
    batch_size: int
    steps: int
    dtype: torch.dtype
    device: torch.device | str
    threads: int | None = None
    progress: Callable[[str], object] | None = None
    on_failure: Callable[[str], object] | None = None

    def attempt(self, tokens: int, what: object, action: Callable[[], T]) -> T | None:
        """Return what an action returns; ``None`` if it failed and was reported.

        Args:
            tokens: context length, for the report.
            what: what is measured, for the report.
            action: to be tried.
        """
        try:
            return action()
        except Exception as error:
            if self.on_failure is None:
                raise
            reason = reason_of(error)
        free_memory(self.device)
        self.on_failure(
            f"{self.phase}, {tokens:,} tokens, batch {self.batch_size}, {what}: {reason}"
        )
        return None


def geometries(
    d_model: int = 2048,
    n_heads: int = 16,
    n_kv_heads: int = 4,
    *,
    kv_lora_rank: int = 512,
    qk_rope_head_dim: int = 64,
    window: int = 1024,
) -> dict[str, Geometry]:
    """Return one layer of each variant, all of one width and one number of query heads.

    Args:
        d_model: width of the residual stream.
        n_heads: query heads, H, which divides ``d_model``.
        n_kv_heads: KV heads of GQA, more than 1 and fewer than H.
        kv_lora_rank: width of MLA's latent, d_c.
        qk_rope_head_dim: width of MLA's shared rotary key, d_h^R.
        window: of sliding-window attention, W, in tokens.

    Returns:
        Geometries by name, in the order of :data:`attnlib.variants.VARIANTS`.

    Raises:
        ValueError: if a size is below 1, ``n_heads`` does not divide ``d_model``, or
            ``n_kv_heads`` does not make a GQA.
    """
    sizes = Sizes(d_model, n_heads, n_kv_heads, kv_lora_rank, qk_rope_head_dim, window)
    return variants.geometries(sizes)


def measure_decode(
    geometries: Mapping[str, Geometry],
    tokens: Sequence[int],
    *,
    rates: Rates | None = None,
    batch_size: int = 1,
    steps: int = 15,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    threads: int | None = 1,
    compare: bool = False,
    progress: Callable[[str], object] | None = None,
    on_failure: Callable[[str], object] | None = None,
) -> list[Row]:
    """Time decode steps: one new token, with one free slot for it in the cache.

    Variants and the two rates of the machine take turns, round by round and in random order.
    Each step begins with cold caches of the processor, as in a model whose other layers have
    run since. One thread is the default, since several wait for each other on a busy machine.

    Args:
        geometries: by name, such as :func:`geometries` returns; those of several layers run
            one after another.
        tokens: context lengths; the new token sees so many, itself included.
        rates: of this machine, from which the floors follow; ``None`` measures them in the same
            rounds, as medians.
        batch_size: sequences.
        steps: rounds; the median counts.
        dtype: of weights and caches.
        device: "cpu" or "cuda".
        threads: of the CPU; ``None`` leaves them as they are.
        compare: whether to time transformers' layers of the same sizes as well.
        progress: called with a line of text now and then.
        on_failure: called with a line of text for each measurement that fails, such as for lack
            of memory; it is left out, and the others go on. ``None`` raises its error.

    Returns:
        A row for each context length, variant and code; on a GPU, another for attnlib's step
        replayed as a CUDA graph, where it can be recorded.

    Raises:
        ValueError: if a number is below 1, a geometry has a window that its layer has not,
            there is no such device, or ``compare`` is True without transformers.
    """
    check_plan(geometries, tokens, batch_size, steps, device, compare)
    plan = Plan("decode", geometries, rates, batch_size, steps, dtype, device, threads,
                progress, on_failure)  # fmt: skip

    def own(name: str, layer: nn.Module, S: int) -> list[Candidate]:
        x = hidden_states(plan, name, 1)
        eager = probed(Candidate(name, "attnlib", *decode_step(layer, x, S)), device)
        if str(device) != "cuda":
            return [eager]
        try:
            graph = graphed(eager.run, eager.rewind)
        except RuntimeError as error:
            if progress is not None:
                progress(f"decode, {S:,} tokens, {eager}: no CUDA graph, {reason_of(error)}")
            return [eager]
        return [eager, replace(eager, graph=graph, timings=[])]

    def baseline(name: str, layer: nn.Module, S: int) -> list[Candidate]:
        if type(layer) not in BASELINES:
            return []
        x = hidden_states(plan, name, 1)
        step = baseline_decode_step(geometries[name], layer, x, S)
        return [probed(Candidate(name, "transformers", *step), device)]

    baselines = {"transformers": baseline} if compare else {}
    return measure(plan, tokens, {"attnlib": own, **baselines})


def measure_prefill(
    geometries: Mapping[str, Geometry],
    tokens: Sequence[int],
    *,
    rates: Rates | None = None,
    batch_size: int = 1,
    steps: int = 5,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    threads: int | None = 1,
    compare: bool = False,
    parts: bool = False,
    progress: Callable[[str], object] | None = None,
    on_failure: Callable[[str], object] | None = None,
) -> list[Row]:
    """Time prefills: all tokens at once, into an empty cache.

    Args:
        geometries: by name, such as :func:`geometries` returns; those of several layers run
            one after another.
        tokens: lengths of the prompt.
        rates: of this machine, from which the floors follow; ``None`` measures them in the same
            rounds, as medians.
        batch_size: sequences.
        steps: rounds; the median counts.
        dtype: of weights and caches.
        device: "cpu" or "cuda".
        threads: of the CPU; ``None`` leaves them as they are.
        compare: whether to time transformers' layers of the same sizes as well.
        parts: whether to time the projections and one fused call of attention alone as well.
        progress: called with a line of text now and then.
        on_failure: called with a line of text for each measurement that fails, such as for lack
            of memory; it is left out, and the others go on. ``None`` raises its error.

    Returns:
        A row for each length, variant and code.

    Raises:
        ValueError: if a number is below 1, a geometry has a window that its layer has not,
            there is no such device, or ``compare`` is True without transformers.
    """
    check_plan(geometries, tokens, batch_size, steps, device, compare)
    plan = Plan("prefill", geometries, rates, batch_size, steps, dtype, device, threads,
                progress, on_failure)  # fmt: skip

    def own(name: str, layer: nn.Module, n: int) -> list[Candidate]:
        x = hidden_states(plan, name, n)
        cache = layer.new_cache(batch_size, n)
        prefill = Candidate(name, "attnlib", partial(layer, x, cache), cache.reset)
        return [probed(prefill, device)]

    def baseline(name: str, layer: nn.Module, n: int) -> list[Candidate]:
        if type(layer) not in BASELINES:
            return []
        prefill = baseline_prefill(geometries[name], layer, hidden_states(plan, name, n))
        return [probed(Candidate(name, "transformers", prefill), device)]

    def least(name: str, layer: nn.Module, n: int) -> list[Candidate]:
        # with a window, one call over all tokens is not the least
        if isinstance(layer, Stack) or getattr(layer, "window", None) is not None:
            return []
        call = prefill_parts(layer, hidden_states(plan, name, n))
        return [probed(Candidate(name, "parts", call), device)]

    makers = {"attnlib": own}
    makers |= {"transformers": baseline} if compare else {}
    makers |= {"parts": least} if parts else {}
    return measure(plan, tokens, makers)


def check_plan(
    geometries: Mapping[str, Geometry],
    tokens: Iterable[int],
    batch_size: int,
    steps: int,
    device: torch.device | str,
    compare: bool,
) -> None:
    """Check what is to be measured, before anything is built.

    Args:
        geometries: by variant; of one layer or a few.
        tokens: lengths, each at least 1.
        batch_size: at least 1.
        steps: at least 1.
        device: "cpu", or "cuda" where there is a GPU.
        compare: whether transformers is needed.

    Raises:
        ValueError: if a number is below 1, a geometry has a window that its layer has not,
            there is no such device, or transformers is needed and not installed.
    """
    check_device(device)
    check_size("batch_size", batch_size)
    check_size("steps", steps)
    for n in tokens:
        check_size("tokens", n)
    for name, geometry in geometries.items():
        with torch.device("meta"):
            built = build_layers(geometry, dtype=None, device=None)
        parts = list(built.layers) if isinstance(built, Stack) else [built]
        windows = [w for layer in parts if (w := getattr(layer, "window", None)) is not None]
        if windows != [geometry.window] * geometry.n_window_layers:
            raise ValueError(f"geometries must have no window, got {geometry.window} in {name}")
    if compare and find_spec("transformers") is None:
        raise ValueError("compare must be False where transformers is not installed, got True")


@torch.no_grad()
def measure(plan: Plan, tokens: Sequence[int], makers: Mapping[str, Maker]) -> list[Row]:
    """Make the candidates of each length, let them take turns, and set each beside its floor.

    attnlib's own candidates are made first, so that a baseline never takes their memory.

    Args:
        plan: what is shared.
        tokens: context lengths, or lengths of prompts.
        makers: by code.

    Returns:
        A row for each candidate that did not fail.
    """
    layers = {
        name: build_layers(geometry, dtype=plan.dtype, device=plan.device)
        for name, geometry in plan.geometries.items()
    }
    rows = []
    with using_threads(plan.threads):
        # First, so that their memory is there when a cache takes what is left.
        probes = None if plan.rates else Probes(plan.device, plan.dtype)
        for n in tokens:
            rows += measure_length(plan, n, layers, makers, probes)
            free_memory(plan.device)
    return rows


def measure_length(
    plan: Plan,
    tokens: int,
    layers: Mapping[str, nn.Module],
    makers: Mapping[str, Maker],
    probes: Probes | None,
) -> list[Row]:
    """Measure all candidates of one length; their memory is free afterwards.

    Args:
        plan: what is shared.
        tokens: context length, or length of the prompt.
        layers: by variant.
        makers: by code.
        probes: of the machine's rates; ``None`` if the rates are given.

    Returns:
        A row for each candidate that did not fail.
    """
    candidates: list[Candidate] = []
    for code, make in makers.items():
        for name, layer in layers.items():
            made = plan.attempt(tokens, f"{name}, {code}", partial(make, name, layer, tokens))
            candidates += made or []
    candidates.sort(key=lambda candidate: list(layers).index(candidate.variant))
    jobs = () if probes is None else probe_candidates(probes)
    left = take_turns(plan, tokens, [*jobs, *candidates])
    pace = pace_of(plan.rates, jobs)
    return [row_of(plan, tokens, one, pace) for one in left if one.code != "rates"]


def take_turns(plan: Plan, tokens: int, candidates: Sequence[Candidate]) -> list[Candidate]:
    """Time candidates round by round, so that none has the machine's better minutes.

    Args:
        plan: what is shared.
        tokens: context length, or length of the prompt.
        candidates: what to time; they collect their times.

    Returns:
        Those that did not fail.
    """
    left = list(candidates)
    shuffled = random.Random(tokens)
    for i in range(plan.steps):
        if plan.progress is not None:
            plan.progress(f"{plan.phase}, {tokens:,} tokens, round {i + 1} of {plan.steps}")
        for candidate in shuffled.sample(left, len(left)):
            once = partial(time_once, candidate, plan.device)
            time = plan.attempt(tokens, candidate, once)
            if time is None:
                left.remove(candidate)
            else:
                candidate.timings.append(time)
    return left


def time_once(candidate: Candidate, device: torch.device | str) -> Timing:
    """Time a candidate with cold caches, and rewind it.

    Args:
        candidate: what to time.
        device: where.

    Returns:
        The time.
    """
    evict_caches(device)
    if candidate.graph is None:
        time = timing(candidate.run, device)
    else:  # the graph waits until the caches are evicted, so that its launch is not timed
        time = timing(candidate.graph, device, settle=False)
    candidate.rewind()
    return time


def probed(candidate: Candidate, device: torch.device | str) -> Candidate:
    """Run a candidate for its memory and its backend, which warms it up as well.

    Args:
        candidate: what to run.
        device: where.

    Returns:
        ``candidate``, with both filled in.
    """
    if str(device) == "cuda":  # libraries take workspaces at the first call, once and for all
        candidate.run()
        candidate.rewind()
    candidate.peak_bytes = allocated(candidate.run, device=device).peak
    candidate.rewind()
    candidate.backend = sdpa_backend(candidate.run)
    candidate.rewind()
    return candidate


class Pace(NamedTuple):
    """What a machine did in the rounds of one length.

    Attributes:
        bytes_per_second: as in :class:`Row`.
        flops_per_second: the same.
        spread: ``rate_spread`` in :class:`Row`.
    """

    bytes_per_second: float
    flops_per_second: float
    spread: float = 1.0


def probe_candidates(probes: Probes) -> tuple[Candidate, Candidate]:
    """Make candidates of the two jobs that show a machine's rates.

    Args:
        probes: the jobs.

    Returns:
        Reading and multiplying; their ``work`` is in bytes and in FLOPs.
    """
    return (
        Candidate("reading", "rates", probes.read, work=probes.n_bytes),
        Candidate("multiplying", "rates", probes.multiply, work=probes.flops),
    )


def pace_of(rates: Rates | None, probes: Sequence[Candidate]) -> Pace:
    """Return the rates of a machine: as given, or as measured.

    Args:
        rates: as given, or ``None``.
        probes: of :func:`probe_candidates`, timed; none if the rates are given.

    Returns:
        Medians, and how much the rates varied.
    """
    if rates is not None:
        return Pace(rates.bytes_per_second, rates.flops_per_second)
    times = [quartiles([timing.seconds for timing in probe.timings]) for probe in probes]
    reading, multiplying = (
        probe.work / median for probe, (median, *_) in zip(probes, times, strict=True)
    )
    return Pace(reading, multiplying, max(high / low for _, low, high in times))


def row_of(plan: Plan, tokens: int, candidate: Candidate, pace: Pace) -> Row:
    """Return the row of a candidate that was timed, with its floor.

    Args:
        plan: what is shared.
        tokens: context length, or length of the prompt.
        candidate: what was timed.
        pace: of the machine, from which the floor follows.

    Returns:
        The row.
    """
    count = decode_cost if plan.phase == "decode" else prefill_cost
    geometry = plan.geometries[candidate.variant]
    cost = count(geometry, tokens, batch_size=plan.batch_size, dtype=plan.dtype)
    floor = cost.floor(
        bytes_per_second=pace.bytes_per_second, flops_per_second=pace.flops_per_second
    )
    median, low, high = quartiles([timing.seconds for timing in candidate.timings])
    interruptions = [timing.is_interrupted for timing in candidate.timings]
    return Row(
        variant=candidate.variant,
        code=candidate.code,
        phase=plan.phase,
        tokens=tokens,
        batch_size=plan.batch_size,
        seconds=median,
        low=low,
        high=high,
        floor_seconds=floor.seconds,
        flops=cost.flops,
        n_bytes=cost.bytes,
        bytes_per_second=pace.bytes_per_second,
        flops_per_second=pace.flops_per_second,
        rate_spread=pace.spread,
        interrupted=sum(interruptions) / len(interruptions),
        threads=torch.get_num_threads(),
        backend=candidate.backend,
        peak_bytes=candidate.peak_bytes,
        graph=candidate.graph is not None,
    )


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


def hidden_states(plan: Plan, name: str, tokens: int) -> Tensor:
    """Return random hidden states for a layer.

    Args:
        plan: what is shared.
        name: of the layer's geometry.
        tokens: of each sequence, T.

    Returns:
        Shape ``(B, T, d_model)``.
    """
    shape = plan.batch_size, tokens, check_size("d_model", plan.geometries[name].d_model)
    return torch.randn(shape).to(plan.device, plan.dtype)


def decode_step(
    layer: nn.Module, x: Tensor, tokens: int
) -> tuple[Callable[..., Tensor], Callable[[], None]]:
    """Make a decode step of attnlib's layer, and what takes its token back.

    Args:
        layer: of any registered variant.
        x: hidden state of the new token, shape ``(B, 1, d_model)``.
        tokens: tokens that the new one sees, itself included.

    Returns:
        ``(step, rewind)``; ``step`` takes options of the layer's ``forward``.
    """
    cache = layer.new_cache(len(x), tokens)
    fill_cache(cache, layer, x, tokens - 1)

    def rewind() -> None:
        cache.seen = tokens - 1

    return partial(layer, x, cache), rewind


@torch.no_grad()
def fill_cache(cache: Any, layer: nn.Module, x: Tensor, tokens: int) -> None:
    """Fill a cache with random entries, of the shapes that its layer stores.

    Args:
        cache: of the layer, empty.
        layer: of any registered variant.
        x: hidden state of one token per sequence, shape ``(B, 1, d_model)``.
        tokens: tokens to store.
    """
    if isinstance(layer, Stack):
        for part, own in zip(cache.parts, layer.layers, strict=True):
            fill_cache(part, own, x, tokens)
        return
    probe, stored = layer.new_cache(len(x), 1), []
    update = probe.update

    def record(*entries: Tensor, **positions: Any) -> tuple[Tensor, ...]:
        stored.extend(entries)
        return update(*entries, **positions)

    probe.update = record
    layer(x, probe)
    for start in range(0, tokens, FILL_TOKENS):  # a part at a time: a copy would not fit
        n = min(FILL_TOKENS, tokens - start)
        cache.update(*(entry.new_empty(*entry.shape[:-2], n, entry.shape[-1]).normal_()
                       for entry in stored))  # fmt: skip


def graphed(step: Callable[[], object], rewind: Callable[[], object]) -> Callable[[], object]:
    """Record a step as a CUDA graph, so that the processor launches it as one.

    A graph replays the same kernels on the same memory. A decode step may be recorded since its
    cache is rewound each time: the new token always goes to the same place.

    Args:
        step: what to record.
        rewind: what undoes it.

    Returns:
        A function that replays the graph.

    Raises:
        RuntimeError: if the step cannot be recorded, since it waits for the GPU somewhere.
    """
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad(), torch.cuda.stream(stream):  # libraries set themselves up only once
        for _ in range(3):
            step()
            rewind()
    torch.cuda.current_stream().wait_stream(stream)
    try:
        with torch.no_grad(), torch.cuda.graph(graph):
            step()
    finally:
        rewind()
    return graph.replay


def prefill_parts(layer: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Make the least that a prefill can be: its projections and one fused call of attention.

    Queries, keys and values of all heads are ready and contiguous; where values are narrower
    than keys, they are filled up with zeros, as the CPU's fused kernel wants them.

    Args:
        layer: whose projections are used.
        x: hidden states, shape ``(B, T, d_model)``.

    Returns:
        The call.
    """
    B, T, _ = x.shape
    projections = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    products = [partial(m, x.new_empty(B, T, m.in_features).normal_()) for m in projections]
    width = max(layer.qk_head_dim, layer.v_head_dim)
    q, k = (x.new_empty(B, layer.n_heads, T, layer.qk_head_dim).normal_() for _ in "qk")
    v = x.new_empty(B, layer.n_heads, T, layer.v_head_dim).normal_()
    q, k, v = (widen(heads, width) for heads in (q, k, v))

    def call() -> Tensor:
        for product in products:
            product()
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    return call


def reason_of(error: Exception) -> str:
    """Return why a measurement failed, in one line that names no machine.

    Args:
        error: what it raised.

    Returns:
        The reason.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return "out of memory"
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def free_memory(device: torch.device | str) -> None:
    """Give memory that is no longer used back to the device.

    Args:
        device: where.
    """
    gc.collect()
    if str(device) == "cuda":
        with suppress(RuntimeError):  # a device that failed is reported by the next measurement
            torch.cuda.empty_cache()
