"""Tokens per second of a language model, beside transformers and beside what memory allows.

``python -m attnlib.labs.pace`` prints a table; speed does not depend on the numbers in the
weights, so it takes random ones of the real model's sizes and needs no file. ``--json FILE``
stores the table with the machine's description.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attnlib.bench import machine_rates, provenance, timed
from attnlib.bench.arguments import OneLineParser, prepare_file
from attnlib.bench.measure import quartiles
from attnlib.bench.stored import save_json
from attnlib.checks import check_size
from attnlib.contract import Cache
from attnlib.labs.experiment import check_device
from attnlib.labs.llama import Llama
from attnlib.labs.smollm import SIZES, to_transformers


class Pace(NamedTuple):
    """How long one decode step of a whole model takes.

    Attributes:
        batch_size: sequences, each of which gets one token per step.
        tokens: that each sequence has after the step.
        seconds: (median, lower quartile, upper quartile) of each of the two, by name.
        step_bytes: that a step has to read: all weights once, and all caches.
        floor_seconds: that reading them takes at the best rate of this run.
    """

    batch_size: int
    tokens: int
    seconds: dict[str, tuple[float, float, float]]
    step_bytes: int
    floor_seconds: float

    def describe(self) -> str:
        """Return one line for each of the two, and one for the floor."""
        lines = [f"{'':14}{'tokens/s':>9}{'ms per step':>13}  (quartiles)   x floor"]
        for name, (middle, low, high) in self.seconds.items():
            lines.append(
                f"{name:14}{self.batch_size / middle:9.1f}{1e3 * middle:13.1f}"
                f"  ({1e3 * low:.1f} to {1e3 * high:.1f}){middle / self.floor_seconds:8.2f}"
            )
        floor = self.floor_seconds
        lines.append(f"{'floor':14}{self.batch_size / floor:9.1f}{1e3 * floor:13.1f}")
        return "\n".join(lines)


def step_bytes(model: Llama, caches: Sequence[Cache]) -> int:
    """Return what a decode step has to read at least, in bytes.

    Args:
        model: whose weights count once, the embedding as the matrix that makes the logits.
        caches: of the sequences, with no room left.

    Returns:
        An integer.
    """
    return sum(part.nbytes for part in (*model.parameters(), *caches))


@torch.no_grad()
def decode_pace(model: Llama, text: Tensor, *, rounds: int = 9) -> Pace:
    """Time decode steps of a model and of its copy in transformers, in turns.

    Args:
        model: on the CPU or on a GPU.
        text: int64, shape ``(B, T)``; the last token is the one that is decoded.
        rounds: steps of each, in random order; one more comes before.

    Returns:
        The times.

    Raises:
        ValueError: if ``rounds`` is below 1, or the text is shorter than two tokens.
    """
    from transformers import DynamicCache

    rounds = check_size("rounds", rounds)
    batch_size, tokens = text.shape
    check_size("the text's length", tokens, least=2)
    device = model.embed.weight.device
    theirs, stored = to_transformers(model), DynamicCache()
    caches = model.new_caches(batch_size, tokens)
    model(text[:, :-1], caches, last=True)
    theirs(text[:, :-1], past_key_values=stored, logits_to_keep=1)

    def ours_step() -> None:
        for cache in caches:
            cache.seen = tokens - 1  # takes the token of the last step back
        model(text[:, -1:], caches)

    def their_step() -> None:
        theirs(text[:, -1:], past_key_values=stored)
        stored.crop(-1)

    steps: dict[str, Callable[[], None]] = {"attnlib": ours_step, "transformers": their_step}
    times: dict[str, list[float]] = {name: [] for name in steps}
    turns, rates = random.Random(0), []
    for turn in range(rounds + 1):
        if turn in (0, rounds):
            rates.append(
                machine_rates(device=device.type, dtype=model.embed.weight.dtype, repeats=5)
            )
        for name in turns.sample(sorted(steps), len(steps)):
            seconds = timed(steps[name], device)
            if turn:  # the first step of each allocates
                times[name].append(seconds)
    n_bytes = step_bytes(model, caches)
    floor = n_bytes / max(rate.bytes_per_second for rate in rates)
    return Pace(
        batch_size, tokens, {name: quartiles(s) for name, s in times.items()}, n_bytes, floor
    )


def random_model(device: torch.device | str, dtype: torch.dtype) -> Llama:
    """Build a model of the real one's sizes with small random weights.

    Args:
        device: where.
        dtype: of the weights.

    Returns:
        The model.
    """
    with torch.device(device):
        model = Llama(SIZES).to(dtype)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.02)
    return model.eval().requires_grad_(False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print, and store if asked for, the pace at several batch sizes; return the exit status.

    Args:
        arguments: of the command line; ``None`` takes the program's own.

    Returns:
        0.
    """
    parser = OneLineParser(prog="python -m attnlib.labs.pace", description=__doc__)
    add: Callable[..., Any] = parser.add_argument
    add("--device", default="cpu", help="such as cpu or cuda; default: cpu")
    add("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))
    add("--batch-sizes", type=int, nargs="+", default=[1], metavar="B", help="default: 1")
    add("--tokens", type=int, default=512, help="in each sequence; default: 512")
    add("--rounds", type=int, default=9, help="steps of each; default: 9")
    add("--threads", type=int, default=1, help="of the CPU; default: 1")
    add("--json", type=Path, metavar="FILE", help="where to store the results")
    given = parser.parse_args(arguments)
    torch.set_num_threads(check_size("threads", given.threads))
    check_device(given.device)
    dtype = getattr(torch, given.dtype)
    if given.json:
        prepare_file(given.json)
    model, paces = random_model(given.device, dtype), []
    for batch_size in given.batch_sizes:
        shape = check_size("batch-sizes", batch_size), check_size("tokens", given.tokens)
        text = torch.randint(SIZES.vocabulary, shape, device=given.device)
        paces.append(decode_pace(model, text, rounds=given.rounds))
        print(f"batch of {batch_size}, {given.tokens} tokens each")
        print(paces[-1].describe(), flush=True)
        if given.json:
            report = {"provenance": provenance(given.device, dtype), "paces": paces}
            save_json(given.json, report)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
