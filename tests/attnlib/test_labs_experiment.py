"""The experiment runner of the laboratories: restarts, and one command line for both."""

import json
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch

from attnlib.labs import conversion, experiment, quality
from attnlib.labs.experiment import Findings, command_line, read_arguments, run_missing

LABS = {"conversion": conversion.Settings, "quality": quality.Settings}
BOTH = pytest.mark.parametrize("lab", [conversion, quality])


class ToyRun(NamedTuple):
    """A run of a toy experiment."""

    seed: int
    losses: list[tuple[int, float]]

    @property
    def trial(self):
        """What was tried."""
        return (self.seed,)

    @property
    def summary(self):
        """One line."""
        return f"seed {self.seed}"


@dataclass(frozen=True)
class ToySettings:
    """Settings of a toy experiment."""

    ranks: tuple[int, ...] = (1, 2)


@dataclass
class Toy(Findings):
    """What a toy experiment found."""

    settings: ToySettings
    runs: list[ToyRun]


ORIGIN = {"date": "2026-11-24T19:15:40Z", "processor": "a chip", "threads": 1, "torch": "2",
          "python": "3"}  # fmt: skip


def empty(sha256="0" * 64, **settings):
    text = {"files": 2, "held_out_files": 1, "bytes": 1234, "sha256": sha256}
    return Toy(ORIGIN, text, ToySettings(**settings), runs=[])


def toy_run(seed):
    return ToyRun(seed, [(0, seed + 0.5), (1, seed + 0.25)])


def test_a_restart_runs_what_is_missing(tmp_path):
    """Catches a second start that runs everything again, and results that are lost."""
    path, lines = tmp_path / "toy.json", []
    run_missing(path, empty(), [(3,)], toy_run, progress=lines.append)
    found = run_missing(path, empty(), [(3,), (4,)], toy_run, progress=lines.append)
    assert lines == ["seed 3", "seed 4"]
    assert found.runs == [toy_run(3), toy_run(4)]
    assert Toy.read(json.loads(path.read_text())) == found
    assert list(tmp_path.iterdir()) == [path]


def test_a_stopped_trial_leaves_the_earlier_ones(tmp_path):
    """Catches a file that is written only at the end."""

    def fails(seed):
        return toy_run(seed) if seed < 5 else 1 // 0

    path = tmp_path / "toy.json"
    with pytest.raises(ZeroDivisionError):
        run_missing(path, empty(), [(4,), (5,)], fails, progress=str)
    assert Toy.read(json.loads(path.read_text())).runs == [toy_run(4)]


def test_other_settings_or_another_text_are_refused(tmp_path):
    """Catches a mean over runs that do not belong together."""
    path = tmp_path / "toy.json"
    run_missing(path, empty(), [(3,)], toy_run, progress=str)
    before = path.read_text()
    with pytest.raises(ValueError, match=r"settings must be those of the runs in toy.json"):
        run_missing(path, empty(ranks=(3,)), [(4,)], toy_run, progress=str)
    with pytest.raises(ValueError, match=r"text must be those of the runs in toy.json"):
        run_missing(path, empty(sha256="1" * 64), [(4,)], toy_run, progress=str)
    assert path.read_text() == before


def test_the_description_has_a_line_for_each_fact():
    text = empty().describe()
    for line in ("processor          a chip, threads: 1",
                 "versions           torch 2, Python 3",
                 "day                24 November 2026",
                 "text               2 files, 1,234 bytes, 1 of the files held out",
                 "its sha256         0000000000000000..."):  # fmt: skip
        assert line in text.splitlines()


@BOTH
def test_both_name_what_they_share_alike(lab, capsys):
    """Catches an option that is --text here and --folder there."""
    with pytest.raises(SystemExit) as stopped:
        lab.main(["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"python -m {lab.__name__}" in text
    for words in ("--json FILE where to write", "--seeds N [N ...] one run for each",
                  "--device DEVICE such as cpu", "--threads N of the CPU",
                  "--folder FOLDER of Python files to read; default: Python's own",
                  "--d-model N default: "):  # fmt: skip
        assert words in text, words


@BOTH
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--folder", "{folder}"], "folder must have Python source files"),
        (["--threads", "0"], "threads must be an integer of at least 1, got 0"),
        (["--d-model", "0"], "d_model must be an integer of at least 1, got 0"),
        (["--device", "abacus"], "device must be one that torch finds here, got abacus"),
        (["--json", "{folder}"], "json must be a file, got the folder"),
        (["--json", "{folder}/file/x.json"], "json must be a file that can be written"),
        (["--json", "{folder}/file"], "json must be a file that this experiment wrote"),
        (["--json", "{folder}/foreign.json"], "json must be a file that this experiment wrote"),
        (["--json", "{folder}/other.json"], "settings must be those of the runs in other.json"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused_before_anything_is_trained(
    lab, arguments, message, tmp_path, capsys, monkeypatch, one_thread
):
    """Catches a traceback, and hours whose result cannot be written."""
    monkeypatch.setattr(lab, "train", lambda *_, **__: pytest.fail("trained"))
    (tmp_path / "file").touch()
    kinds = [quality.Quality, conversion.Conversion]
    kind, foreign = kinds if lab is quality else reversed(kinds)
    (tmp_path / "foreign.json").write_text(json.dumps(foreign.load().report()))
    stored = kind.load().report()
    stored["settings"]["lr"] = 0.5
    (tmp_path / "other.json").write_text(json.dumps(stored))
    arguments = [text.replace("{folder}", str(tmp_path)) for text in arguments]
    with pytest.raises(SystemExit) as stopped:
        lab.main(["--json", str(tmp_path / "x.json"), *arguments])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python -m {lab.__name__}: error: ") and message in line


@pytest.mark.parametrize("name", LABS)
def test_what_is_left_out_has_its_default(name, tmp_path, monkeypatch, one_thread):
    """Catches a tuple that becomes a list, and a float that is read as a whole number."""
    monkeypatch.setattr(experiment, "load_text", lambda folder: folder)
    kind, json_file = LABS[name], str(tmp_path / "x.json")
    parser = command_line(name, "x", kind())
    given = read_arguments(parser, kind, ["--json", json_file])
    assert given.settings == kind()
    assert given.text is None and given.seeds == [0, 1, 2, 3, 4]
    given = read_arguments(parser, kind, ["--json", json_file, "--lr", "0.5"])
    assert given.settings == kind(lr=0.5)


def test_many_values_are_a_tuple_and_threads_are_set(tmp_path, monkeypatch, one_thread):
    monkeypatch.setattr(experiment, "load_text", lambda folder: folder)
    parser = command_line("conversion", "x", conversion.Settings())
    command = ["--json", str(tmp_path / "new" / "x.json"), "--percents", "3", "4",
               "--threads", "2"]  # fmt: skip
    given = read_arguments(parser, conversion.Settings, command)
    assert given.settings.percents == (3, 4) and torch.get_num_threads() == 2
