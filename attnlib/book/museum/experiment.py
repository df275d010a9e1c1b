"""What the losses of small models show of each bug: trained, decoding, with given weights.

``python -m attnlib.book.museum --json FILE`` trains all models, which takes a few
minutes on one thread. The texts are patterns of 8 random symbols, repeated: to know the next
symbol, look 8 tokens back. Each bug is compared with the right layer trained alike: of the same
sizes, with the same rotation, from the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlib.bench import provenance
from attnlib.bench.arguments import OneLineParser, prepare_file
from attnlib.bench.stored import (
    StoredResults,
    aligned,
    day_in,
    from_json,
    machine_in,
    save_json,
)
from attnlib.book.museum.bug import Bug
from attnlib.book.museum.catalogue import BUGS
from attnlib.book.museum.layers import (
    ReferenceAttention,
    ReferenceLatentAttention,
    ReferenceSplitAttention,
    ReferenceSteps,
    ReferenceWindowAttention,
)
from attnlib.checks import check_size
from attnlib.labs.model import TinyLM
from attnlib.labs.train import next_byte_loss
from attnlib.rope import Rope

SYMBOLS, PERIOD, LENGTH = 16, 8, 32
D_MODEL = 32
STORED = StoredResults("attnlib.book.museum.results")

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
    ReferenceWindowAttention: {
        "d_model": D_MODEL,
        "n_heads": 4,
        "n_kv_heads": 2,
        "rope": Rope(),
        "window": PERIOD,
    },
    ReferenceSplitAttention: {  # twice the heads, so that each rank has as many as one device
        "d_model": D_MODEL,
        "n_heads": 8,
        "n_kv_heads": 4,
        "head_dim": 8,
        "rope": Rope(),
    },
}

#: Nats per token. No model that sees only the past gets below it on these texts, since the
#: first pattern is a guess, except for its first symbol, which is given.
LEAST_LOSS = math.log(SYMBOLS) * (PERIOD - 1) / LENGTH


class Losses(NamedTuple):
    """Losses of a model on new texts, in nats per token.

    Attributes:
        trained: reading whole texts, as in training.
        decoded: reading the same texts token by token, with a cache.
    """

    trained: float
    decoded: float


class BugRun(NamedTuple):
    """Losses of a wrong layer and of the right one, from one draw of weights and texts.

    Attributes:
        bug: its name.
        seed: of the draw.
        right: the right layer, trained.
        wrong: the wrong layer, trained on the same texts from the same weights.
        given: the right layer's trained weights in the wrong layer.
    """

    bug: str
    seed: int
    right: Losses
    wrong: Losses
    given: Losses


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run, except the bug and the seed.

    Args:
        steps: of training.
        batch_size: texts per step.
        lr: learning rate.
        held_out: new texts on which the losses are measured.

    Raises:
        ValueError: if a size is below 1.
    """

    steps: int = 100
    batch_size: int = 32
    lr: float = 1e-2
    held_out: int = 64

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if name != "lr":
                check_size(name, value)


@dataclass
class Training:
    """What the losses of small models show of the bugs.

    Attributes:
        provenance: where, with what and when: names to values.
        settings: of all runs.
        runs: one per bug and seed.
    """

    provenance: Mapping[str, object]
    settings: Settings
    runs: list[BugRun]

    def seeds(self) -> list[int]:
        """Return the seeds, in their order."""
        return list(dict.fromkeys(run.seed for run in self.runs))

    def of(self, bug: str) -> list[BugRun]:
        """Return the runs of one bug, one per seed.

        Args:
            bug: its name.

        Returns:
            The runs, in the order of their seeds.

        Raises:
            ValueError: if there is no run of it.
        """
        found = [run for run in self.runs if run.bug == bug]
        if not found:
            raise ValueError(f"bug must be one of {[*BUGS]}, got {bug!r}")
        return found

    def table(self, bugs: Iterable[str] = ()) -> str:
        """Return the mean losses of bugs, each beside the right layer trained alike.

        Args:
            bugs: names; none means all.

        Returns:
            A head, then one line per bug. The columns: the right layer and the wrong one, both
            trained and reading whole texts; the lowest and the highest difference of the two in
            one draw; the wrong one decoding; the right one's weights in the wrong layer.
        """
        lines = [
            f"{'':29}{'right':>6}{'wrong':>7}{'wrong - right':>17}{'decoding':>10}{'given':>7}"
        ]
        for name in bugs or dict.fromkeys(run.bug for run in self.runs):
            runs = self.of(name)
            off = [run.wrong.trained - run.right.trained + 0.0 for run in runs]
            columns = (
                f"{mean(run.right.trained for run in runs):6.2f}",
                f"{mean(run.wrong.trained for run in runs):7.2f}",
                f"{f'{min(off):+.2f} to {max(off):+.2f}':>17}",
                f"{mean(run.wrong.decoded for run in runs):10.2f}",
                f"{mean(run.given.trained for run in runs):7.2f}",
            )
            lines.append(f"{name:29}{''.join(columns)}")
        return "\n".join(lines)

    def describe(self) -> str:
        """Describe in words where the numbers come from.

        Returns:
            One line per fact.
        """
        origin = self.provenance
        return aligned(
            {
                "processor": machine_in(origin),
                "versions": f"torch {origin['torch']}, Python {origin['python']}",
                "day": day_in(origin),
                "training": f"{self.settings.steps} steps of {self.settings.batch_size} texts",
                "seeds": ", ".join(map(str, self.seeds())),
            }
        )


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


