"""Which bugs the loss of a small model shows, in training and in decoding.

The texts are patterns of 8 random symbols, repeated: to know the next symbol, look 8 tokens
back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib.book.museum.bug import Bug
from attnlib.book.museum.catalogue import BUGS
from attnlib.book.museum.layers import (
    ReferenceAttention,
    ReferenceLatentAttention,
    ReferenceSteps,
)
from attnlib.labs.model import TinyLM
from attnlib.labs.train import next_byte_loss
from attnlib.rope import Rope

SYMBOLS, PERIOD, LENGTH = 16, 8, 32
D_MODEL = 32

# Arguments of the layers of the small model, by the reference layer.
SMALL: dict[type[ReferenceSteps], Mapping[str, object]] = {
    ReferenceAttention: {"d_model": D_MODEL, "n_heads": 4, "n_kv_heads": 2, "rope": Rope()},
    ReferenceLatentAttention: {
        "d_model": D_MODEL,
        "n_heads": 4,
        "kv_lora_rank": 24,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 8,
    },
}

#: Nats per token. No model that sees only the past gets below it on these texts, since the
#: first pattern is a guess, except for its first symbol, which is given.
LEAST_LOSS = math.log(SYMBOLS) * (PERIOD - 1) / LENGTH


class Losses(NamedTuple):
    """Losses of a trained model on new texts, in nats per token.

    Attributes:
        trained: reading whole texts, as in training.
        decoded: reading the same texts token by token, with a cache.
    """

    trained: float
    decoded: float


def patterns(count: int, generator: torch.Generator) -> Tensor:
    """Draw texts in which a pattern of 8 symbols is repeated.

    Args:
        count: texts.
        generator: of the symbols.

    Returns:
        Tokens, int64, shape ``(count, 33)``.
    """
    pattern = torch.randint(0, SYMBOLS, (count, PERIOD), generator=generator)
    return pattern.repeat(1, LENGTH // PERIOD + 1)[:, : LENGTH + 1]


def train_with(build: Callable[[], nn.Module], *, steps: int = 100) -> Losses:
    """Train a small model with an attention layer, and measure its losses on new texts.

    Args:
        build: makes the layer, of width 32.
        steps: batches of 32 texts.

    Returns:
        Both losses. ``LEAST_LOSS`` is the least that a model without a leak can have.
    """
    generator = torch.Generator().manual_seed(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = TinyLM(build, d_model=D_MODEL, n_layers=1, d_ff=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        next_byte_loss(model, patterns(32, generator)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        text, caches = patterns(64, generator), model.new_caches(64, LENGTH)
        decoded = [model(text[:, [t]], caches) for t in range(LENGTH)]  # (64, 1, 256) each
        by_token = F.cross_entropy(torch.cat(decoded, dim=1).mT, text[:, 1:])
        return Losses(next_byte_loss(model, text).item(), by_token.item())


def compare_loss(loss: float, reference: float) -> str:
    """Compare a loss with the reference layer's.

    Args:
        loss: of a model with a bug, in nats per token.
        reference: of the same model without it.

    Returns:
        "too good" if no model without a leak can get there, "worse" from 0.3 nats on, or
        "as right".
    """
    if loss < LEAST_LOSS - 0.1:
        return "too good"
    return "worse" if loss > reference + 0.3 else "as right"


def small_layer(bug: Bug) -> nn.Module:
    """Return a layer with a bug, for the small model.

    Args:
        bug: one of ``BUGS``.

    Returns:
        A layer with four heads. It has a KV head per query head where the bug needs that, and
        rotates as the museum's layer does.
    """
    arguments = dict(SMALL[bug.reference])
    if "n_kv_heads" in bug.arguments:
        arguments["n_kv_heads"] = arguments["n_heads"]
    if "rope" in bug.arguments:
        arguments["rope"] = bug.arguments["rope"]
    return bug.layer(**arguments)


@cache
def training() -> dict[str, tuple[str, str]]:
    """Train a small model with each bug, which takes half a minute.

    Returns:
        By the name of the bug, how the losses of reading whole texts and of decoding compare
        with the reference layer's.
    """
    references = {kind: train_with(partial(kind, **sizes)) for kind, sizes in SMALL.items()}
    verdicts = {}
    for name, bug in BUGS.items():
        losses = train_with(partial(small_layer, bug))
        reference = references[bug.reference]
        verdicts[name] = (
            compare_loss(losses.trained, reference.trained),
            compare_loss(losses.decoded, reference.decoded),
        )
    return verdicts
