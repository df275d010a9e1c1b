"""Hide a needle at every depth of a text, and see which small models find it.

``python -m attnlib.labs.needle --json FILE`` writes FILE after each run and, started again,
continues where it stopped. A text has random letters, one needle, and later question marks. At
each question mark a model must output the needle. The models differ only in which layers have
a sliding window. L layers with a window of W tokens reach L (W - 1) + 1 tokens, the question's
own included: a needle outside one window must be relayed from layer to layer, and one outside
the reach cannot be found.
"""

from __future__ import annotations

import string
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlib.bench import provenance
from attnlib.bench.arguments import OneLineParser, prepare_file
from attnlib.bench.stored import aligned, day_in, machine_in
from attnlib.checks import check_heads, check_kv_heads, check_size
from attnlib.labs import experiment
from attnlib.labs.model import TinyLM, device_of
from attnlib.labs.stats import Estimate, estimate
from attnlib.labs.train import learning_rate, new_optimizer
from attnlib.rope import Rope
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.swa import SlidingWindowAttention

#: Names of all models that are trained, in the order of tables.
KINDS = ("all full", "hybrid", "hybrid, full first", "all window")
VALUES, FILLER, QUESTION = string.ascii_uppercase, string.ascii_lowercase, "?"
HELD_OUT = 10**6  # added to a seed, it gives the texts on which models are judged


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run, except kind, seed and device.

    Args:
        d_model: width of the residual stream.
        n_layers: number of layers, L.
        n_heads: query heads, H.
        n_kv_heads: KV heads, H_kv.
        d_ff: width inside the feed-forward parts.
        window: tokens that a query of a windowed layer sees, W, its own included.
        tokens: of one text, T.
        n_values: letters that a needle can be; a guess is right once in so many times.
        questions: share of the tokens after the needle that are questions, 0 to 1; the last
            token always is one.
        steps: of training.
        batch_size: texts per step, B.
        lr: the highest learning rate.
        warmup: steps until it is reached.
        texts: on which a model is judged, for each distance.
        swapped: of those, how many are read again with another needle.
        distances: from the needle to the question, in tokens; 1 = the question comes next.

    Raises:
        ValueError: if a size is below 1, or ``n_layers`` or ``tokens`` below 2, heads do not
            fit together, ``n_values`` is not 2 to 26, ``questions`` is not 0 to 1, ``swapped``
            is above ``texts``, or a distance does not fit into a text.
    """

    d_model: int = 64
    n_layers: int = 4
    n_heads: int = 4
    n_kv_heads: int = 2
    d_ff: int = 128
    window: int = 16
    tokens: int = 96
    n_values: int = 16
    questions: float = 0.25
    steps: int = 300
    batch_size: int = 32
    lr: float = 3e-3
    warmup: int = 20
    texts: int = 128
    swapped: int = 16
    distances: tuple[int, ...] = (
        *(1, 4, 8, 12, 14, 15, 16, 20, 24, 28, 30, 31, 32, 36, 40, 44, 45, 46, 48, 52, 56),
        *(57, 58, 59, 60, 61, 62, 64, 68, 72, 76, 80, 84, 88, 92, 95),
    )

    def __post_init__(self) -> None:
        """Check each setting."""
        for name, value in asdict(self).items():
            if name not in ("questions", "lr", "distances"):
                check_size(name, value)
        for name in ("n_layers", "tokens"):  # one layer would make equal models of two kinds
            check_size(name, getattr(self, name), least=2)
        check_heads(self.d_model, self.n_heads, None, rope=Rope())
        check_kv_heads(self.n_heads, self.n_kv_heads)
        if not 2 <= self.n_values <= len(VALUES):
            raise ValueError(f"n_values must be 2 to {len(VALUES)}, got {self.n_values}")
        if not 0 <= self.questions <= 1:
            raise ValueError(f"questions must be 0 to 1, got {self.questions}")
        if self.swapped > self.texts:
            raise ValueError(f"swapped must be up to texts = {self.texts}, got {self.swapped}")
        if not self.distances or not {*self.distances} <= set(range(1, self.tokens)):
            raise ValueError(
                f"distances must lie in 1 to tokens - 1 = {self.tokens - 1},"
                f" got {self.distances}"
            )

    @property
    def reach(self) -> int:
        """Tokens that all layers reach if each has a window, the query's own included.

        The farthest of them is ``reach - 1`` tokens away.
        """
        return self.n_layers * (self.window - 1) + 1

    @property
    def patterns(self) -> dict[str, str]:
        """Letters of the layers of each kind, the first one first; F sees everything."""
        windows = "S" * (self.n_layers - 1)
        letters = ("F" * self.n_layers, windows + "F", "F" + windows, windows + "S")
        return dict(zip(KINDS, letters, strict=True))


class Texts(NamedTuple):
    """Texts of equal length, each with one needle.

    Attributes:
        tokens: int64, shape ``(B, T)``.
        questions: boolean, True where the token is a question, shape ``(B, T)``.
        needles: the needle of each text, which is the answer to its questions, int64, shape
            ``(B,)``.
    """

    tokens: Tensor
    questions: Tensor
    needles: Tensor


class NeedleRun(NamedTuple):
    """One model that was trained.

    Attributes:
        kind: its name, one of :data:`KINDS`.
        seed: of its weights and texts.
        accuracy: share of the questions that were answered rightly, for each distance.
        changes: share of the texts in which another needle changes any logit of the question,
            for each distance.
        loss: mean over the last tenth of training, in nats per question; needles at all
            distances count.
        cpu_seconds: of its training; CPU time of this process.
    """

    kind: str
    seed: int
    accuracy: list[float]
    changes: list[float]
    loss: float
    cpu_seconds: float

    @property
    def trial(self) -> tuple[str, int]:
        """The part of a run that another one would repeat, kind and seed."""
        return self.kind, self.seed

    @property
    def summary(self) -> str:
        """The result in one line."""
        return (
            f"seed {self.seed}, {self.kind:18} accuracy {min(self.accuracy):.3f} to"
            f" {max(self.accuracy):.3f}, loss {self.loss:.3f} nats per question,"
            f" {self.cpu_seconds:.0f} s"
        )


def make_layers(pattern: str, settings: Settings) -> list[nn.Module]:
    """Make the attention of each layer, with weights of the same shapes in all patterns.

    Args:
        pattern: one letter for each layer, from the first to the last: F = full, S = sliding
            window.
        settings: the sizes.

    Returns:
        As many layers as letters.

    Raises:
        ValueError: if the pattern is empty or has another letter, or heads do not fit together.
    """
    if not pattern or not {*pattern} <= {"F", "S"}:
        raise ValueError(f"pattern must be of the letters F and S, got {pattern!r}")
    d, H, H_kv, rope = settings.d_model, settings.n_heads, settings.n_kv_heads, Rope()
    return [
        GroupedQueryAttention(d, H, H_kv, rope=rope)
        if letter == "F"
        else SlidingWindowAttention(d, H, H_kv, settings.window, rope=rope)
        for letter in pattern
    ]


def pattern_model(pattern: str, settings: Settings, *, seed: int = 0) -> TinyLM:
    """Build a model with new random weights, which the pattern does not change.

    Args:
        pattern: which layers have a window: see :func:`make_layers`.
        settings: the sizes; the pattern alone says how many layers there are.
        seed: of the weights.

    Returns:
        The model, ready to be trained.

    Raises:
        ValueError: if the pattern is empty or has another letter.
    """
    torch.manual_seed(seed)
    return TinyLM(
        iter(make_layers(pattern, settings)).__next__,
        d_model=settings.d_model,
        n_layers=len(pattern),
        d_ff=settings.d_ff,
    )


def make_texts(at: Tensor, settings: Settings, generator: torch.Generator) -> Texts:
    """Write random texts with needles at given positions.

    The answer itself is nowhere in a text: what follows a question is another letter or
    another question.

    Args:
        at: position of each needle, int64, shape ``(B,)``; not the last one of a text.
        settings: length and symbols.
        generator: of all that is random.

    Returns:
        The texts; each ends in a question.
    """
    B, T = len(at), settings.tokens
    tokens = torch.randint(len(FILLER), (B, T), generator=generator) + ord(FILLER[0])  # (B, T)
    drawn = torch.rand(B, T, generator=generator) < settings.questions  # (B, T)
    drawn[:, -1] = True
    questions = drawn & (torch.arange(T) > at[:, None])  # (B, T)
    needles = torch.randint(settings.n_values, (B,), generator=generator) + ord(VALUES[0])
    tokens[questions] = ord(QUESTION)
    tokens[torch.arange(B), at] = needles
    return Texts(tokens, questions, needles)


def with_other_needles(texts: Texts, at: Tensor, settings: Settings) -> Texts:
    """Return texts whose needles are other letters, and in which nothing else is different.

    Args:
        texts: which stay as they are.
        at: position of each needle, int64, shape ``(B,)``.
        settings: symbols.

    Returns:
        As many texts.
    """
    first = ord(VALUES[0])
    needles = (texts.needles - first + 1) % settings.n_values + first  # the next letter
    tokens = texts.tokens.clone()
    tokens[torch.arange(len(at)), at] = needles
    return texts._replace(tokens=tokens, needles=needles)


def answer_loss(model: nn.Module, texts: Texts) -> Tensor:
    """Return the mean surprise at the needle, at questions alone.

    Args:
        model: gives logits ``(B, T, 256)`` for bytes ``(B, T)``.
        texts: on the model's device.

    Returns:
        A scalar, in nats per question; the logarithm of the number of values for a guess.
    """
    logits = model(texts.tokens)[texts.questions]  # (questions, 256)
    answers = texts.needles[:, None].expand_as(texts.questions)[texts.questions]
    return F.cross_entropy(logits, answers)


def train_to_find(model: nn.Module, settings: Settings, seed: int) -> float:
    """Train a model on needles at random positions, of which all are equally likely.

    The seed decides the texts and nothing else does, so all kinds of model read the same ones.

    Args:
        model: changed in place.
        settings: of the texts and of the training.
        seed: of the texts.

    Returns:
        Mean loss of the last tenth of all steps, in nats per question.
    """
    s, device = settings, device_of(model)
    generator = torch.Generator().manual_seed(seed)
    optimizer, losses = new_optimizer(model), []
    for step in range(s.steps):
        at = torch.randint(s.tokens - 1, (s.batch_size,), generator=generator)  # (B,)
        texts = Texts(*(part.to(device) for part in make_texts(at, s, generator)))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, s.steps, s.lr, s.warmup)
        optimizer.zero_grad(set_to_none=True)
        loss = answer_loss(model, texts)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    last = losses[-max(1, s.steps // 10) :]
    return sum(last) / len(last)


@torch.no_grad()
def judge(
    model: nn.Module, settings: Settings, seed: int, *, at_once: int = 32
) -> tuple[list[float], list[float]]:
    """Ask a model for needles at each distance, at the last token of texts it has never read.

    Args:
        model: to be judged.
        settings: of the texts, and the distances.
        seed: of the texts.
        at_once: texts that the model reads in one call.

    Returns:
        For each distance, the share of right answers, and the share of texts in which another
        needle changes any logit of the last token by any amount.

    Raises:
        ValueError: if ``at_once`` is below 1.
    """
    check_size("at_once", at_once)
    s, device = settings, device_of(model)
    generator = torch.Generator().manual_seed(HELD_OUT + seed)

    def last_logits(tokens: Tensor) -> Tensor:
        parts = tokens.to(device).split(at_once)
        return torch.cat([model(part)[:, -1] for part in parts]).cpu()  # (B, 256)

    accuracy, changes = [], []
    for distance in s.distances:
        at = torch.full((s.texts,), s.tokens - 1 - distance)  # (B,)
        texts = make_texts(at, s, generator)
        logits = last_logits(texts.tokens)  # (B, 256)
        others = last_logits(with_other_needles(texts, at, s).tokens[: s.swapped])
        right = logits.argmax(dim=-1) == texts.needles  # (B,)
        changed = (logits[: s.swapped] != others).any(dim=-1)  # (swapped,)
        accuracy.append(right.float().mean().item())
        changes.append(changed.float().mean().item())
    return accuracy, changes


def run_one(
    kind: str, seed: int, settings: Settings, device: torch.device | str = "cpu"
) -> NeedleRun:
    """Train one model, and judge it at each distance.

    Args:
        kind: one of :data:`KINDS`.
        seed: of weights and texts.
        settings: everything else.
        device: where.

    Returns:
        The run.

    Raises:
        ValueError: if there is no such kind.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {list(KINDS)}, got {kind!r}")
    model = pattern_model(settings.patterns[kind], settings, seed=seed).to(device)
    start = time.process_time()
    loss = train_to_find(model, settings, seed)
    seconds = time.process_time() - start
    accuracy, changes = judge(model, settings, seed)
    return NeedleRun(
        kind=kind,
        seed=seed,
        accuracy=[round(share, 4) for share in accuracy],
        changes=[round(share, 4) for share in changes],
        loss=round(loss, 4),
        cpu_seconds=round(seconds, 1),
    )