def train_with(
    build: Callable[[], nn.Module], *, seed: int = 0, settings: Settings | None = None
) -> tuple[TinyLM, Losses]:
    """Train a small model with an attention layer, and measure its losses on new texts.

    Args:
        build: makes the layer, of width 32.
        seed: of the weights and of the texts.
        settings: of the run; ``None`` means those of the stored runs.

    Returns:
        The model and both losses. ``LEAST_LOSS`` is the least that a model without a leak can
        have.
    """
    settings = settings or Settings()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TinyLM(build, d_model=D_MODEL, n_layers=1, d_ff=64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr)
    for _ in range(settings.steps):
        optimizer.zero_grad()
        next_byte_loss(model, patterns(settings.batch_size, generator)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model, losses_of(model, new_texts(seed, settings))


def new_texts(seed: int, settings: Settings) -> Tensor:
    """Draw the texts on which the losses of one seed are measured.

    Args:
        seed: of the run.
        settings: of the run.

    Returns:
        Tokens that no model was trained on, int64, shape ``(held_out, 33)``.
    """
    return patterns(settings.held_out, torch.Generator().manual_seed(1_000_000 + seed))


@torch.no_grad()
def losses_of(model: TinyLM, text: Tensor) -> Losses:
    """Measure the losses of a model on texts, read whole and token by token.

    Args:
        model: a trained one.
        text: tokens, int64, shape ``(B, T + 1)``.

    Returns:
        Mean losses in nats per token.
    """
    B, T = text.shape[0], text.shape[1] - 1
    caches = model.new_caches(B, T)
    decoded = [model(text[:, [t]], caches) for t in range(T)]  # (B, 1, 256) each
    by_token = F.cross_entropy(torch.cat(decoded, dim=1).mT, text[:, 1:])
    return Losses(next_byte_loss(model, text).item(), by_token.item())


def small_layer(bug: Bug, *, right: bool = False) -> nn.Module:
    """Return a layer with a bug, for the small model.

    Args:
        bug: one of ``BUGS``.
        right: whether to return the same layer without the bug.

    Returns:
        A layer with the rotation, the sinks and the proportion of heads of the museum's layer:
        a KV head per query head where the bug is shown so, else one for two query heads. A
        window is as long as the pattern.
    """
    arguments = dict(SMALL[bug.reference])
    if "n_heads" in bug.arguments:
        arguments["n_heads"] = bug.arguments["n_heads"]
    if "n_kv_heads" in bug.arguments:
        arguments["n_kv_heads"] = arguments["n_heads"]
    for name in ("rope", "first", "sinks", "index"):
        if name in bug.arguments:
            arguments[name] = bug.arguments[name]
    return (bug.reference if right else bug.layer)(**arguments)


def run_one(
    bug: Bug, seed: int, settings: Settings, trained: dict[str, tuple[TinyLM, Losses]]
) -> BugRun:
    """Train with a bug and, unless that was done before, without it.

    Args:
        bug: one of ``BUGS``.
        seed: of weights and texts.
        settings: of the run.
        trained: right models by what they were trained with; a new one is added.

    Returns:
        What both ended with.
    """
    alike = f"{seed} {bug.reference.__name__} {sorted(bug.arguments.items())}"
    if alike not in trained:
        trained[alike] = train_with(
            lambda: small_layer(bug, right=True), seed=seed, settings=settings
        )
    model, right = trained[alike]
    other, wrong = train_with(lambda: small_layer(bug), seed=seed, settings=settings)
    other.load_state_dict(model.state_dict())
    given = losses_of(other, new_texts(seed, settings))
    return BugRun(bug.name, seed, right, wrong, given)


def run_training(
    seeds: Sequence[int] = (0, 1, 2, 3),
    settings: Settings | None = None,
    *,
    bugs: Iterable[str] | None = None,
    progress: Callable[[str], object] = print,
) -> Training:
    """Train small models with all bugs and without them.

    Args:
        seeds: one draw of weights and texts for each.
        settings: of all runs; ``None`` means those of the stored runs.
        bugs: names; ``None`` means all.
        progress: called with a line after each bug.

    Returns:
        All losses.
    """
    settings = settings or Settings()
    found = Training(provenance("cpu", torch.float32), settings, [])
    trained: dict[str, tuple[TinyLM, Losses]] = {}
    for name in BUGS if bugs is None else bugs:
        found.runs += [run_one(BUGS[name], seed, settings, trained) for seed in seeds]
        progress(found.table([name]).splitlines()[-1])
    return found


def training() -> Training:
    """Return the losses of all bugs that are stored with the package."""
    found: Training = from_json(Training, STORED.load("losses-cpu"))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Train all models from the command line.

    Args:
        arguments: of the command line; ``None`` takes the program's own.
    """
    parser = OneLineParser(
        prog="python -m attnlib.book.museum", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", required=True, help="where to write the losses")
    add("--seeds", type=int, nargs="+", metavar="N", default=[0, 1, 2, 3],
        help="one draw for each; default: 0 1 2 3")  # fmt: skip
    add("--steps", type=int, metavar="N", default=Settings().steps, help="default: %(default)s")
    with parser.refusing():
        given = parser.parse_args(arguments)
        settings = Settings(steps=given.steps)
        prepare_file(given.json)
    torch.set_num_threads(1)
    found = run_training(given.seeds, settings, progress=lambda line: print(line, flush=True))
    save_json(given.json, found)
    print(found.describe())
