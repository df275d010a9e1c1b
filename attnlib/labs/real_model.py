"""Take the real model apart: what its heads do, and what is left of it after a conversion.

``python -m attnlib.labs.real_model --json FILE`` writes FILE after each part and, started
again, continues where it stopped. All of it takes about an hour on two cores.

The text is English prose of :mod:`attnlib.labs.prose`, which the model has not read. Losses are
measured on passages of it, after a context that does not count.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnlib.bench import provenance
from attnlib.bench.arguments import OneLineParser, prepare_file
from attnlib.bench.stored import from_json, save_json
from attnlib.checks import check_size
from attnlib.labs.conversion import attention_inputs
from attnlib.labs.convert import mha_to_gqa
from attnlib.labs.experiment import RESULTS, print_now
from attnlib.labs.heads import (
    first_share,
    induction_share,
    previous_share,
    random_twice,
    with_attention,
    without_head,
)
from attnlib.labs.llama import Llama
from attnlib.labs.prose import prose
from attnlib.labs.rotary import gqa_to_rebuilt, rotary_gqa_to_mla
from attnlib.labs.smollm import Tokenizer, load_smollm
from attnlib.labs.stats import paired_difference
from attnlib.labs.train import learning_rate
from attnlib.variants.gqa import GroupedQueryAttention

#: How the one KV head of MQA is made of three; "random" is repeated with other seeds.
POOLED = ("mean", "first", "random")
#: What the directions of a latent are chosen by.
GUIDES = ("weights", "activations")


@dataclass(frozen=True)
class Settings:
    """Everything that decides the results.

    Args:
        context: tokens of a passage that come first and do not count.
        tokens: tokens of a passage that count.
        passages: of held-out text.
        windows: of the other text, 512 tokens each, whose hidden states guide a latent.
        ranks: widths of latents.
        seeds: for what is drawn.
        looked_at: tokens of each passage that heads are looked at on, and of the one on which
            they are switched off.
        period: random tokens that are repeated, to find induction heads.
        steps: of training on after a conversion.
        trained_tokens: of one step.
        lr: the highest learning rate.

    Raises:
        ValueError: if a size is below 1.
    """

    context: int = 128
    tokens: int = 384
    passages: int = 9
    windows: int = 12
    ranks: tuple[int, ...] = (320, 256, 192, 128, 64, 32)
    seeds: tuple[int, ...] = (0, 1, 2)
    looked_at: int = 256
    period: int = 64
    steps: int = 48
    trained_tokens: int = 256
    lr: float = 5e-4

    def __post_init__(self) -> None:
        """Check each setting."""
        for name, value in asdict(self).items():
            for size in value if isinstance(value, tuple) else [value]:
                if not isinstance(size, float):
                    check_size(name, size, least=0 if name == "seeds" else 1)


class Heads(NamedTuple):
    """What each head does: one row per layer, one number per head.

    Attributes:
        first: mean weight on the first token of a passage, after its first quarter.
        previous: mean weight on the token before the query.
        induction: mean weight on what followed the last copy, in random tokens said twice.
        loss: of the whole model on a passage, nats per token.
        without: the same without this head.
        repeated_loss: of the whole model on the second half of random tokens said twice.
        repeated_without: the same without this head.
    """

    first: list[list[float]]
    previous: list[list[float]]
    induction: list[list[float]]
    loss: float
    without: list[list[float]]
    repeated_loss: float
    repeated_without: list[list[float]]


class Conversion(NamedTuple):
    """A model whose attention layers were converted, and not trained.

    Attributes:
        name: what it is, no two alike.
        kind: "GQA", "MLA", "MQA" or "latent".
        how: one of :data:`POOLED` or :data:`GUIDES`; "" where there is no choice.
        numbers: cached per token and layer.
        losses: of each passage, nats per token.
    """

    name: str
    kind: str
    how: str
    numbers: int
    losses: list[float]


class Healed(NamedTuple):
    """A converted model whose attention was trained on.

    Attributes:
        name: of the conversion.
        losses: ``(steps, losses of each passage)``.
    """

    name: str
    losses: list[tuple[int, list[float]]]


@dataclass
class RealModelFindings:
    """What was found.

    Attributes:
        provenance: where, with what and when.
        text: fingerprint: tokens and sha256 of both parts.
        settings: of everything.
        heads: what each head does; ``None`` until it is measured.
        conversions: in the order in which they were made.
        healed: the same.
    """

    provenance: Mapping[str, Any]
    text: Mapping[str, Any]
    settings: Settings
    heads: Heads | None = None
    conversions: list[Conversion] = field(default_factory=list)
    healed: list[Healed] = field(default_factory=list)

    @classmethod
    def load(cls, name: str = "real-model-cpu") -> RealModelFindings:
        """Return findings that are stored with the package.

        Args:
            name: one of those in :mod:`attnlib.labs.results`.

        Returns:
            The findings.
        """
        return cls.read(RESULTS.load(name))

    @classmethod
    def read(cls, report: Mapping[str, Any]) -> RealModelFindings:
        """Return the findings in a report.

        Args:
            report: parsed JSON.

        Returns:
            The findings.
        """
        return cls(
            report["provenance"],
            report["text"],
            from_json(Settings, report["settings"]),
            from_json(Heads, report["heads"]) if report["heads"] else None,
            from_json(list[Conversion], report["conversions"]),
            from_json(list[Healed], report["healed"]),
        )

    def conversion(self, name: str) -> Conversion:
        """Return one conversion.

        Args:
            name: its name.

        Returns:
            The conversion.

        Raises:
            ValueError: if there is none of this name.
        """
        found = {made.name: made for made in self.conversions}
        if name not in found:
            raise ValueError(f"name must be one of {', '.join(found)}, got {name!r}")
        return found[name]

    def times_worse(self, name: str) -> tuple[float, float, float]:
        """Return by which factor a conversion raises the perplexity.

        Args:
            name: of the conversion.

        Returns:
            The factor and its interval of 95 % over the passages: what would be expected of
            other passages of such text.
        """
        change = paired_difference(self.conversion(name).losses, self.conversions[0].losses)
        return math.exp(change.mean), math.exp(change.low), math.exp(change.high)


def perplexity(losses: Sequence[float]) -> float:
    """Return e to the mean loss.

    Args:
        losses: nats per token.

    Returns:
        A number of at least 1.
    """
    return math.exp(sum(losses) / len(losses))


def cut(tokens: Tensor, length: int, count: int) -> list[Tensor]:
    """Cut the beginning of a text into passages.

    Args:
        tokens: int64, shape ``(n,)``.
        length: of each passage.
        count: passages.

    Returns:
        Tensors of shape ``(1, length)``.

    Raises:
        ValueError: if the text is too short.
    """
    if len(tokens) < length * count:
        raise ValueError(f"tokens must be at least {length * count}, got {len(tokens)}")
    return [part[None] for part in tokens[: length * count].split(length)]


@torch.no_grad()
def passage_losses(model: Llama, passages: Sequence[Tensor], context: int) -> list[float]:
    """Return the mean loss of each passage after its context.

    Args:
        model: to be judged.
        passages: each ``(1, T)``.
        context: tokens that do not count.

    Returns:
        Nats per token.
    """
    return [model.losses(part)[0, context - 1 :].mean().item() for part in passages]


@torch.no_grad()
def look_at_heads(model: Llama, passages: Sequence[Tensor], settings: Settings) -> Heads:
    """Measure what each head looks at, and what the model loses without it.

    Args:
        model: whose heads they are.
        passages: of text, each ``(1, T)``.
        settings: of the experiment.

    Returns:
        The findings.
    """
    seen = [model.weights(part[:, : settings.looked_at])[:, 0] for part in passages[:4]]
    first = torch.stack(
        [first_share(weights, weights.shape[-1] // 4) for weights in seen]
    ).mean(dim=0)
    previous = torch.stack([previous_share(weights) for weights in seen]).mean(dim=0)
    draws = [torch.Generator().manual_seed(seed) for seed in settings.seeds]
    twice = [random_twice(model.sizes.vocabulary, settings.period, draw) for draw in draws]
    induction = torch.stack(
        [induction_share(model.weights(tokens)[:, 0], settings.period) for tokens in twice]
    ).mean(dim=0)
    texts = passages[0][:, : settings.looked_at], twice[0]
    whole = [0.0, 0.0]
    without: list[list[list[float]]] = [[], []]  # of each text, of each layer, of each head
    for i, tokens in enumerate(texts):
        start = (
            0 if i == 0 else settings.period
        )  # the first half is random, so it does not count
        whole[i] = model.losses(tokens)[0, start:].mean().item()
        x = model.embed(tokens[:, :-1])  # (1, T - 1, d_model), what comes into a block
        for number, block in enumerate(model.blocks):
            row = []
            for head in range(block.attention.n_heads):
                with without_head(block.attention, head):
                    y = block(x)  # the blocks before are not affected
                for later in model.blocks[number + 1 :]:
                    y = later(y)
                row.append(model.losses_of(model.norm(y), tokens)[0, start:].mean().item())
            without[i].append(row)
            x = block(x)
    return Heads(
        first.tolist(),
        previous.tolist(),
        induction.tolist(),
        whole[0],
        without[0],
        whole[1],
        without[1],
    )


def conversions(
    model: Llama, windows: Sequence[Tensor], settings: Settings
) -> Iterator[tuple[str, str, str, int, Callable[[], Sequence[nn.Module]]]]:
    """Yield what is to be converted, the model itself first.

    Args:
        model: what is converted.
        windows: of text that guides a latent.
        settings: of the experiment.

    Yields:
        ``(name, kind, how, numbers cached per token and layer, what makes the layers)``.
    """
    layers = model.attentions()
    width = 2 * layers[0].n_kv_heads * layers[0].v_head_dim
    yield "GQA", "GQA", "", width, lambda: layers
    yield "MLA, exact", "MLA", "", width, partial(convert_all, layers, rotary_gqa_to_mla)
    for how in POOLED:
        for seed in settings.seeds if how == "random" else (0,):
            draw = torch.Generator().manual_seed(seed)
            name = f"MQA, {how}" + (f" {seed}" if how == "random" else "")
            pool = partial(mha_to_gqa, n_kv_heads=1, how=how, generator=draw)
            numbers = width // layers[0].n_kv_heads
            yield name, "MQA", how, numbers, partial(convert_all, layers, pool)
    seen = zip(*(attention_inputs(model, tokens) for tokens in windows), strict=True)
    states = [torch.cat(parts, dim=1) for parts in seen]  # (1, tokens, d_model) for each layer
    for how in GUIDES:
        for rank in settings.ranks:
            make = partial(latents, layers, rank, states if how == GUIDES[1] else None)
            yield f"latent {rank}, {how}", "latent", how, rank, make


def convert_all(
    layers: Sequence[nn.Module], convert: Callable[..., nn.Module]
) -> list[nn.Module]:
    """Return all layers converted.

    Args:
        layers: what is converted.
        convert: of one layer.

    Returns:
        New layers.
    """
    return [convert(layer) for layer in layers]


def latents(
    layers: Sequence[GroupedQueryAttention], rank: int, states: Sequence[Tensor] | None
) -> list[nn.Module]:
    """Return layers that cache a latent.

    Args:
        layers: what is converted.
        rank: width of the latent.
        states: what each layer gets, or ``None`` for a latent by the weights.

    Returns:
        New layers.
    """
    hidden = [None] * len(layers) if states is None else states
    return [
        gqa_to_rebuilt(layer, rank, hidden=seen)
        for layer, seen in zip(layers, hidden, strict=True)
    ]


def train_on(
    model: Llama,
    layers: Sequence[nn.Module],
    sample: Tensor,
    judge: Callable[[], list[float]],
    settings: Settings,
) -> list[tuple[int, list[float]]]:
    """Train converted attention layers inside a model whose other weights stay.

    Args:
        model: what they are put into, for the time of the training.
        layers: one for each block; they are changed.
        sample: text to train on, int64, shape ``(n,)``.
        judge: returns the losses of the model as it is.
        settings: of the experiment.

    Returns:
        ``(steps, losses)`` before the first step, after a quarter, half, and all of them.
    """
    marks = sorted({0, settings.steps // 4, settings.steps // 2, settings.steps})
    parameters = [p.requires_grad_(True) for layer in layers for p in layer.parameters()]
    optimizer = torch.optim.AdamW(parameters, betas=(0.9, 0.95), weight_decay=0.0)
    generator, found, T = torch.Generator().manual_seed(0), [], settings.trained_tokens
    with with_attention(model, layers):
        for step in range(settings.steps + 1):
            if step in marks:
                found.append((step, judge()))
            if step == settings.steps:
                break
            rate = learning_rate(step, settings.steps, settings.lr, settings.steps // 10)
            optimizer.param_groups[0]["lr"] = rate
            start = int(torch.randint(len(sample) - T, (1,), generator=generator))
            tokens = sample[None, start : start + T + 1]  # (1, T + 1)
            logits = model(tokens[:, :-1])  # (1, T, V)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[0, 1:])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
    for parameter in parameters:
        parameter.requires_grad_(False)
    return found


#: The conversions that are trained on, the model itself for comparison.
TRAINED_ON = ("GQA", "MQA, mean", "latent 128, activations")


def read_prose(tokenizer: Tokenizer) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Return the stored prose as tokens, and its fingerprint.

    Args:
        tokenizer: of the model.

    Returns:
        ``(tokens, text)`` for "held_out" and "sample": int64 of shape ``(n,)``, and their
        number with the sha256 of what was read.
    """
    tokens = {
        part: torch.tensor(tokenizer.encode(prose(part))) for part in ("held_out", "sample")
    }
    text = {
        part: {"tokens": len(of), "sha256": hashlib.sha256(prose(part).encode()).hexdigest()}
        for part, of in tokens.items()
    }
    return tokens, text


