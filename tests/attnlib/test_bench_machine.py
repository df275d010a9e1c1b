"""What the benchmark finds out about the machine and about a call: rates, memory, kernels."""

import json
import math

import pytest
import torch

from attnlib import bench
from attnlib.bench.__main__ import DTYPES
from attnlib.bench.machine import Timing, timing, using_threads
from attnlib.costs import kv_cache_bytes

SMALL = bench.geometries(24, 6, 3, kv_lora_rank=10, qk_rope_head_dim=4)
FUSED = "flash_attention_for_cpu"
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_backend_is_the_one_that_ran():
    """Catches a name that is assumed, and one that is left out."""
    q = torch.randn(1, 2, 8, 4)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert bench.sdpa_backend(lambda: attend(q, q, q)) == FUSED
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert bench.sdpa_backend(lambda: attend(q, q, q)) == "attention_math"
    assert bench.sdpa_backend(lambda: q @ q.mT) == "none"


def test_allocated_counts_what_stays_and_what_came_in_between():
    """Catches sizes that are rounded, and a peak that is the sum of all requests."""

    def call():
        a = torch.empty(1000)
        b = torch.empty(500)
        del a
        c = torch.empty(200)
        return b, c

    assert bench.allocated(call) == (4 * 700, 4 * 1500)
    assert bench.allocated(lambda: None) == (0, 0)


@pytest.mark.parametrize("variant", SMALL)
def test_allocated_equals_formula_and_nbytes(variant):
    """Catches a cache that takes more than it says."""
    layer = bench.build_layer(SMALL[variant])
    held = bench.allocated(lambda: layer.new_cache(2, 11)).held
    assert held == layer.new_cache(2, 11).nbytes
    assert held == kv_cache_bytes(SMALL[variant], 11, batch_size=2, dtype="float32")


def test_profiler_writes_nothing(capfd):
    """Catches lines of torch's profiler that would land in a notebook."""
    bench.allocated(lambda: torch.empty(3))
    bench.sdpa_backend(lambda: None)
    assert capfd.readouterr() == ("", "")


def test_profiler_gives_stderr_back_after_an_error(capfd):
    """Catches a stderr that stays mute once something went wrong."""
    with pytest.raises(ZeroDivisionError):
        bench.allocated(lambda: 1 // 0)
    import os

    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_rates_say_how_they_were_measured():
    """Catches a rate of another size, and one that is not a number."""
    rates = bench.machine_rates(read_bytes=1001, matmul_size=17, repeats=2)
    assert rates.bytes_per_second > 0
    assert math.isfinite(rates.flops_per_second)
    assert (rates.device, rates.dtype) == ("cpu", "float32")
    assert (rates.read_bytes, rates.matmul_size) == (1008, 17)
    assert rates.threads == torch.get_num_threads()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rates_in_every_dtype(dtype):
    """Catches a dtype that the kernels of one of the reads lack."""
    rates = bench.machine_rates(dtype=DTYPES[dtype], read_bytes=4096, matmul_size=8, repeats=1)
    assert rates.dtype == dtype


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="the message is for machines without a GPU"
)
def test_a_missing_gpu_is_named():
    with pytest.raises(ValueError, match="torch finds no GPU, got cuda"):
        bench.machine_rates(device="cuda")


def test_provenance_names_no_machine():
    """Catches a host name, a user or a path in what is published."""
    import getpass
    import platform

    text = json.dumps(bench.provenance("cpu", torch.float32))
    for private in (platform.node(), getpass.getuser(), "/home", "/root", "/work", "/tmp"):
        assert not private or private not in text, private


@pytest.mark.parametrize(
    ("call", "interrupted"),
    [
        (Timing(1.0), False),  # a GPU's
        (Timing(1.0, 0.95), False),
        (Timing(1.0, 0.80), True),
        (Timing(1e-4, 2e-5), False),  # too short to tell
        (Timing(1.0, 0.50, 45), False),  # waited for the other threads, not for a program
        (Timing(1.0, 0.99, 250), True),
        (Timing(0.004, 0.004, 1), False),
        (Timing(0.004, 0.004, 6), True),
    ],
)
def test_what_counts_as_interrupted(call, interrupted):
    """Catches threads that wait for each other, taken for another program."""
    assert call.is_interrupted == interrupted


def test_several_threads_are_judged_by_lost_processors():
    with using_threads(1):
        assert timing(lambda: None, "cpu").preempted is None
    with using_threads(2):
        assert timing(lambda: None, "cpu").preempted is not None


@pytest.mark.cuda
@NEEDS_CUDA
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_a_gpu_is_measured(dtype):
    """Catches clocks and counters of the CPU, and reads that a GPU lacks."""
    rates = bench.machine_rates(
        device="cuda", dtype=dtype, read_bytes=2**26, matmul_size=512, repeats=3
    )
    assert 1e9 < rates.bytes_per_second < 1e14
    assert 1e9 < rates.flops_per_second < 1e16
    assert bench.timed(lambda: torch.ones(4, device="cuda").sum(), "cuda") > 0
    layer = bench.build_layer(SMALL["GQA"], dtype=dtype, device="cuda")
    formula = kv_cache_bytes(SMALL["GQA"], 128, batch_size=2, dtype=dtype)
    held, peak = bench.allocated(lambda: layer.new_cache(2, 128), device="cuda")
    assert formula <= held <= peak < formula + 2048  # blocks of 512 bytes
    q = torch.randn(1, 4, 64, 64, device="cuda", dtype=dtype)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert bench.sdpa_backend(lambda: attend(q, q, q)).endswith("_attention")
    assert bench.provenance("cuda", dtype)["gpu"]
