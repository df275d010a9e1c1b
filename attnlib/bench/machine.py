"""What this machine can do and what a call takes of it: rates, time, memory, kernels."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from attnlib import __version__
from attnlib.checks import check_size

OFTEN = 100  # times a second that a processor is taken away, on a machine with other work
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


class Allocated(NamedTuple):
    """What a call took from the allocator.

    Attributes:
        held: bytes still taken when the call had returned, its result included.
        peak: most bytes taken at once during the call.
    """

    held: int
    peak: int


def check_device(device: torch.device | str) -> None:
    """Check that something can be measured on a device.

    Args:
        device: "cpu" or "cuda"; of several GPUs, the current one.

    Raises:
        ValueError: if it is another device, or there is no GPU.
    """
    if str(device) not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {device}")
    if str(device) == "cuda" and not torch.cuda.is_available():
        raise ValueError("device must be cpu where torch finds no GPU, got cuda")


class Timing(NamedTuple):
    """How long one call took.

    Attributes:
        seconds: by the clock.
        busy: seconds that the calling thread spent on a processor; ``None`` for a GPU.
        preempted: how often the system took the processor from one of several threads; ``None``
            for one thread, a GPU, and systems that do not count it.
    """

    seconds: float
    busy: float | None = None
    preempted: int | None = None

    @property
    def is_interrupted(self) -> bool:
        """Whether another program ran instead.

        One thread must not stand still for more than a tenth of the time. One of several stands
        still while it waits for the others, so what counts there is how often a processor was
        taken away: fewer than 50 times a second on a quiet machine, over 200 on a busy one.
        """
        if self.preempted is not None:
            return self.preempted > 1 + OFTEN * self.seconds
        return self.busy is not None and self.seconds > 1.1 * self.busy + 1e-4


def timing(
    function: Callable[[], object], device: torch.device | str, *, settle: bool = True
) -> Timing:
    """Time one call on the device's own clock.

    Args:
        function: what to call.
        device: "cpu", or "cuda", whose events are then the clock.
        settle: whether a GPU finishes earlier work first; the time then includes launching.

    Returns:
        The time.
    """
    if torch.device(device).type == "cuda":
        if settle:
            torch.cuda.synchronize(device)  # launches do not hide behind earlier work
        start = torch.cuda.Event(enable_timing=True)
        end = torch.cuda.Event(enable_timing=True)
        start.record()
        function()
        end.record()
        end.synchronize()
        return Timing(start.elapsed_time(end) / 1000)
    before = preemptions()
    began, busy = time.perf_counter(), time.thread_time()
    function()
    seconds, busy = time.perf_counter() - began, time.thread_time() - busy
    after = preemptions()
    if before is None or after is None or torch.get_num_threads() == 1:
        return Timing(seconds, busy)
    return Timing(seconds, busy, after - before)


def preemptions() -> int | None:
    """Return how often the system has taken a processor from this program's threads.

    Returns:
        Involuntary context switches; ``None`` where the system does not count them.
    """
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def timed(function: Callable[[], object], device: torch.device | str) -> float:
    """Return the seconds that one call takes, on the device's own clock.

    Args:
        function: what to call.
        device: "cpu", or "cuda", which finishes earlier work first; launching counts.

    Returns:
        Seconds.
    """
    return timing(function, device).seconds


class Probes:
    """Two simple jobs that show what a machine does at its best: reading, and multiplying.

    Args:
        device: "cpu" or "cuda".
        dtype: of the numbers.
        read_bytes: memory to read; more than the caches hold. ``None`` means 512 MiB, on a GPU
            2 GiB.
        matmul_size: rows and columns of the matrices; ``None`` means 1,024, on a GPU 8,192.

    Attributes:
        read: reads a block of memory once.
        multiply: multiplies two square matrices.
        n_bytes: that ``read`` reads.
        flops: that ``multiply`` takes.
        size: rows and columns of the matrices.

    Raises:
        ValueError: if a size is below 1, or there is no such device.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        read_bytes: int | None = None,
        matmul_size: int | None = None,
    ):
        check_device(device)
        on_gpu = torch.device(device).type == "cuda"
        read_bytes = check_size("read_bytes", read_bytes or (2**31 if on_gpu else 2**29))
        self.size = check_size("matmul_size", matmul_size or (8192 if on_gpu else 1024))
        count = -(-read_bytes // 8) * 8 // dtype.itemsize
        numbers = torch.ones(count, dtype=dtype, device=device)
        words = numbers.view(torch.float32)  # the same memory; some dtypes are slow to add
        reads = (numbers.sum, words.sum, lambda: torch.dot(words, words), words.max)
        first = [min(timed(call, device) for _ in range(2)) for call in reads]
        self.read: Callable[[], object] = reads[first.index(min(first))]
        matrix = torch.randn(self.size, self.size, device=device).to(dtype)
        self.multiply: Callable[[], object] = lambda: matrix @ matrix
        self.n_bytes, self.flops = numbers.nbytes, 2 * self.size**3


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
        matmul_size: rows and columns of the matrices; ``None`` means 1,024, on a GPU 8,192.
        repeats: how often to measure; the best counts.

    Returns:
        The rates.

    Raises:
        ValueError: if a size is below 1, or there is no such device.
    """
    probes = Probes(device, dtype, read_bytes, matmul_size)
    repeats = check_size("repeats", repeats)
    reading = min(timed(probes.read, device) for _ in range(repeats))
    multiplying = min(timed(probes.multiply, device) for _ in range(repeats))
    return Rates(
        bytes_per_second=probes.n_bytes / reading,
        flops_per_second=probes.flops / multiplying,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        read_bytes=probes.n_bytes,
        matmul_size=probes.size,
    )


@contextmanager
def using_threads(count: int | None) -> Iterator[None]:
    """Let a CPU's operations use so many threads within the block.

    Args:
        count: threads, at least 1; ``None`` changes nothing.
    """
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(check_size("threads", count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@cache
def ballast(device: str) -> Tensor:
    """Return memory that is larger than the processor's caches, allocated once per device.

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


def allocated(
    function: Callable[[], object], *, device: torch.device | str = "cpu"
) -> Allocated:
    """Count the memory that a call takes from the allocator.

    On the CPU the profiler notes each request with its exact size. CUDA's allocator counts
    blocks, whose sizes are multiples of 512 bytes.

    Args:
        function: what to call; its result is kept until the count is made.
        device: whose memory counts: "cpu" or "cuda".

    Returns:
        Bytes held after the call and at its peak, beyond those held before.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        result = function()
        held = torch.cuda.memory_allocated(device) - before
        peak = torch.cuda.max_memory_allocated(device) - before
        del result
        return Allocated(held, peak)
    with profiled(memory=True) as profile:
        result = function()
    del result
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return Allocated(held, peak)


def sdpa_backend(function: Callable[[], object]) -> str:
    """Return the backend of ``scaled_dot_product_attention`` that a call really runs.

    Backends are operators, which the processor launches on a GPU too, so that a profile of the
    processor shows them.

    Args:
        function: what to call, once, under the profiler.

    Returns:
        The backend's operator without its common beginning, such as
        "flash_attention_for_cpu" or "attention_math"; several are joined by "+", and "none"
        means that the call never reached one.
    """
    with profiled() as profile:
        function()
    names = {event.key for event in profile.key_averages() if event.key.startswith(SDPA)}
    return "+".join(sorted(name.removeprefix(SDPA) for name in names)) or "none"


@contextmanager
def profiled(*, memory: bool = False) -> Iterator[torch.profiler.profile]:
    """Run torch's profiler on the CPU, without the lines that it may write to stderr itself.

    Args:
        memory: whether requests to the allocator are recorded.

    Yields:
        The profile, to be read after the block.
    """
    sys.stderr.flush()
    stderr, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        activities = [torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities, profile_memory=memory) as profile:
            yield profile
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(null)


def provenance(device: torch.device | str, dtype: torch.dtype) -> dict[str, object]:
    """Record the environment of a run, without host names.

    Args:
        device: "cpu" or "cuda".
        dtype: of weights and caches.

    Returns:
        Names and values, ready for JSON.
    """
    facts: dict[str, object] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "device": str(device),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "load": load_of_machine(),
        "dtype": str(dtype).removeprefix("torch."),
        "torch": torch.__version__,
        "transformers": version_of("transformers"),
        "attnlib": __version__,
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


def load_of_machine() -> float | None:
    """Return how many programs wanted a processor in the last minute, on average.

    Returns:
        The system's load average; ``None`` where the system keeps none.
    """
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):  # Windows
        return None


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