def run(
    path: Path, model: Llama, tokenizer: Tokenizer, settings: Settings,
    *, progress: Callable[[str], object] = print,
) -> RealModelFindings:  # fmt: skip
    """Measure what is missing in a file, and write the file after each part.

    Args:
        path: of a JSON file, which need not exist.
        model: the real model.
        tokenizer: its tokenizer.
        settings: of the experiment.
        progress: called with a line for each part.

    Returns:
        Everything that is in the file then.

    Raises:
        ValueError: if the file is of other settings or of another text.
    """
    parts, text = read_prose(tokenizer)
    found = RealModelFindings(provenance("cpu", torch.float32), text, settings)
    if path.exists():
        earlier = RealModelFindings.read(json.loads(path.read_text(encoding="utf-8")))
        if (earlier.settings, earlier.text) != (settings, text):
            raise ValueError(f"json must have the same settings and text, got {path.name}")
        found = earlier
    passages = cut(parts["held_out"], settings.context + settings.tokens, settings.passages)
    judge = partial(passage_losses, model, passages, settings.context)
    if found.heads is None:
        found.heads = look_at_heads(model, passages, settings)
        save_json(path, found)
        progress("heads")
    made = {conversion.name for conversion in found.conversions}
    trained = {healed.name for healed in found.healed}
    windows = cut(parts["sample"], 512, settings.windows)
    todo = list(conversions(model, windows, settings))
    for name, kind, how, numbers, make in todo:
        if name not in made:
            with with_attention(model, make()):
                found.conversions.append(Conversion(name, kind, how, numbers, judge()))
            save_json(path, found)
            progress(f"{name}: x {found.times_worse(name)[0]:.2f}")
    for name, _, _, _, make in todo:
        if name in TRAINED_ON and name not in trained:
            layers = copy.deepcopy(make())  # the model's own layers are not to be trained
            found.healed.append(
                Healed(name, train_on(model, layers, parts["sample"], judge, settings))
            )
            save_json(path, found)
            progress(f"{name}, trained on: {perplexity(found.healed[-1].losses[-1][1]):.1f}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from a command line; return its exit status.

    Args:
        arguments: of the command line; ``None`` takes the program's own.

    Returns:
        0.
    """
    parser = OneLineParser(prog="python -m attnlib.labs.real_model", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True,
                        help="where to write the results, and continue them")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; default: 1")
    for name, value in asdict(Settings()).items():
        many = isinstance(value, tuple)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=type(value[0] if many else value),
            default=value, nargs="+" if many else None, metavar="N", help=f"default: {value}",
        )  # fmt: skip
    given = parser.parse_args(arguments)
    torch.set_num_threads(check_size("threads", given.threads))
    prepare_file(given.json)
    chosen: dict[str, Any] = {}
    for name in asdict(Settings()):
        value = getattr(given, name)
        chosen[name] = tuple(value) if isinstance(value, list) else value
    settings = Settings(**chosen)
    model, tokenizer = load_smollm()
    run(given.json, model, tokenizer, settings, progress=print_now)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