@dataclass
class NeedleFindings(experiment.Findings):
    """What the laboratory found.

    Attributes:
        provenance: where, with what and when: names to values.
        text: of what the texts are made: "values", "filler" and "question".
        settings: of all runs.
        runs: in the order in which they were made.
    """

    STORED: ClassVar[str] = "needle-cpu"
    settings: Settings
    runs: list[NeedleRun]

    @property
    def distances(self) -> tuple[int, ...]:
        """From the needle to the question, in tokens, for each number of a run's lists."""
        return self.settings.distances

    @property
    def chance(self) -> float:
        """Share of right answers of a model that guesses."""
        return 1 / self.settings.n_values

    def seeds(self) -> list[int]:
        """Return the seeds from which every kind has been trained, sorted."""
        done = {run.trial for run in self.runs}
        kinds, seeds = {run.kind for run in self.runs}, {run.seed for run in self.runs}
        return sorted(seed for seed in seeds if all((kind, seed) in done for kind in kinds))

    def select(self, kind: str) -> list[NeedleRun]:
        """Return the runs of one kind from :meth:`seeds`, in their order.

        Args:
            kind: of the model.

        Returns:
            The runs.

        Raises:
            ValueError: if there is no such run.
        """
        by_seed = {run.seed: run for run in self.runs if run.kind == kind}
        if not by_seed:
            kinds = sorted({run.kind for run in self.runs})
            raise ValueError(f"kind must be one of {kinds}, got {kind!r}")
        return [by_seed[seed] for seed in self.seeds()]

    def accuracy(self, kind: str) -> list[Estimate]:
        """Return the share of right answers of one kind, for each of :attr:`distances`.

        Args:
            kind: of the model.

        Returns:
            Means over the seeds with their 95 % intervals.

        Raises:
            ValueError: if there is no such run, or fewer than two seeds.
        """
        by_distance = zip(*(run.accuracy for run in self.select(kind)), strict=True)
        return [estimate(values) for values in by_distance]

    def changes(self, kind: str) -> list[float]:
        """Return how often another needle changes a logit, for each of :attr:`distances`.

        Args:
            kind: of the model.

        Returns:
            Shares of the texts of all seeds; 0 = the needle is out of reach.

        Raises:
            ValueError: if there is no such run.
        """
        runs = self.select(kind)
        by_distance = zip(*(run.changes for run in runs), strict=True)
        return [sum(values) / len(runs) for values in by_distance]

    def describe(self) -> str:
        """Describe in words where the numbers come from.

        Returns:
            One line per fact.
        """
        s, origin = self.settings, self.provenance
        return aligned(
            {
                "processor": machine_in(origin),
                "versions": f"torch {origin['torch']}, Python {origin['python']}",
                "day": day_in(origin),
                "model": f"{s.n_layers} layers of width {s.d_model}, window {s.window},"
                f" reach {s.reach}",
                "texts": f"{s.tokens} tokens, one needle of {s.n_values} values",
                "training": f"{s.steps:,} steps of {s.batch_size} texts",
                "learning rate": f"up to {s.lr} in {s.warmup} steps, then down to a tenth",
                "judged on": f"{s.texts} new texts for each of {len(s.distances)} distances",
                "seeds": ", ".join(map(str, self.seeds())),
            }
        )


