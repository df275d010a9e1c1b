"""Train small models with multi-head attention, convert them, and train them on.

``python -m attnlib.labs.conversion --json FILE`` writes FILE after each seed and, started
again, continues where it stopped. There are two questions. After KV heads have been pooled,
what is left, and how fast does it heal? And how much of keys and values must a latent keep?

Two models are trained from each seed. "rotary" has RoPE, as most models have today; its heads
are pooled. "added" has positions added to its input, as in Vaswani et al. 2017, arXiv
1706.03762, section 3.5: its keys are not rotated, so they can come from a latent, too.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from attnlib.bench import provenance
from attnlib.checks import check_heads, check_kv_heads, check_size
from attnlib.labs import experiment
from attnlib.labs.convert import mha_to_gqa, mha_to_mla
from attnlib.labs.model import PositionedLM, TinyLM, device_of
from attnlib.labs.text import Text, windows
from attnlib.labs.train import held_out_loss, train
from attnlib.rope import Rope
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.mha import MultiHeadAttention
from attnlib.variants.mla import MultiHeadLatentAttention

#: Ways in which the models know positions, ``"rotary"`` and ``"added"`` to the embeddings.
POSITIONS = ("rotary", "added")
JUDGING_WINDOWS = 64  # of held-out text, on whose hidden states errors are measured
#: What the directions of a latent are chosen by, ``"weights"`` or ``"text"``.
GUIDES = ("weights", "text")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run, except seed and device.

    Args:
        d_model: width of the residual stream.
        n_layers: number of layers.
        n_heads: heads, H, of width d_model / H.
        d_ff: width inside the feed-forward parts.
        rotary_steps: of training with rotary positions.
        added_steps: of training with added positions, from which a model learns more slowly.
        batch_size: windows per step, B.
        tokens: bytes of each window, T.
        lr: the highest learning rate.
        lr_on: the highest rate of training on, converted or not.
        percents: of a model's steps to train on for.
        kv_heads: numbers of KV heads to pool to.
        ranks: widths of latents to compress to.
        ranks_on: those of them that are trained on.
        calibration_windows: windows of training text whose hidden states guide a latent.
        held_out_windows: windows that losses are measured on.

    Raises:
        ValueError: if a size is below 1, heads do not divide, or a rank to train on is not
            among the ranks.
    """

    d_model: int = 64
    n_layers: int = 4
    n_heads: int = 8
    d_ff: int = 256
    rotary_steps: int = 1200
    added_steps: int = 1800
    batch_size: int = 8
    tokens: int = 64
    lr: float = 6e-3
    lr_on: float = 3e-3
    percents: tuple[int, ...] = (2, 5, 10)
    kv_heads: tuple[int, ...] = (4, 2, 1)
    ranks: tuple[int, ...] = (6, 14, 22, 30, 38, 46, 54, 62, 64)
    ranks_on: tuple[int, ...] = (14, 30, 62)
    calibration_windows: int = 128
    held_out_windows: int = 384

    def __post_init__(self):
        for name, value in asdict(self).items():
            for size in value if isinstance(value, tuple) else [value]:
                if not isinstance(size, float):
                    check_size(name, size)
        check_heads(self.d_model, self.n_heads, None, rope=Rope())
        for n_kv_heads in self.kv_heads:
            check_kv_heads(self.n_heads, n_kv_heads)
        if not set(self.ranks_on) <= set(self.ranks):
            raise ValueError(f"ranks_on must be among ranks, {self.ranks}, got {self.ranks_on}")

    def steps(self, positions: str) -> int:
        """Return the steps of training of one of :data:`POSITIONS`."""
        return {"rotary": self.rotary_steps, "added": self.added_steps}[positions]


