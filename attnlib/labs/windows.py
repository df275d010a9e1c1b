"""Give the real model a window, with its first token and without, and let it learn sinks.

``python -m attnlib.labs.windows --json FILE`` writes FILE after each part and, started again,
continues where it stopped. All of it takes about half an hour on one thread.

Nothing but the sinks is trained: the model was made to see everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.bench import provenance
from attnlib.bench.arguments import OneLineParser, prepare_file
from attnlib.bench.stored import from_json, save_json
from attnlib.checks import check_size
from attnlib.core import split_heads
from attnlib.labs.experiment import RESULTS, Findings, print_now, run_missing
from attnlib.labs.heads import random_twice, with_attention
from attnlib.labs.llama import Llama
from attnlib.labs.real_model import cut, passage_losses, perplexity, read_prose
from attnlib.labs.smollm import Tokenizer, load_smollm
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.swa import SlidingWindowAttention

FULL, SINKS = "everything", "learned sinks"
CONTROL = "everything and learned sinks"  # the same training where nothing is missing
NO_SINK = -5.0  # a logit that takes next to no weight


@dataclass(frozen=True)
class WindowSettings:
    """Everything that decides the results.

    Args:
        context: tokens of a passage that come first and do not count.
        tokens: tokens of a passage that count.
        passages: of held-out text.
        windows: W of the layers, in tokens.
        window: the one with which patterns and sinks are tried.
        period: random tokens that are repeated.
        draws: of such tokens.
        steps: of training the sinks.
        trained_tokens: of one step; those in its second half count.
        lr: of the sinks.

    Raises:
        ValueError: if a size is below 1.
    """

    context: int = 512
    tokens: int = 512
    passages: int = 4
    windows: tuple[int, ...] = (64, 128, 256, 512)
    window: int = 256
    period: int = 384
    draws: int = 3
    steps: int = 60
    trained_tokens: int = 640
    lr: float = 0.1

    def __post_init__(self) -> None:
        """Check each setting."""
        for name, value in asdict(self).items():
            for size in value if isinstance(value, tuple) else [value]:
                if not isinstance(size, float):
                    check_size(name, size)


class WindowRun(NamedTuple):
    """The model with one kind of attention layers.

    Attributes:
        kind: what it is, no two alike.
        losses: of each passage after its context, nats per token.
        repeated: of random tokens said a second time, for each draw, nats per token.
        share: of a query's weight on the first token, the query's own, and the last 16 but the
            own; means over heads and layers.
        history: ``(steps, perplexity of the passages)`` while the sinks are trained.
    """

    kind: str
    losses: list[float]
    repeated: list[float]
    share: list[float]
    history: list[tuple[int, float]]

    @property
    def trial(self) -> tuple[str]:
        """What no other run has."""
        return (self.kind,)

    @property
    def perplexity(self) -> float:
        """The exponential of the mean loss."""
        return perplexity(self.losses)

    @property
    def summary(self) -> str:
        """One line."""
        return f"{self.kind}: perplexity {self.perplexity:.1f}"


@dataclass
class WindowFindings(Findings):
    """What was found."""

    STORED: ClassVar[str] = "windows-cpu"
    settings: WindowSettings
    runs: list[WindowRun]

    def run(self, kind: str) -> WindowRun:
        """Return one run.

        Args:
            kind: such as ``"everything"``, or of :func:`kind_of`.

        Returns:
            The run.

        Raises:
            ValueError: if there is none of this kind.
        """
        found = {run.kind: run for run in self.runs}
        if kind not in found:
            raise ValueError(f"kind must be one of {', '.join(found)}, got {kind!r}")
        return found[kind]


def kind_of(window: int, first: int = 0, pattern: str = "S") -> str:
    """Return the name of a kind of layers.

    Args:
        window: W.
        first: first tokens that are kept.
        pattern: of layers, F for those that see everything.

    Returns:
        Such as ``"256 + first 1, SF"``.
    """
    kept = f" + first {first}" if first else ""
    return f"{window}{kept}" + (f", {pattern}" if pattern != "S" else "")


def windowed(
    layers: Sequence[GroupedQueryAttention], window: int, first: int = 0, pattern: str = "S",
    sinks: Sequence[Tensor] | None = None,
) -> list[nn.Module]:  # fmt: skip
    """Return layers with the same weights that see a window.

    Args:
        layers: of the model.
        window: W, in tokens.
        first: first tokens that every query sees as well.
        pattern: of layers, repeated; those with F stay as they are.
        sinks: a logit for each head of each layer, or ``None``.

    Returns:
        As many layers.
    """
    made: list[nn.Module] = []
    for i, old in enumerate(layers):
        if pattern[i % len(pattern)] == "F":
            made.append(old)
            continue
        new = SlidingWindowAttention(
            old.q_proj.in_features, old.n_heads, old.n_kv_heads, window,
            head_dim=old.head_dim, rope=old.rope, first=first, sinks=sinks is not None,
        )  # fmt: skip
        new.load_state_dict(old.state_dict(), strict=False)
        new = new.to(old.q_proj.weight).eval().requires_grad_(False)
        if new.sinks is not None and sinks is not None:
            new.sinks.copy_(sinks[i])
        made.append(new)
    return made


@torch.no_grad()
def first_logits(model: Llama, tokens: Tensor) -> list[Tensor]:
    """Return the mean score that the queries of each head give to the first token.

    Args:
        model: sees everything.
        tokens: a passage, shape ``(1, T)``; the queries of its second half count.

    Returns:
        For each layer, shape ``(H,)``.
    """
    x, found, T = model.embed(tokens), [], tokens.shape[1]
    for block in model.blocks:
        layer, h = block.attention, block.attention_norm(x)
        q = split_heads(layer.q_proj(h), layer.n_heads)  # (1, H, T, D)
        k = split_heads(layer.k_proj(h), layer.n_kv_heads)  # (1, H_kv, T, D)
        q, k = layer.rope.rotate(q, k, length=T)
        first = k[0, :, 0].repeat_interleave(layer.n_heads // layer.n_kv_heads, dim=0)  # (H, D)
        scores = torch.einsum("htd,hd->ht", q[0, :, T // 2 :], first)  # (H, T / 2)
        found.append(scores.mean(dim=1) * layer.head_dim**-0.5)  # (H,)
        x = block(x)
    return found


@torch.no_grad()
def shares(model: Llama, tokens: Tensor, start: int) -> list[float]:
    """Return where the weight of the later queries lies.

    Args:
        model: with the layers in question.
        tokens: a passage, shape ``(1, T)``.
        start: the first query that counts, 17 or later.

    Returns:
        Shares of the first token, the query's own, and the 16 before it.
    """
    weights = model.weights(tokens)[:, 0, :, start:]  # (layers, H, queries, T)
    own = torch.arange(start, tokens.shape[1])
    places = own[:, None] - torch.arange(17)  # (queries, 17), own token first
    index = places.expand(*weights.shape[:2], -1, -1)
    near = weights.gather(-1, index).mean(dim=(0, 1, 2))  # (17,)
    return [weights[..., 0].mean().item(), near[0].item(), near[1:].sum().item()]


def train_sinks(
    model: Llama, layers: Sequence[nn.Module], sample: Tensor, judge: Callable[[], list[float]],
    settings: WindowSettings,
) -> list[tuple[int, float]]:  # fmt: skip
    """Train the sinks of layers inside a model, and nothing else.

    Args:
        model: what they are put into.
        layers: one for each block; their sinks are changed.
        sample: text to train on, int64, shape ``(n,)``.
        judge: returns the losses of the model as it is.
        settings: of the experiment.

    Returns:
        ``(steps, perplexity)`` before the first step, and after each third of them.
    """
    sinks: list[Any] = [layer.sinks.requires_grad_(True) for layer in layers]
    optimizer, generator = torch.optim.Adam(sinks, lr=settings.lr), torch.Generator()
    generator.manual_seed(0)
    marks = {0, settings.steps // 3, 2 * settings.steps // 3, settings.steps}
    found, T = [], settings.trained_tokens
    for step in range(settings.steps + 1):
        if step in marks:
            found.append((step, perplexity(judge())))
        if step == settings.steps:
            break
        start = int(torch.randint(len(sample) - T, (1,), generator=generator))
        tokens = sample[None, start : start + T + 1]  # (1, T + 1)
        logits = model(tokens[:, :-1])[0, T // 2 :]  # (T / 2, V), with a whole window
        loss = F.cross_entropy(logits, tokens[0, T // 2 + 1 :])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    for sink in sinks:
        sink.requires_grad_(False)
    return found


def trials(settings: WindowSettings) -> dict[str, Mapping[str, Any]]:
    """Return what is tried: arguments of :func:`windowed`, by the kind's name.

    Args:
        settings: of the experiment.

    Returns:
        In the order in which it is tried.
    """
    chosen = [(W, first, "S") for W in settings.windows for first in (0, 1)]
    chosen += [(settings.window, first, "S") for first in (2, 4)]
    chosen += [(settings.window, first, p) for p in ("SSSSSF", "SF") for first in (0, 1)]
    named = {
        kind_of(W, first, pattern): {"window": W, "first": first, "pattern": pattern}
        for W, first, pattern in chosen
    }
    return {
        FULL: {"window": 1, "pattern": "F"},
        **named,
        SINKS: {"window": settings.window},
        CONTROL: {"window": settings.context + settings.tokens},
    }


def run(
    path: Path, model: Llama, tokenizer: Tokenizer, settings: WindowSettings, *,
    progress: Callable[[str], object] = print,
) -> WindowFindings:  # fmt: skip
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
    length = settings.context + settings.tokens
    passages = cut(parts["held_out"], length, settings.passages)
    vocabulary = model.sizes.vocabulary
    draws = [torch.Generator().manual_seed(seed) for seed in range(settings.draws)]
    twice = [random_twice(vocabulary, settings.period, draw) for draw in draws]
    tried, plain = trials(settings), model.attentions()

    def judge() -> list[float]:
        return passage_losses(model, passages, settings.context)

    def measure(kind: str) -> WindowRun:
        sinks = None
        if kind == SINKS:
            sinks = first_logits(model, parts["sample"][None, : settings.trained_tokens])
        elif kind == CONTROL:
            sinks = [torch.full((layer.n_heads,), NO_SINK) for layer in plain]
        layers, history = windowed(plain, **tried[kind], sinks=sinks), []
        with with_attention(model, layers):
            if sinks is not None:
                history = train_sinks(model, layers, parts["sample"], judge, settings)
            repeated = passage_losses(model, twice, settings.period + 1)
            share = shares(model, passages[0][:, : settings.context], max(settings.window, 17))
            return WindowRun(kind, judge(), repeated, share, history)

    new = WindowFindings(provenance("cpu", torch.float32), text, settings, [])
    return run_missing(path, new, [(kind,) for kind in tried], measure, progress=progress)


#: A short text on which the weights of some layers are stored, and the window for it.
SHORT = "The keys to the old cabinet by the door are on my table."
SHORT_WINDOW, SHORT_LAYERS = 5, (12, 18, 24)


@dataclass
class Looks:
    """Where the heads of the real model look in a short text.

    Attributes:
        provenance: where, with what and when.
        tokens: of the text, as they are printed.
        layers: whose weights are stored.
        weights: for each kind of layers, in thousandths and in the order of
            ``(layers, H, T, T)``, with spaces between.
    """

    provenance: Mapping[str, Any]
    tokens: list[str]
    layers: list[int]
    weights: dict[str, str]

    @classmethod
    def load(cls, name: str = "sinks-cpu") -> Looks:
        """Return what is stored with the package.

        Args:
            name: one of those in :mod:`attnlib.labs.results`.

        Returns:
            The weights.
        """
        found: Looks = from_json(cls, RESULTS.load(name))
        return found

    def of(self, kind: str) -> Tensor:
        """Return the weights of one kind, shape ``(layers, H, T, T)``.

        Args:
            kind: one of those in ``weights``.

        Returns:
            Rows that sum to 1.

        Raises:
            ValueError: if there is none of this kind.
        """
        if kind not in self.weights:
            raise ValueError(f"kind must be one of {list(self.weights)}, got {kind!r}")
        numbers = torch.tensor([float(word) for word in self.weights[kind].split()])
        T = len(self.tokens)
        rows = numbers.reshape(len(self.layers), -1, T, T)
        return rows / rows.sum(dim=-1, keepdim=True)  # thousandths are rounded


@torch.no_grad()
def look(model: Llama, tokenizer: Tokenizer) -> Looks:
    """Return where heads look in the short text: with all tokens, a window, and the first.

    Args:
        model: the real model.
        tokenizer: its tokenizer.

    Returns:
        The weights of three layers.
    """
    ids, plain = tokenizer.encode(SHORT), model.attentions()
    kinds: dict[str, Sequence[nn.Module]] = {
        FULL: plain,
        f"the last {SHORT_WINDOW}": windowed(plain, SHORT_WINDOW),
        f"the last {SHORT_WINDOW} and the first": windowed(plain, SHORT_WINDOW, 1),
    }
    found = {}
    for kind, layers in kinds.items():
        with with_attention(model, layers):
            weights = model.weights(torch.tensor([ids]))[list(SHORT_LAYERS), 0]
        numbers = (1000 * weights).round().int().flatten().tolist()
        found[kind] = " ".join(map(str, numbers))
    origin = provenance("cpu", torch.float32)
    return Looks(origin, tokenizer.pieces(ids), list(SHORT_LAYERS), found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the experiment from a command line; return its exit status.

    Args:
        arguments: of the command line; ``None`` takes the program's own.

    Returns:
        0.
    """
    parser = OneLineParser(prog="python -m attnlib.labs.windows", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", required=True,
                        help="where to write the results, and continue them")  # fmt: skip
    parser.add_argument("--threads", type=int, default=1, help="of the CPU; default: 1")
    parser.add_argument("--looks", type=Path, metavar="FILE",
                        help="where to write the weights on a short text")  # fmt: skip
    given = parser.parse_args(arguments)
    torch.set_num_threads(check_size("threads", given.threads))
    prepare_file(given.json)
    model, tokenizer = load_smollm()
    if given.looks:
        save_json(given.looks, look(model, tokenizer))
    run(given.json, model, tokenizer, WindowSettings(), progress=print_now)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