def no_runs(settings: Settings, device: torch.device | str = "cpu") -> NeedleFindings:
    """Return findings without runs, to be filled.

    Args:
        settings: of all runs.
        device: where they will train.

    Returns:
        The findings.
    """
    symbols: Mapping[str, object] = {
        "values": VALUES[: settings.n_values], "filler": FILLER, "question": QUESTION,
    }  # fmt: skip
    return NeedleFindings(provenance(device, torch.float32), symbols, settings, runs=[])


def run_needle(
    path: Path,
    seeds: Iterable[int],
    settings: Settings,
    *,
    kinds: Sequence[str] = KINDS,
    device: torch.device | str = "cpu",
    progress: Callable[[str], object] = print,
) -> NeedleFindings:
    """Train what is still missing in a file, and write the file after each run.

    Seeds are the outer loop, so that early on there are seeds which all kinds have.

    Args:
        path: of a JSON file, which need not exist.
        seeds: of the runs.
        settings: of all of them.
        kinds: of the models.
        device: where to train.
        progress: called with one line after each run.

    Returns:
        Everything that is in the file then.

    Raises:
        ValueError: if the file has runs of other settings, or a kind is unknown.
    """
    return experiment.run_missing(
        path,
        no_runs(settings, device),
        [(kind, seed) for seed in seeds for kind in kinds],
        lambda kind, seed: run_one(kind, seed, settings, device),
        progress=progress,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the laboratory from the command line.

    Args:
        arguments: of the command line; ``None`` takes the program's own.
    """
    summary = __doc__.splitlines()[0]  # it reads no text, so it has a parser without --folder
    parser = OneLineParser(prog="python -m attnlib.labs.needle", description=summary)
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", required=True,
        help="where to write the results, and continue them")  # fmt: skip
    add("--seeds", type=int, nargs="+", metavar="N", default=list(range(5)),
        help="one run for each; default: 0 1 2 3 4")  # fmt: skip
    add("--kinds", nargs="+", metavar="NAME", default=KINDS, choices=KINDS,
        help=f"all, or some of: {', '.join(map(repr, KINDS))}")  # fmt: skip
    add("--device", default="cpu", help="such as cpu or cuda; default: cpu")
    add("--threads", type=int, metavar="N", default=1, help="of the CPU; default: 1")
    add = parser.add_argument_group("settings of every run").add_argument
    for name, value in asdict(Settings()).items():
        many = isinstance(value, tuple)
        add(f"--{name.replace('_', '-')}", type=type(value[0] if many else value),
            default=value, nargs="+" if many else None, metavar="N",
            help=f"default: {' '.join(map(str, value)) if many else value}")  # fmt: skip
    with parser.refusing():
        given = parser.parse_args(arguments)
        chosen: dict[str, Any] = {name: getattr(given, name) for name in asdict(Settings())}
        settings = Settings(**{**chosen, "distances": tuple(chosen["distances"])})
        torch.set_num_threads(check_size("threads", given.threads))
        experiment.check_device(given.device)
        prepare_file(given.json)
        experiment.resume(given.json, no_runs(settings, given.device))
    found = run_needle(
        given.json, given.seeds, settings,
        kinds=given.kinds, device=given.device, progress=experiment.print_now,
    )  # fmt: skip
    print(found.describe())


if __name__ == "__main__":
    main()