class Pooled(NamedTuple):
    """A model whose KV heads were pooled.

    Attributes:
        positions: of the model, one of :data:`POSITIONS`.
        n_kv_heads: KV heads left.
        how: of :func:`attnlib.labs.convert.mha_to_gqa`; or "fresh": nothing was converted, the
            model is new and has only the steps of training on, at a new model's rate.
        losses: ``(steps trained on, held-out loss in nats per byte)``; 0 steps = as converted.
    """

    positions: str
    n_kv_heads: int
    how: str
    losses: list[tuple[int, float]]


class Compressed(NamedTuple):
    """A model with added positions whose keys and values come from a latent.

    Errors are the norm of the difference over the norm of what the trained model has, means
    over the layers, each of which gets what the trained model feeds it on held-out text.

    Attributes:
        rank: width of the latent.
        guide: what its directions were chosen by, one of :data:`GUIDES`.
        weight_error: of the projections of keys and values, stacked.
        key_error: of the keys.
        value_error: of the values.
        output_error: of what attention puts out.
        losses: ``(steps trained on, held-out loss in nats per byte)``; 0 steps = as converted.
    """

    rank: int
    guide: str
    weight_error: float
    key_error: float
    value_error: float
    output_error: float
    losses: list[tuple[int, float]]


class ConversionRun(NamedTuple):
    """Everything that came of one seed.

    Attributes:
        seed: of weights, batches and random heads.
        cpu_seconds: of this process, for the whole run.
        trained: positions to ``(step, held-out loss)`` of training the multi-head model.
        continued: positions to ``(steps trained on, loss)`` of the model unconverted.
        rope_removed: ``(steps trained on, loss)`` of the rotary model, once its queries and
            keys are no longer rotated.
        pooled: one for each way.
        compressed: one for each rank and guide.
    """

    seed: int
    cpu_seconds: float
    trained: dict[str, list[tuple[int, float]]]
    continued: dict[str, list[tuple[int, float]]]
    rope_removed: list[tuple[int, float]]
    pooled: list[Pooled]
    compressed: list[Compressed]

    @property
    def trial(self) -> tuple[int]:
        """The part of a run that another one would repeat, the seed alone."""
        return (self.seed,)

    @property
    def summary(self) -> str:
        """How long the run took, in one line."""
        return f"seed {self.seed} took {self.cpu_seconds:.0f} s of the processor"


def build_model(positions: str, settings: Settings, seed: int) -> TinyLM:
    """Build a multi-head model with new random weights.

    Args:
        positions: one of :data:`POSITIONS`.
        settings: the sizes.
        seed: of the weights.

    Returns:
        The model.

    Raises:
        ValueError: if ``positions`` is unknown.
    """
    if positions not in POSITIONS:
        raise ValueError(f"positions must be one of {', '.join(POSITIONS)}, got {positions!r}")
    d, s = settings.d_model, settings
    torch.manual_seed(seed)
    if positions == "rotary":
        rotary = lambda: MultiHeadAttention(d, s.n_heads, rope=Rope())  # noqa: E731
        return TinyLM(rotary, d_model=d, n_layers=s.n_layers, d_ff=s.d_ff)
    plain = lambda: MultiHeadAttention(d, s.n_heads)  # noqa: E731
    return PositionedLM(plain, tokens=s.tokens, d_model=d, n_layers=s.n_layers, d_ff=s.d_ff)


def converted(model: TinyLM, convert: Callable[..., nn.Module], *each: Iterable[Any]) -> TinyLM:
    """Convert the attention of every layer of a copy of a model.

    Args:
        model: which stays as it is.
        convert: makes a layer of attention from one.
        each: further arguments of ``convert``, each with one for every layer.

    Returns:
        The copy.
    """
    other = copy.deepcopy(model)
    layers = [block.attention for block in other.blocks]
    for block, *arguments in zip(other.blocks, layers, *each, strict=True):
        block.attention = convert(*arguments)
    return other


