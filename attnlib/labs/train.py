"""Train a small language model: the same seed gives the same batches to every variant."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.bench import allocated
from attnlib.checks import check_size
from attnlib.labs.model import device_of
from attnlib.labs.text import Text, batch, windows


class StepCost(NamedTuple):
    """What one training step takes: forward, backward and the optimizer's step.

    Attributes:
        cpu_seconds: median; CPU time of this process, so that other programs count little. On
            a GPU it is the time by the clock until the GPU has finished.
        peak_bytes: most memory taken at once beyond weights, gradients and moments.
    """

    cpu_seconds: float
    peak_bytes: int


def next_byte_loss(model: nn.Module, tokens: Tensor) -> Tensor:
    """Return the mean surprise at each next byte.

    Args:
        model: gives logits ``(B, T, 256)`` for bytes ``(B, T)``.
        tokens: int64, shape ``(B, T + 1)``.

    Returns:
        A scalar, in nats per byte; ln 256 = 5.545 for a model that knows nothing.
    """
    logits = model(tokens[:, :-1])  # (B, T, 256)
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Return the rate of one step: a straight rise to the peak, then half a cosine to a tenth.

    Args:
        step: 0 to steps - 1.
        steps: of the whole run.
        peak: the highest rate.
        warmup: steps of the rise; 0 = none.

    Returns:
        The rate.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)  # 0 to 1
    return peak * (0.55 + 0.45 * math.cos(math.pi * done))


def new_optimizer(model: nn.Module) -> torch.optim.AdamW:
    """Make the optimizer that :func:`train` uses.

    Args:
        model: what it will train.

    Returns:
        AdamW with betas 0.9 and 0.95, and a weight decay of 0.1.
    """
    return torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, tokens: Tensor, rate: float
) -> Tensor:
    """Take one step.

    Args:
        model: what learns.
        optimizer: of its parameters.
        tokens: int64, shape ``(B, T + 1)``, on the model's device.
        rate: learning rate.

    Returns:
        The loss before the step, a scalar without a graph.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss = next_byte_loss(model, tokens)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def train(
    model: nn.Module,
    text: Text,
    steps: int,
    *,
    seed: int,
    batch_size: int = 16,
    tokens: int = 128,
    lr: float = 3e-3,
    warmup: int | None = None,
    checkpoints: Iterable[int] = (),
    held_out_windows: int = 256,
) -> list[tuple[int, float]]:
    """Train a model, and measure its loss on the held-out text at some steps.

    The seed decides which windows make which batch, and nothing else does. So two models that
    are trained with one seed read the same text in the same order, whatever their sizes.

    Args:
        model: changed in place.
        text: what to read.
        steps: how many.
        seed: of the batches.
        batch_size: windows per step, B.
        tokens: of each window, T.
        lr: the highest learning rate: see :func:`learning_rate`.
        warmup: steps until it is reached; ``None`` means a twentieth of all steps.
        checkpoints: after how many steps to measure; 0 means before the first. After the last
            step it is measured in any case.
        held_out_windows: how many to measure it on.

    Returns:
        ``(step, held-out loss in nats per byte)`` for each checkpoint, in order.

    Raises:
        ValueError: if a size is below 1, a checkpoint lies outside 0 to ``steps``, or the text
            is too short.
    """
    check_size("steps", steps)
    warmup = -(-steps // 20) if warmup is None else check_size("warmup", warmup, least=0)
    at = {*checkpoints, steps}
    if not at <= set(range(steps + 1)):
        raise ValueError(f"checkpoints must lie in 0 to steps = {steps}, got {sorted(at)}")
    generator = torch.Generator().manual_seed(seed)
    optimizer, losses, device = new_optimizer(model), [], device_of(model)
    for step in range(steps + 1):
        if step in at:
            loss = held_out_loss(model, text, tokens=tokens, count=held_out_windows)
            losses.append((step, loss))
        if step < steps:
            window = batch(text.train, batch_size, tokens, generator).to(device)  # (B, T + 1)
            train_step(model, optimizer, window, learning_rate(step, steps, lr, warmup))
    return losses


@torch.no_grad()
def held_out_loss(
    model: nn.Module, text: Text, *, tokens: int = 128, count: int = 256, at_once: int = 32
) -> float:
    """Return the mean loss on windows of the held-out text, always the same ones.

    Args:
        model: to be judged.
        text: whose held-out part counts.
        tokens: of each window, T.
        count: windows.
        at_once: windows that the model reads in one call.

    Returns:
        Nats per byte.

    Raises:
        ValueError: if a size is below 1, or the text is too short.
    """
    check_size("at_once", at_once)
    device, total = device_of(model), 0.0
    for part in windows(text.held_out, count, tokens).split(at_once):
        total += next_byte_loss(model, part.to(device)).item() * len(part)
    return total / count


def step_cost(
    model: nn.Module, text: Text, *, batch_size: int = 16, tokens: int = 128, steps: int = 10
) -> StepCost:
    """Measure training steps of a model, at a learning rate of 0.

    Args:
        model: keeps its weights.
        text: for the batches.
        batch_size: windows per step, B.
        tokens: of each window, T.
        steps: to be timed; two more come before, and one after for the memory.

    Returns:
        Time and memory of one step.

    Raises:
        ValueError: if a size is below 1, or the text is too short.
    """
    check_size("steps", steps)
    device, seconds = device_of(model), []
    window = batch(text.train, batch_size, tokens, torch.Generator().manual_seed(0)).to(device)
    optimizer = new_optimizer(model)
    on_gpu = device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    for _ in range(2 + steps):
        start = clock()
        train_step(model, optimizer, window, 0.0)
        if on_gpu:
            torch.cuda.synchronize(device)
        seconds.append(clock() - start)
    peak = allocated(lambda: train_step(model, optimizer, window, 0.0), device=device).peak
    optimizer.zero_grad()
    return StepCost(statistics.median(seconds[2:]), peak)
