"""The benchmark's command line: ``python -m attnlib.bench``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import torch

from attnlib.bench.arguments import OneLineParser, prepare_file, size, sizes
from attnlib.bench.machine import (
    Rates,
    check_device,
    machine_rates,
    provenance,
    using_threads,
)
from attnlib.bench.measure import Row, geometries, measure_decode, measure_prefill
from attnlib.bench.report import report, summary
from attnlib.bench.stored import save_json
from attnlib.costs import check_pattern, with_windows
from attnlib.variants import VARIANTS

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line, and check everything in it before anything is measured.

    Args:
        arguments: of the command line; ``None`` takes the program's own.

    Returns:
        What was given.
    """
    parser = OneLineParser(
        prog="python -m attnlib.bench",
        description="Measure one layer of each variant, beside the time that its FLOPs and"
        " bytes allow.",
    )
    add = parser.add_argument
    add("--device", default="cpu", choices=("cpu", "cuda"))
    add("--dtype", default="float32", choices=DTYPES)
    add("--tokens", type=sizes, help="context lengths of decode, such as 2048,8192,32768")
    add("--prefill", type=sizes, help="lengths of prompts, such as 512,2048")
    add("--batch-size", type=sizes, default=[1], help="sequences, such as 1 or 1,16")
    add("--steps", type=size, default=15, help="rounds; medians count")
    add("--quick", action="store_true", help="small layers, short contexts and rough rates")
    add("--threads", type=sizes, help="of the CPU, such as 1,2; one and all if not given")
    add("--variants", type=variants, default=[*VARIANTS], help="such as MHA,GQA; default: all")
    add("--pattern", help="layers to run as well, S with a window and F without: SSSF")
    add("--window", type=size, default=1024, help="tokens that a window has; default: 1024")
    add("--no-compare", action="store_true", help="leave transformers out")
    add("--json", type=Path, metavar="FILE", help="where to write all numbers")
    given = parser.parse_args(arguments)
    given.tokens = given.tokens or ([256, 1024] if given.quick else [2048, 8192, 32768])
    given.prefill = given.prefill or ([128] if given.quick else [512, 2048])
    everything = torch.get_num_threads()
    on_gpu = given.device == "cuda"
    given.threads = given.threads or ([everything] if on_gpu else sorted({1, everything}))
    with parser.refusing():
        check_device(given.device)
        if given.pattern:
            check_pattern(given.pattern)
        if given.json:
            prepare_file(given.json)
    return given


def variants(text: str) -> list[str]:
    """Read names of variants with commas between them.

    Args:
        text: such as "MHA,GQA".

    Returns:
        The names.

    Raises:
        argparse.ArgumentTypeError: if there is no such variant.
    """
    for name in text.split(","):
        if name not in VARIANTS:
            known = ", ".join(VARIANTS)
            raise argparse.ArgumentTypeError(f"must be among {known}, got {name!r}")
    return text.split(",")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark: progress to stderr, a table to stdout, everything to a JSON file.

    The file is written after each length, so that a run that is stopped leaves what it has. A
    measurement that fails is reported and left out.

    Args:
        arguments: of the command line; ``None`` takes the program's own.
    """

    def progress(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    def on_failure(line: str) -> None:
        skipped.append(line)
        progress(f"left out: {line}")

    given = parse(arguments)
    dtype, device = DTYPES[given.dtype], given.device
    every = geometries(window=given.window)
    if given.quick:
        small = {"kv_lora_rank": 64, "qk_rope_head_dim": 16}
        every = geometries(256, 4, 2, **small, window=given.window)
    layers = {name: every[name] for name in given.variants}
    if given.pattern:
        full = replace(every["GQA"], n_layers=len(given.pattern))
        layers[given.pattern] = with_windows(full, given.pattern, given.window)
    compare = not given.no_compare and find_spec("transformers") is not None
    origin = provenance(device, dtype)
    progress("read bandwidth and matmul rate of this machine")
    probes = {"device": device, "dtype": dtype}
    if given.quick:  # small enough that a run takes seconds; the caches of a large CPU hold it
        probes |= {"read_bytes": 2**26, "matmul_size": 512}

    def rates_with(threads: int) -> Rates:
        with using_threads(threads):
            return machine_rates(**probes)

    rates = afterwards = rates_with(max(given.threads))
    rows: list[Row] = []
    skipped: list[str] = []
    phases = {"decode": given.tokens, "prefill": given.prefill}
    runs = [
        (threads, phase, n, batch_size)
        for threads in given.threads
        for phase, lengths in phases.items()
        for batch_size in given.batch_size
        for n in lengths
    ]
    for threads, phase, n, batch_size in runs:
        shared = {
            "batch_size": batch_size, "dtype": dtype, "device": device, "threads": threads,
            "compare": compare, "progress": progress, "on_failure": on_failure,
            "rates": rates_with(threads) if given.quick else None,
        }  # fmt: skip
        if phase == "decode":
            rows += measure_decode(layers, [n], steps=given.steps, **shared)
        else:
            steps = max(1, given.steps // 3)
            rows += measure_prefill(layers, [n], steps=steps, parts=True, **shared)
        afterwards = rates_with(max(given.threads))
        if given.json:
            save_json(given.json, report(origin, rates, afterwards, layers, rows, skipped))
    print(summary(rates, afterwards, rows))
    if given.json:
        progress(f"wrote {given.json}")


def let_waiting_threads_sleep() -> None:
    """Start the program again, with threads that sleep while they wait for each other.

    By default they spin, and on a busy machine a spinning thread keeps the processor from the
    one that it waits for. OpenMP reads the setting when torch is loaded, which is before this.
    """
    if os.name == "posix" and "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.execv(sys.executable, sys.orig_argv)


if __name__ == "__main__":
    let_waiting_threads_sleep()
    main()
