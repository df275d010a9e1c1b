"""What losses show of a bug: small models learn their task and are compared with their likes.

Catches a model that learns nothing, a task whose least loss is wrong, a right layer of other
sizes than the wrong one, and stored losses that the code no longer gives.
"""

import json
from statistics import fmean

import pytest
import torch

from attnlib import Rope
from attnlib.bench.stored import to_json
from attnlib.book.museum import (
    BUGS,
    LEAST_LOSS,
    ReferenceLatentAttention,
    ReferenceSplitAttention,
    ReferenceWindowAttention,
    Settings,
    run_training,
    train_with,
    training,
)
from attnlib.book.museum.experiment import LENGTH, PERIOD, STORED, main, patterns, small_layer

STEPS = 4  # of runs that need not learn


def test_training_goes_down_and_does_not_beat_the_least_loss():
    """Catches a leak in the reference, and one of a bug that the loss should show."""
    bug = BUGS["mask added as 0 and 1"]
    _, right = train_with(lambda: small_layer(bug, right=True))
    assert LEAST_LOSS < right.trained < 1.2  # from ln 16 = 2.8
    assert abs(right.trained - right.decoded) < 1e-4
    _, leaky = train_with(lambda: small_layer(bug))
    assert leaky.trained < LEAST_LOSS - 0.2
    assert leaky.decoded > right.decoded + 0.5


def test_a_run_depends_on_its_seed_alone():
    """Catches a draw that another run changes, and seeds that all give one draw."""

    def losses(seed):
        def build():
            return small_layer(BUGS["masked with -1e9"])

        return train_with(build, seed=seed, settings=Settings(steps=STEPS))[1]

    first = losses(1)
    torch.manual_seed(5)
    assert losses(1) == first
    assert losses(2) != first


def test_texts_repeat_a_pattern():
    """Catches a text in which looking 8 tokens back does not help."""
    text = patterns(3, torch.Generator().manual_seed(0))
    assert text.shape == (3, LENGTH + 1)
    assert torch.equal(text[:, PERIOD:], text[:, :-PERIOD])
    assert not torch.equal(text[0], text[1])


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_fits_the_small_model_and_so_does_its_right_layer(name):
    """Catches a small layer without what makes it wrong, and a right one that is not alike."""
    bug = BUGS[name]
    wrong, right = small_layer(bug), small_layer(bug, right=True)
    assert (type(wrong), type(right)) == (bug.layer, bug.reference)
    shapes = [{n: p.shape for n, p in m.named_parameters()} for m in (wrong, right)]
    assert shapes[0] == shapes[1]
    for layer in (wrong, right):
        assert layer(torch.zeros(2, 5, 32)).shape == (2, 5, 32)
        assert layer.rope == bug.arguments.get("rope", Rope())
        heads = 8 if bug.reference is ReferenceSplitAttention else 4  # four for each rank
        assert layer.n_heads == bug.arguments.get("n_heads", heads)
        if bug.reference is not ReferenceLatentAttention:
            alone = "n_kv_heads" in bug.arguments  # a KV head for each query head
            assert layer.n_kv_heads == (layer.n_heads if alone else heads // 2)
        if bug.reference is ReferenceWindowAttention:
            neighbour = layer is wrong and name == "another layer's window"
            assert layer.window == (None if layer.index == 5 and not neighbour else PERIOD)
            assert layer.first == bug.arguments.get("first", 0)
            assert (layer.sinks is not None) == bug.arguments.get("sinks", False)


def test_weights_of_the_right_layer_show_what_training_hides():
    """Catches a column of the table that repeats another."""
    found = run_training(
        (0,), Settings(steps=30), bugs=["RoPE in the other layout"], progress=str
    )
    (run,) = found.runs
    assert run.wrong != run.right  # trained alike, not one function trained twice
    assert run.given.trained > run.right.trained + 0.1


# Stored runs.


def test_stored_losses_are_of_all_bugs_and_four_draws():
    """Catches a bug that was added or renamed after the last run."""
    stored = training()
    assert list(dict.fromkeys(run.bug for run in stored.runs)) == list(BUGS)
    assert stored.seeds() == [0, 1, 2, 3]
    assert all([run.seed for run in stored.of(name)] == stored.seeds() for name in BUGS)
    assert stored.settings == Settings()
    assert stored.provenance["threads"] == 1
    assert "seeds              0, 1, 2, 3" in stored.describe()
    assert to_json(stored) == STORED.load("losses-cpu")


def test_stored_losses_are_those_of_the_code():
    """Catches layers or training that changed after the last run."""
    stored = training().of("one memory for all sequences")[0]
    _, right = train_with(lambda: small_layer(BUGS[stored.bug], right=True))
    assert right.trained == pytest.approx(stored.right.trained, abs=0.05)


def test_right_layers_have_no_leak_and_decode_what_they_read():
    for run in training().runs:
        assert run.right.trained > LEAST_LOSS
        assert run.right.decoded == pytest.approx(run.right.trained, abs=1e-4)


def test_the_table_has_a_line_for_each_bug():
    """Catches a mean of the wrong runs."""
    stored = training()
    lines = stored.table().splitlines()
    assert [line[:29].strip() for line in lines[1:]] == list(BUGS)
    name = "mask added as 0 and 1"
    line, runs = stored.table([name]).splitlines()[1], stored.of(name)
    off = [run.wrong.trained - run.right.trained for run in runs]
    assert line[29:].split() == [
        f"{fmean(run.right.trained for run in runs):.2f}",
        f"{fmean(run.wrong.trained for run in runs):.2f}",
        *f"{min(off):+.2f} to {max(off):+.2f}".split(),
        f"{fmean(run.wrong.decoded for run in runs):.2f}",
        f"{fmean(run.given.trained for run in runs):.2f}",
    ]
    assert max(off) < -0.3
    with pytest.raises(ValueError, match="'no bug'"):
        stored.of("no bug")


def test_the_command_writes_what_it_found(tmp_path, monkeypatch, capsys):
    """Catches a command line that does not end in a file that can be read."""
    monkeypatch.setattr(
        "attnlib.book.museum.experiment.BUGS",
        {"no mask with a cache": BUGS["no mask with a cache"]},
    )
    path = tmp_path / "losses.json"
    main(["--json", str(path), "--seeds", "3", "--steps", "2"])
    report = json.loads(path.read_text())
    assert [(run["bug"], run["seed"]) for run in report["runs"]] == [
        ("no mask with a cache", 3)
    ]
    assert "2 steps" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["steps", "batch_size", "held_out"])
def test_a_size_below_one_is_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be .* at least 1, got 0"):
        Settings(**{name: 0})
