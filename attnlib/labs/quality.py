"""Train one small model of each variant from several seeds, and compare their losses.

``python -m attnlib.labs.quality --json FILE`` writes FILE after each run and, started again,
continues where it stopped. All models have the same number of parameters: what attention
saves, the feed-forward parts get, as in Shazeer 2019, arXiv 1911.02150. There are two
questions. With heads of one width, how good is each variant, whatever it caches? And with a
cache of one size, which use of it is best? Two more models show how much of an answer the width
of heads explains, and how much the feed-forward parts do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch

from attnlib.bench import build_layer, provenance
from attnlib.checks import check_kv_heads, check_size
from attnlib.costs import Geometry, attention_params, kv_cache_bytes
from attnlib.labs import experiment
from attnlib.labs.model import TinyLM, n_params
from attnlib.labs.text import Text
from attnlib.labs.train import step_cost, train
from attnlib.rope import Rope

# With heads of one width, and with a cache of one size. "GQA" and "MLA" belong to both.
OWN_CACHE = ("MHA", "GQA", "MQA", "MLA")
EQUAL_CACHE = ("MHA, few heads", "GQA", "MQA, wide heads", "MLA")
CONTROL = ("MHA, wide heads", "MQA, smaller")  # the last has fewer parameters than all others
#: Names of all models that are trained, in the order of the tables.
CONFIGURATIONS = tuple(dict.fromkeys(OWN_CACHE + EQUAL_CACHE + CONTROL))


@dataclass(frozen=True)
class Settings:
    """Everything that decides a run, except configuration, seed and device.

    Args:
        d_model: width of the residual stream.
        n_layers: number of layers.
        n_heads: query heads, H.
        n_kv_heads: KV heads of the GQA; the equal caches have the size of its cache.
        head_dim: width of one head, D.
        d_ff: width inside the feed-forward part of the MHA; the others' follow from it.
        steps: of training.
        batch_size: windows per step, B.
        tokens: bytes of each window, T.
        lr: the highest learning rate.
        warmup: steps until it is reached.
        looks: how often to measure the held-out loss, at equal intervals.
        held_out_windows: windows that it is measured on.

    Raises:
        ValueError: if a size is below 1, ``n_kv_heads`` does not divide ``n_heads``, or
            ``looks`` does not divide ``steps``.
    """

    d_model: int = 128
    n_layers: int = 4
    n_heads: int = 8
    n_kv_heads: int = 2
    head_dim: int = 16
    d_ff: int = 512
    steps: int = 800
    batch_size: int = 8
    tokens: int = 128
    lr: float = 3e-3
    warmup: int = 40
    looks: int = 4
    held_out_windows: int = 512

    def __post_init__(self):
        for name, value in asdict(self).items():
            if name != "lr":
                check_size(name, value)
        check_kv_heads(self.n_heads, self.n_kv_heads)
        if self.steps % self.looks:
            raise ValueError(f"looks must divide steps = {self.steps}, got {self.looks}")


class Configuration(NamedTuple):
    """One model to train.

    Attributes:
        geometry: sizes of its attention, all layers.
        d_ff: width inside its feed-forward parts.
    """

    geometry: Geometry
    d_ff: int


class QualityRun(NamedTuple):
    """One model that was trained.

    Attributes:
        configuration: its name.
        seed: of its weights and batches.
        losses: ``(step, held-out loss in nats per byte)``.
        cpu_seconds: of one training step: see :class:`attnlib.labs.train.StepCost`.
        peak_bytes: of one training step, beyond weights, gradients and moments.
    """

    configuration: str
    seed: int
    losses: list[tuple[int, float]]
    cpu_seconds: float
    peak_bytes: int

    @property
    def trial(self) -> tuple[str, int]:
        """The part of a run that another one would repeat, configuration and seed."""
        return self.configuration, self.seed

    @property
    def summary(self) -> str:
        """The result in one line."""
        return (
            f"seed {self.seed}, {self.configuration:15}"
            f" held-out loss {self.losses[-1][1]:.3f} nats per byte,"
            f" {1000 * self.cpu_seconds:.0f} ms per step, {self.peak_bytes / 2**20:.0f} MiB"
        )


def configurations(settings: Settings) -> dict[str, Configuration]:
    """Lay out the models, all but the smaller MQA with as many parameters as the MHA.

    Equal caches have the size of the GQA's, 2 H_kv D numbers per token and layer. The MLA's
    latent and rotary key share them; the rotary key is as wide as a head. The MHA with few
    heads has only H_kv of them, of the same width D. The MQA's one KV head is H_kv times as
    wide. Of the controls, the MHA with wide heads has heads as wide as those, and fewer of
    them; the smaller MQA keeps the feed-forward part of the MHA.

    Args:
        settings: the sizes.

    Returns:
        Configurations by name, in the order of :data:`CONFIGURATIONS`.

    Raises:
        ValueError: if the attention of one has more parameters than a layer of the MHA.
    """
    s = settings
    H, H_kv, D, d = s.n_heads, s.n_kv_heads, s.head_dim, s.d_model
    latent = {"kv_lora_rank": (2 * H_kv - 1) * D, "qk_rope_head_dim": D}
    geometries = {
        "MHA": Geometry(s.n_layers, H, H, D, d_model=d),
        "GQA": Geometry(s.n_layers, H, H_kv, D, d_model=d),
        "MQA": Geometry(s.n_layers, H, 1, D, d_model=d),
        "MLA": Geometry(s.n_layers, H, H, D, d_model=d, **latent),
        "MHA, few heads": Geometry(s.n_layers, H_kv, H_kv, D, d_model=d),
        "MQA, wide heads": Geometry(s.n_layers, H, 1, H_kv * D, d_model=d),
        "MHA, wide heads": Geometry(s.n_layers, H // H_kv, H // H_kv, H_kv * D, d_model=d),
    }
    a_layer = {name: attention_params(replace(g, n_layers=1)) for name, g in geometries.items()}
    budget = a_layer["MHA"] + 2 * d * s.d_ff  # the feed-forward part has two matrices
    widths = {name: round((budget - n) / (2 * d)) for name, n in a_layer.items()}
    if min(widths.values()) < 1:
        raise ValueError(f"d_ff must leave each layer a feed-forward part, got {s.d_ff}")
    found = {name: Configuration(geometries[name], widths[name]) for name in geometries}
    return found | {"MQA, smaller": Configuration(geometries["MQA"], s.d_ff)}


def build_model(
    configuration: Configuration, *, rope: Rope | None = Rope(), seed: int = 0
) -> TinyLM:
    """Build a model with new random weights.

    Args:
        configuration: its sizes.
        rope: how positions rotate.
        seed: of the weights.

    Returns:
        The model, ready to be trained.
    """
    geometry = configuration.geometry
    torch.manual_seed(seed)
    model = TinyLM(
        lambda: build_layer(geometry, rope=rope),
        d_model=geometry.d_model,
        n_layers=geometry.n_layers,
        d_ff=configuration.d_ff,
    )
    return model.requires_grad_(True).train()  # build_layer makes layers for inference


def model_sizes(configuration: Configuration) -> dict[str, int]:
    """Count what a model has and what it caches.

    Args:
        configuration: its sizes.

    Returns:
        "parameters" and the parts of them in "attention_parameters" and "mlp_parameters";
        "cache_numbers" of one token in one layer, and "cache_bytes" of one token in all layers,
        in float32.
    """
    model = build_model(configuration)
    geometry = configuration.geometry
    cache_bytes = kv_cache_bytes(geometry, 1, dtype="float32")
    return {
        "parameters": n_params(model),
        "attention_parameters": sum(n_params(block.attention) for block in model.blocks),
        "mlp_parameters": sum(n_params(b.up) + n_params(b.down) for b in model.blocks),
        "cache_numbers": cache_bytes // (4 * geometry.n_layers),
        "cache_bytes": cache_bytes,
    }


def run_one(
    name: str, seed: int, settings: Settings, text: Text, device: torch.device | str = "cpu"
) -> QualityRun:
    """Train one model, and measure what a step of its training takes.

    Args:
        name: of the configuration.
        seed: of weights and batches.
        settings: everything else.
        text: what to read.
        device: where.

    Returns:
        The run.

    Raises:
        ValueError: if there is no such configuration.
    """
    known = configurations(settings)
    if name not in known:
        raise ValueError(f"name must be one of {list(known)}, got {name!r}")
    s = settings
    model = build_model(known[name], seed=seed).to(device)
    losses = train(
        model,
        text,
        s.steps,
        seed=seed,
        batch_size=s.batch_size,
        tokens=s.tokens,
        lr=s.lr,
        warmup=s.warmup,
        checkpoints=range(0, s.steps, s.steps // s.looks),
        held_out_windows=s.held_out_windows,
    )
    cost = step_cost(model, text, batch_size=s.batch_size, tokens=s.tokens)
    return QualityRun(name, seed, losses, cost.cpu_seconds, cost.peak_bytes)


@dataclass
class Quality(experiment.Findings):
    """What the laboratory found.

    Attributes:
        provenance: where, with what and when: names to values.
        text: fingerprint of the text: see :class:`attnlib.labs.text.Text`.
        settings: of all runs.
        runs: in the order in which they were made.
        sizes: of each configuration, by its name: see :func:`model_sizes`.
    """

    STORED: ClassVar[str] = "quality-cpu"
    settings: Settings
    runs: list[QualityRun]
    sizes: Mapping[str, Mapping[str, int]]

    def seeds(self) -> list[int]:
        """Return the seeds from which every configuration has been trained, sorted."""
        done = {run.trial for run in self.runs}
        names = {run.configuration for run in self.runs}
        seeds = {run.seed for run in self.runs}
        return sorted(seed for seed in seeds if all((name, seed) in done for name in names))

    def select(self, name: str) -> list[QualityRun]:
        """Return the runs of one configuration from :meth:`seeds`, in their order.

        Args:
            name: of the configuration.

        Returns:
            The runs.

        Raises:
            ValueError: if there is no such run.
        """
        by_seed = {run.seed: run for run in self.runs if run.configuration == name}
        if not by_seed:
            names = sorted({run.configuration for run in self.runs})
            raise ValueError(f"name must be one of {names}, got {name!r}")
        return [by_seed[seed] for seed in self.seeds()]

    def losses(self, name: str, look: int = -1) -> list[float]:
        """Return held-out losses of one configuration, one for each of :meth:`seeds`.

        Args:
            name: of the configuration.
            look: which of the measurements; -1 = after the last step.

        Returns:
            Nats per byte.

        Raises:
            ValueError: if there is no such run.
        """
        return [run.losses[look][1] for run in self.select(name)]

    def details(self) -> dict[str, str]:
        """Return what the description tells of the settings, by name."""
        s = self.settings
        return {
            "model": f"{s.n_layers} layers of width {s.d_model}",
            "training": f"{s.steps:,} steps of {s.batch_size} x {s.tokens} bytes",
            "learning rate": f"up to {s.lr} in {s.warmup} steps, then down to a tenth",
        }


def no_runs(settings: Settings, text: Text, device: torch.device | str = "cpu") -> Quality:
    """Return findings without runs, to be filled.

    Args:
        settings: of all runs.
        text: what they will read.
        device: where they will train.
    """
    sizes = {name: model_sizes(known) for name, known in configurations(settings).items()}
    origin = provenance(device, torch.float32)
    return Quality(origin, text.fingerprint, settings, runs=[], sizes=sizes)


def run_quality(
    path: Path,
    seeds: Iterable[int],
    settings: Settings,
    text: Text,
    *,
    names: Sequence[str] = CONFIGURATIONS,
    device: torch.device | str = "cpu",
    progress: Callable[[str], object] = print,
) -> Quality:
    """Train what is still missing in a file, and write the file after each run.

    Seeds are the outer loop, so that early on there are seeds which all configurations have.

    Args:
        path: of a JSON file, which need not exist.
        seeds: of the runs.
        settings: of all of them.
        text: what to read.
        names: of the configurations.
        device: where to train.
        progress: called with one line after each run.

    Returns:
        Everything that is in the file then.

    Raises:
        ValueError: if the file has runs of other settings or another text, or a configuration
            is unknown.
    """
    return experiment.run_missing(
        path,
        no_runs(settings, text, device),
        [(name, seed) for seed in seeds for name in names],
        lambda name, seed: run_one(name, seed, settings, text, device),
        progress=progress,
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the laboratory from the command line.

    Args:
        arguments: of the command line; ``None`` takes the program's own.
    """
    parser = experiment.command_line("quality", __doc__.splitlines()[0], Settings())
    parser.add_argument(
        "--configurations", nargs="+", metavar="NAME", default=CONFIGURATIONS,
        choices=CONFIGURATIONS, help=f"all, or some of: {', '.join(map(repr, CONFIGURATIONS))}",
    )  # fmt: skip
    with parser.refusing():
        given = experiment.read_arguments(parser, Settings, arguments)
        experiment.resume(given.json, no_runs(given.settings, given.text, given.device))
    found = run_quality(
        given.json, given.seeds, given.settings, given.text,
        names=given.configurations, device=given.device, progress=experiment.print_now,
    )  # fmt: skip
    print(found.describe())


if __name__ == "__main__":
    main()
