"""Run an experiment trial by trial, with its results in one JSON file that a restart continues.

Both laboratories use it: what they find, how it is written and read, and their command line.
A laboratory adds its settings, its trials, and what a trial does.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch

from attnlib.bench.arguments import OneLineParser, prepare_file
from attnlib.bench.stored import (
    StoredResults,
    aligned,
    day_in,
    from_json,
    machine_in,
    save_json,
    to_json,
)
from attnlib.checks import check_size
from attnlib.labs.text import load_text

RESULTS = StoredResults("attnlib.labs.results")


@dataclass
class Findings:
    """What an experiment found.

    A laboratory's own class gives ``settings`` and ``runs`` their types, by which
    :meth:`read` rebuilds them, and the name of its results that :meth:`load` loads. Each run
    has a ``seed``, a ``trial`` that no other run has, and a ``summary`` of one line.

    Attributes:
        provenance: where, with what and when: names to values.
        text: fingerprint of the text: see :class:`attnlib.labs.text.Text`.
        settings: of all runs.
        runs: in the order in which they were made.
    """

    STORED: ClassVar[str]
    provenance: Mapping[str, object]
    text: Mapping[str, object]
    settings: Any
    runs: list[Any]

    def seeds(self) -> list[int]:
        """Return the seeds of the runs, in their order."""
        return [run.seed for run in self.runs]

    def details(self) -> dict[str, str]:
        """Return what :meth:`describe` tells of the laboratory's settings, by name."""
        return {}

    def describe(self) -> str:
        """Describe in words where the numbers come from.

        Returns:
            One line per fact.
        """
        origin, text = self.provenance, self.text
        facts = {
            "processor": machine_in(origin),
            "versions": f"torch {origin['torch']}, Python {origin['python']}",
            "day": day_in(origin),
            "text": f"{text['files']} files, {text['bytes']:,} bytes, {text['held_out_files']}"
            " of the files held out",
            "its sha256": f"{str(text['sha256'])[:16]}...",
            **self.details(),
            "seeds": ", ".join(map(str, self.seeds())),
        }
        return aligned(facts)

    def report(self) -> dict[str, Any]:
        """Return everything as JSON has it; :meth:`read` reads it again."""
        return to_json(self)

    @classmethod
    def read(cls: type[F], report: Mapping[str, Any]) -> F:
        """Return the findings in a report.

        Args:
            report: parsed JSON, as :meth:`report` returned it.
        """
        return from_json(cls, report)

    @classmethod
    def load(cls: type[F], name: str | None = None) -> F:
        """Return findings that are stored with the package.

        Args:
            name: one of :func:`attnlib.labs.results.names`, of the same laboratory; ``None``
                means those that the chapter shows.

        Raises:
            ValueError: if there are none of this name.
        """
        return cls.read(RESULTS.load(cls.STORED if name is None else name))


F = TypeVar("F", bound=Findings)


def resume(path: Path, new: F) -> F:
    """Return the findings to continue: those in a file, or new ones.

    Args:
        path: of a JSON file, which need not exist.
        new: findings without runs, of the experiment that is to be run.

    Returns:
        ``new``, with runs and provenance of the file.

    Raises:
        ValueError: if the file is of another experiment, or its runs are of other settings or
            of another text.
    """
    if not path.exists():
        return new
    try:
        earlier = type(new).read(json.loads(path.read_text(encoding="utf-8")))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"json must be a file that this experiment wrote, got {path.name}: {error}"
        ) from None
    for what in ("settings", "text"):
        if getattr(earlier, what) != getattr(new, what):
            raise ValueError(
                f"{what} must be those of the runs in {path.name},"
                f" {getattr(earlier, what)}, got {getattr(new, what)}"
            )
    return replace(new, provenance=earlier.provenance, runs=earlier.runs)


def run_missing(
    path: Path,
    new: F,
    trials: Iterable[tuple[Any, ...]],
    run: Callable[..., Any],
    *,
    progress: Callable[[str], object] = print,
) -> F:
    """Run the trials that are still missing in a file, and write the file after each.

    Args:
        path: of a JSON file, which need not exist.
        new: findings without runs.
        trials: what to run, in order; each as the ``trial`` of its run.
        run: called with the parts of a trial; returns the run.
        progress: called with the summary of each run.

    Returns:
        Everything that is in the file then.

    Raises:
        ValueError: if the file is of another experiment, or its runs are of other settings or
            of another text.
    """
    found = resume(path, new)
    done = {earlier.trial for earlier in found.runs}
    for trial in trials:
        if trial not in done:
            found.runs.append(run(*trial))
            save_json(path, found)
            progress(found.runs[-1].summary)
    return found


def command_line(name: str, description: str, settings: Any) -> OneLineParser:
    """Make the parser of a laboratory's command line: one option has one name in all.

    Args:
        name: of the module in :mod:`attnlib.labs`.
        description: of what it does.
        settings: a dataclass, each field of which becomes an option with its value.

    Returns:
        The parser, to which options of one laboratory alone can be added.
    """
    program = f"python -m attnlib.labs.{name}"
    parser = OneLineParser(prog=program, description=description)
    add = parser.add_argument
    add("--json", type=Path, metavar="FILE", required=True,
        help="where to write the results, and continue them")  # fmt: skip
    add("--seeds", type=int, nargs="+", metavar="N", default=list(range(5)),
        help="one run for each; default: 0 1 2 3 4")  # fmt: skip
    add("--device", default="cpu", help="such as cpu or cuda; default: cpu")
    add("--threads", type=int, metavar="N", default=1, help="of the CPU; default: 1")
    add("--folder", type=Path, help="of Python files to read; default: Python's own library")
    add = parser.add_argument_group("settings of every run").add_argument
    for field, value in asdict(settings).items():
        values = value if isinstance(value, tuple) else (value,)
        add(f"--{field.replace('_', '-')}", type=type(values[0]), metavar="N", default=value,
            nargs="+" if isinstance(value, tuple) else None,
            help=f"default: {' '.join(map(str, values))}")  # fmt: skip
    return parser


def read_arguments(
    parser: argparse.ArgumentParser, settings: type, arguments: Sequence[str] | None
) -> argparse.Namespace:
    """Read a command line, check everything in it, and give the CPU its threads.

    Args:
        parser: of :func:`command_line`.
        settings: the dataclass of the settings.
        arguments: of the command line; ``None`` takes the program's own.

    Returns:
        All that was given, with the settings as ``settings`` and the text to read as ``text``.

    Raises:
        ValueError: if a setting, the number of threads, the device or a path does not fit.
    """
    given = parser.parse_args(arguments)
    chosen = {name: getattr(given, name) for name in asdict(settings())}
    given.settings = settings(
        **{k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()}
    )
    torch.set_num_threads(check_size("threads", given.threads))
    check_device(given.device)
    prepare_file(given.json)
    given.text = load_text(given.folder)
    return given


def check_device(device: str) -> str:
    """Check that torch can compute on a device.

    Args:
        device: its name, such as "cpu" or "cuda".

    Returns:
        ``device``, unchanged.

    Raises:
        ValueError: if there is no such device.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # not compiled in, or none here
        raise ValueError(f"device must be one that torch finds here, got {device}") from None
    return device


def print_now(line: str) -> None:
    """Print a line at once, also into a file or a pipe.

    Args:
        line: what to print.
    """
    print(line, flush=True)