@torch.no_grad()
def attention_inputs(model: Any, tokens: Tensor) -> list[Tensor]:
    """Collect what a model feeds its attention.

    Args:
        model: with ``blocks``, each with an ``attention_norm``, whose inputs are wanted.
        tokens: int64, shape ``(B, T)``, on any device.

    Returns:
        Hidden states for each layer, shape ``(B, T, d_model)``.
    """
    inputs: list[Tensor] = []
    hooks = [
        block.attention_norm.register_forward_hook(lambda _, __, out: inputs.append(out))
        for block in model.blocks
    ]
    model(tokens.to(device_of(model)))
    for hook in hooks:
        hook.remove()
    return inputs


@torch.no_grad()
def keys_and_values(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the keys and values of hidden states, before any rotation.

    Args:
        layer: of any variant, of MLA those without position.
        x: hidden states, shape ``(..., d_model)``.

    Returns:
        Keys and values, each ``(..., heads, width)``; of MLA, those of all its heads.
    """
    if not isinstance(layer, MultiHeadLatentAttention):
        k, v = layer.k_proj(x), layer.v_proj(x)  # (..., H_kv * D) each
        return k.unflatten(-1, (-1, layer.head_dim)), v.unflatten(-1, (-1, layer.head_dim))
    latent = layer.kv_a_proj_with_mqa(x)[..., : layer.kv_lora_rank]  # (..., d_c)
    kv = layer.kv_b_proj(layer.kv_a_layernorm(latent)).unflatten(-1, (layer.n_heads, -1))
    k, v = kv.split([layer.qk_nope_head_dim, layer.v_head_dim], dim=-1)
    return k, v  # (..., H, nope), (..., H, v)


def relative(actual: Tensor, expected: Tensor) -> float:
    """Return the size of a difference relative to the size of what was expected.

    Args:
        actual: any shape.
        expected: the same shape.

    Returns:
        A ratio of norms; 0 = equal, 1 = as far off as zeros.
    """
    return ((actual - expected).norm() / expected.norm()).item()


@torch.no_grad()
def layer_errors(before: nn.Module, after: nn.Module, x: Tensor) -> dict[str, float]:
    """Compare a layer with the layer it was converted to.

    Args:
        before: a :class:`~attnlib.variants.mha.MultiHeadAttention`.
        after: a :class:`~attnlib.variants.mla.MultiHeadLatentAttention`.
        x: hidden states, shape ``(B, T, d_model)``.

    Returns:
        What :class:`Compressed` calls weight_error, key_error, value_error and output_error.
    """
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    weights, wanted = (torch.cat(keys_and_values(layer, eye)) for layer in (after, before))
    (k, v), (want_k, want_v) = keys_and_values(after, x), keys_and_values(before, x)
    return {
        "weight_error": relative(weights, wanted),
        "key_error": relative(k, want_k),
        "value_error": relative(v, want_v),
        "output_error": relative(after(x), before(x)),
    }


class Laboratory:
    """One seed's models, text and settings, so that every trial needs only what it tries.

    Args:
        settings: of the run.
        text: what to read.
        seed: of weights, batches and random heads.
        device: where.
    """

    def __init__(
        self, settings: Settings, text: Text, seed: int, device: torch.device | str = "cpu"
    ):
        self.settings, self.text, self.seed, self.device = settings, text, seed, device

    def train_new(self, positions: str) -> tuple[TinyLM, list[tuple[int, float]]]:
        """Train a new multi-head model.

        Args:
            positions: one of :data:`POSITIONS`.

        Returns:
            The model, and ``(step, held-out loss)`` at each quarter.
        """
        s, steps = self.settings, self.settings.steps(positions)
        model = build_model(positions, s, self.seed).to(self.device)
        quarters = range(steps // 4, steps, steps // 4)
        return model, self.train(model, steps, self.seed, s.lr, quarters)

    def train(
        self,
        model: nn.Module,
        steps: int,
        seed: int,
        lr: float,
        checkpoints: Iterable[int] = (),
    ) -> list[tuple[int, float]]:
        """Train a model with this laboratory's sizes: see :func:`attnlib.labs.train.train`."""
        s = self.settings
        return train(
            model, self.text, steps, seed=seed, batch_size=s.batch_size, tokens=s.tokens,
            lr=lr, checkpoints=checkpoints, held_out_windows=s.held_out_windows,
        )  # fmt: skip

    def loss(self, model: nn.Module) -> float:
        """Return the held-out loss of a model, in nats per byte."""
        s = self.settings
        return held_out_loss(model, self.text, tokens=s.tokens, count=s.held_out_windows)

    def train_on(
        self, model: TinyLM, positions: str, lr: float | None = None
    ) -> list[tuple[int, float]]:
        """Train copies of a model on, one for each of the percents.

        All of them read the same new batches, the shorter runs only the first of them.

        Args:
            model: which stays as it is.
            positions: whose steps the percents are of.
            lr: the highest rate; ``None`` means the settings' ``lr_on``.

        Returns:
            ``(steps, held-out loss)``, first of all for 0 steps.
        """
        losses = [(0, self.loss(model))]
        for percent in self.settings.percents:
            steps = max(1, self.settings.steps(positions) * percent // 100)
            other = copy.deepcopy(model)
            losses += self.train(other, steps, self.seed + 1000, lr or self.settings.lr_on)
        return losses

    def pool(self, model: TinyLM, positions: str, n_kv_heads: int, how: str) -> Pooled:
        """Pool the KV heads of a model, and train it on.

        Args:
            model: which stays as it is.
            positions: of the model.
            n_kv_heads: to be left.
            how: of :func:`attnlib.labs.convert.mha_to_gqa`.

        Returns:
            What came of it.
        """
        draw = torch.Generator().manual_seed(self.seed)
        pooled = converted(
            model, lambda layer: mha_to_gqa(layer, n_kv_heads, how, generator=draw)
        )
        return Pooled(positions, n_kv_heads, how, self.train_on(pooled, positions))

    def fresh(self, n_kv_heads: int) -> Pooled:
        """Train new models with few KV heads for as long as the others are trained on.

        Args:
            n_kv_heads: of the models, which have rotary positions.

        Returns:
            What came of it.
        """
        s, rope = self.settings, Rope()
        model = converted(
            build_model("rotary", s, self.seed),
            lambda _: GroupedQueryAttention(s.d_model, s.n_heads, n_kv_heads, rope=rope),
        ).to(self.device)
        losses = self.train_on(model, "rotary", s.lr)
        return Pooled("rotary", n_kv_heads, "fresh", losses)

    def hidden_states(self, model: TinyLM) -> tuple[list[Tensor], list[Tensor]]:
        """Collect what a model feeds its attention on training text and on held-out text.

        Args:
            model: to be listened to.

        Returns:
            Hidden states for each layer, ``(B, T, d_model)``: those that guide latents, and
            those on which errors are measured.
        """
        s = self.settings
        guiding = windows(self.text.train, s.calibration_windows, s.tokens)[:, :-1]
        judging = windows(self.text.held_out, JUDGING_WINDOWS, s.tokens)[:, :-1]
        return attention_inputs(model, guiding), attention_inputs(model, judging)

    def compress(
        self, model: TinyLM, rank: int, guide: str, calibration: Sequence[Tensor],
        held_out: Sequence[Tensor],
    ) -> Compressed:  # fmt: skip
        """Give a model with added positions latents, and train it on if the settings say so.

        Args:
            model: which stays as it is.
            rank: width of the latents.
            guide: one of :data:`GUIDES`.
            calibration: hidden states for each layer, which guide the latents if ``guide`` is
                "text".
            held_out: hidden states for each layer, on which errors are measured.

        Returns:
            What came of it.
        """
        hidden = calibration if guide == "text" else [None] * len(model.blocks)
        other = converted(model, lambda layer, x: mha_to_mla(layer, rank, hidden=x), hidden)
        pairs = zip(model.blocks, other.blocks, held_out, strict=True)
        errors = [layer_errors(a.attention, b.attention, x) for a, b, x in pairs]
        means = {name: sum(e[name] for e in errors) / len(errors) for name in errors[0]}
        if guide == "text" and rank in self.settings.ranks_on:
            losses = self.train_on(other, "added")
        else:
            losses = [(0, self.loss(other))]
        return Compressed(rank, guide, **means, losses=losses)


def run_one(
    seed: int,
    settings: Settings,
    text: Text,
    device: torch.device | str = "cpu",
    progress: Callable[[str], object] = print,
) -> ConversionRun:
    """Train the two models of a seed, convert them in all ways, and train on.

    Args:
        seed: of weights, batches and random heads.
        settings: everything else.
        text: what to read.
        device: where.
        progress: called with a line of text now and then.

    Returns:
        The run.
    """
    start, lab = time.process_time(), Laboratory(settings, text, seed, device)
    trained, continued, pooled, compressed, models = {}, {}, [], [], {}
    for positions in POSITIONS:
        model, trained[positions] = lab.train_new(positions)
        models[positions], continued[positions] = model, lab.train_on(model, positions)
        progress(f"seed {seed}, {positions}: {shown(continued[positions])}")
        ways = ("mean", "first", "random") if positions == "rotary" else ("mean", "first")
        for n_kv_heads in settings.kv_heads:
            tried = [lab.pool(model, positions, n_kv_heads, how) for how in ways]
            tried += [lab.fresh(n_kv_heads)] if positions == "rotary" else []
            for one in tried:
                progress(f"  {n_kv_heads} KV heads, {one.how:6}: {shown(one.losses)}")
            pooled += tried
    calibration, held_out = lab.hidden_states(models["added"])
    for rank in settings.ranks:
        for guide in GUIDES:
            one = lab.compress(models["added"], rank, guide, calibration, held_out)
            progress(f"  rank {rank} by {guide:7}: {shown(one.losses)}")
            compressed.append(one)
    for block in models["rotary"].blocks:
        block.attention.rope = None
    removed = lab.train_on(models["rotary"], "rotary")
    progress(f"  no rotation any more: {shown(removed)}")
    seconds = time.process_time() - start
    return ConversionRun(seed, seconds, trained, continued, removed, pooled, compressed)


def shown(losses: Sequence[tuple[int, float]]) -> str:
    """Return losses as a line of text.

    Args:
        losses: ``(steps, loss)``.

    Returns:
        The losses, to three decimals.
    """
    return ", ".join(f"{loss:.3f}" for _, loss in losses)


@dataclass
class Conversion(experiment.Findings):
    """What the laboratory found.

    Attributes:
        provenance: where, with what and when: names to values.
        text: fingerprint of the text: see :class:`attnlib.labs.text.Text`.
        settings: of all runs.
        runs: one for each seed, in the order in which they were made.
    """

    STORED: ClassVar[str] = "conversion-cpu"
    settings: Settings
    runs: list[ConversionRun]

    def pooled(self, positions: str, n_kv_heads: int, how: str) -> list[list[float]]:
        """Return the losses of models with pooled heads.

        Args:
            positions: one of :data:`POSITIONS`.
            n_kv_heads: KV heads left.
            how: "mean", "first" or "random".

        Returns:
            Nats per byte; for 0 steps of training on and for each of the percents, one loss per
            seed.

        Raises:
            ValueError: if there are no such models.
        """
        key = (positions, n_kv_heads, how)
        return by_percent([p.losses for run in self.runs for p in run.pooled if p[:3] == key])

    def continued(self, positions: str) -> list[list[float]]:
        """Return the losses of unconverted models, in the form of :meth:`pooled`.

        Args:
            positions: one of :data:`POSITIONS`.

        Returns:
            Nats per byte; for 0 steps and for each of the percents, one loss per seed.
        """
        return by_percent([run.continued[positions] for run in self.runs])

    def compressed(self, rank: int, guide: str) -> list[Compressed]:
        """Return models with latents, one for each seed.

        Args:
            rank: width of the latents.
            guide: one of :data:`GUIDES`.

        Returns:
            What came of them.

        Raises:
            ValueError: if there are none.
        """
        found = [c for run in self.runs for c in run.compressed if c[:2] == (rank, guide)]
        if not found:
            raise ValueError(
                f"rank and guide must be in {self.settings.ranks} and {GUIDES},"
                f" got {rank!r} and {guide!r}"
            )
        return found

    def latent(self, rank: int) -> list[list[float]]:
        """Return losses of models with latents guided by text, in the form of :meth:`pooled`.

        Args:
            rank: width of the latents, one of the settings' ``ranks_on``.

        Returns:
            Nats per byte; for 0 steps and for each of the percents, one loss per seed.
        """
        return by_percent([c.losses for c in self.compressed(rank, "text")])

    def details(self) -> dict[str, str]:
        """Return what the description tells of the settings, by name."""
        s = self.settings
        return {
            "models": f"{s.n_layers} layers of width {s.d_model}, {s.n_heads} heads",
            "batches": f"{s.batch_size} x {s.tokens} bytes",
            "rotary positions": f"{s.rotary_steps:,} steps",
            "added positions": f"{s.added_steps:,} steps",
            "learning rate": f"up to {s.lr}, and up to {s.lr_on} when trained on",
        }


def by_percent(losses: Sequence[Sequence[tuple[int, float]]]) -> list[list[float]]:
    """Turn the losses of each seed into those of each step.

    Args:
        losses: for each seed, ``(steps, loss)`` of equal steps.

    Returns:
        For each of the steps, the losses of all seeds.

    Raises:
        ValueError: if there are none.
    """
    if not losses:
        raise ValueError("losses must be of at least one seed, got none: was this tried?")
    return [[loss for _, loss in same] for same in zip(*losses, strict=True)]


def no_runs(settings: Settings, text: Text, device: torch.device | str = "cpu") -> Conversion:
    """Return findings without runs, to be filled.

    Args:
        settings: of all runs.
        text: what they will read.
        device: where they will train.
    """
    return Conversion(provenance(device, torch.float32), text.fingerprint, settings, runs=[])


def run_conversion(
    path: Path,
    seeds: Iterable[int],
    settings: Settings,
    text: Text,
    *,
    device: torch.device | str = "cpu",
    progress: Callable[[str], object] = print,
) -> Conversion:
    """Run the seeds that are still missing in a file, and write the file after each.

    Args:
        path: of a JSON file, which need not exist.
        seeds: of the runs.
        settings: of all of them.
        text: what to read.
        device: where to train.
        progress: called with a line of text now and then.

    Returns:
        Everything that is in the file then.

    Raises:
        ValueError: if the file has runs of other settings or another text.
    """
    return experiment.run_missing(
        path,
        no_runs(settings, text, device),
        [(seed,) for seed in seeds],
        lambda seed: run_one(seed, settings, text, device, progress),
        progress=progress,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the laboratory from the command line.

    Args:
        arguments: of the command line; ``None`` takes the program's own.
    """
    parser = experiment.command_line("conversion", __doc__.splitlines()[0], Settings())
    with parser.refusing():
        given = experiment.read_arguments(parser, Settings, arguments)
        experiment.resume(given.json, no_runs(given.settings, given.text, given.device))
    found = run_conversion(
        given.json, given.seeds, given.settings, given.text,
        device=given.device, progress=experiment.print_now,
    )  # fmt: skip
    print(found.describe())


if __name__ == "__main__":
    main()
