"""The experiment on conversion: what it measures, how it goes on, and what is stored."""

import copy
import json
from dataclasses import asdict
from itertools import pairwise

import pytest
import torch
from helpers import check_steps, short_text

from attnlib.labs import conversion, experiment, results
from attnlib.labs.conversion import (
    GUIDES,
    POSITIONS,
    Conversion,
    Laboratory,
    Settings,
    attention_inputs,
    build_model,
    by_percent,
    converted,
    keys_and_values,
    layer_errors,
    run_conversion,
    run_one,
)
from attnlib.labs.convert import mha_to_gqa, mha_to_mla
from attnlib.labs.model import PositionedLM

TINY = Settings(
    d_model=24, n_layers=2, n_heads=4, d_ff=40, rotary_steps=4, added_steps=6, batch_size=2,
    tokens=8, percents=(25, 50), kv_heads=(2,), ranks=(3, 24), ranks_on=(3,),
    calibration_windows=5, held_out_windows=3,
)  # fmt: skip
WAYS = {"rotary": ("mean", "first", "random", "fresh"), "added": ("mean", "first")}


@pytest.fixture
def text(monkeypatch):
    """A short text instead of the long one."""
    short = short_text(500, 700)
    monkeypatch.setattr(experiment, "load_text", lambda folder: short)
    monkeypatch.setattr(conversion, "JUDGING_WINDOWS", 4)
    return short


def quiet(line):
    """Print nothing."""


def model_of(positions):
    return build_model(positions, TINY, seed=3).double()


# The model whose positions are added to its input


def test_added_positions_tell_the_order_of_earlier_bytes():
    """Catches positions that are never added: a prediction must know the order."""
    model, tokens = model_of("added"), torch.tensor([[1, 2, 3, 4, 5, 9]])
    swapped = tokens[:, [0, 2, 1, 3, 4, 5]]
    assert (model(tokens) - model(swapped))[0, -1].abs().max() > 1e-6
    one_layer = PositionedLM(
        lambda: copy.deepcopy(model.blocks[0].attention),
        tokens=8,
        d_model=24,
        n_layers=1,
        d_ff=9,
    ).double()
    one_layer.waves.zero_()  # a single layer without positions sees a set, not a sequence
    assert (one_layer(tokens) - one_layer(swapped))[0, -1].abs().max() < 1e-12


@pytest.mark.parametrize("positions", POSITIONS)
def test_prefill_and_decode_equal_one_pass(positions):
    """Catches positions that begin again with each decode step."""
    check_steps(model_of(positions))


def test_bytes_behind_the_last_position_are_refused():
    model = model_of("added")
    with pytest.raises(ValueError, match="tokens must end by position 8, got 9"):
        model(torch.zeros(1, 9, dtype=torch.long))
    caches = model.new_caches(1, 20)
    model(torch.zeros(1, 8, dtype=torch.long), caches)
    with pytest.raises(ValueError, match="tokens must end by position 8, got 9"):
        model(torch.zeros(1, 1, dtype=torch.long), caches)


def test_models_of_a_seed_are_the_same_and_of_another_are_not():
    for positions in POSITIONS:
        first, same, other = (
            build_model(positions, TINY, seed).embed.weight for seed in (1, 1, 2)
        )
        assert torch.equal(first, same) and not torch.equal(first, other)
    assert all(block.attention.rope is None for block in model_of("added").blocks)
    assert all(block.attention.rope is not None for block in model_of("rotary").blocks)
    with pytest.raises(ValueError, match="must be one of rotary, added, got 'learned'"):
        build_model("learned", TINY, 0)


# Converting and comparing


def test_a_model_is_converted_in_every_layer_and_the_original_stays():
    """Catches a lab that converts its reference too, and finds that nothing was lost."""
    model, tokens = model_of("added"), torch.randint(256, (2, 8))
    before = model(tokens)
    other = converted(model, lambda layer: mha_to_gqa(layer, 1, "mean"))
    assert [block.attention.n_kv_heads for block in other.blocks] == [1, 1]
    assert torch.equal(model(tokens), before)
    assert (other(tokens) - before).abs().max() > 1e-6
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(0.0)
    assert torch.equal(model(tokens), before)


def test_each_layer_gets_its_own_argument():
    model = model_of("added")
    other = converted(model, lambda layer, rank: mha_to_mla(layer, rank), [3, 5])
    assert [block.attention.kv_lora_rank for block in other.blocks] == [3, 5]


def test_hidden_states_are_what_attention_gets():
    """Catches states from before the norm, of the wrong layer, or in the wrong order."""
    model, tokens = model_of("added"), torch.randint(256, (2, 8))
    got = []
    for block in model.blocks:
        block.attention.register_forward_pre_hook(lambda _, inputs: got.append(inputs[0]))
    heard = attention_inputs(model, tokens)
    assert len(heard) == len(got) == TINY.n_layers
    for mine, theirs in zip(heard, got, strict=True):
        assert torch.equal(mine, theirs)
    assert len(attention_inputs(model, tokens)) == TINY.n_layers  # no hook stays behind


def test_errors_of_a_layer_by_hand():
    """Catches keys compared with values, and errors relative to the wrong side."""
    layer = model_of("added").blocks[0].attention
    x = torch.randn(2, 8, TINY.d_model, dtype=torch.float64)
    full = layer_errors(layer, mha_to_mla(layer, TINY.d_model), x)
    assert max(full.values()) < 1e-12

    low = mha_to_mla(layer, 5)
    k, v = keys_and_values(low, x)
    assert k.shape == v.shape == (2, 8, TINY.n_heads, 6)
    want_k, want_v = layer.k_proj(x).view(k.shape), layer.v_proj(x).view(v.shape)
    errors = layer_errors(layer, low, x)
    assert errors["key_error"] == pytest.approx(((k - want_k).norm() / want_k.norm()).item())
    assert errors["value_error"] == pytest.approx(((v - want_v).norm() / want_v.norm()).item())
    stacked = torch.linalg.svdvals(torch.cat([layer.k_proj.weight, layer.v_proj.weight]))
    rest = (stacked[5:].norm() / stacked.norm()).item()
    assert errors["weight_error"] == pytest.approx(rest)
    out = (low(x) - layer(x)).norm() / layer(x).norm()
    assert errors["output_error"] == pytest.approx(out.item())


def test_losses_of_seeds_become_losses_of_steps():
    assert by_percent([[(0, 1.0), (4, 2.0)], [(0, 3.0), (4, 5.0)]]) == [[1.0, 3.0], [2.0, 5.0]]
    with pytest.raises(ValueError, match="at least one seed, got none"):
        by_percent([])


# The laboratory


def test_training_on_leaves_the_model_and_repeats(text):
    """Catches a longer run that begins where a shorter one ended."""
    lab, model = Laboratory(TINY, text, seed=0), build_model("rotary", TINY, 0)
    before = copy.deepcopy(model.state_dict())
    once, again = lab.train_on(model, "rotary"), lab.train_on(model, "rotary")
    assert once == again
    assert [steps for steps, _ in once] == [0, 1, 2]  # 25 % and 50 % of 4 steps
    assert once[0][1] == lab.loss(model)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), name


def test_a_run_tries_everything_and_stays_comparable(text):
    """Catches trials of another model, a full rank that costs, random heads like the first."""
    run = run_one(0, TINY, text, progress=quiet)
    assert [p[:3] for p in run.pooled] == [
        (positions, 2, how) for positions in POSITIONS for how in WAYS[positions]
    ]
    assert [c[:2] for c in run.compressed] == [(r, g) for r in TINY.ranks for g in GUIDES]
    for positions, steps in (("rotary", [0, 1, 2]), ("added", [0, 1, 3])):
        last = run.trained[positions][-1]
        assert last[0] == TINY.steps(positions)
        assert run.continued[positions][0] == (0, last[1])
        assert [step for step, _ in run.continued[positions]] == steps
    losses = {p[:3]: p.losses for p in run.pooled}
    assert len({str(losses["rotary", 2, how]) for how in WAYS["rotary"]}) == 4
    for low, full in ((run.compressed[i], run.compressed[i + 2]) for i in (0, 1)):
        assert full.losses[0][1] == pytest.approx(run.continued["added"][0][1], abs=1e-4)
        assert full.output_error < 1e-3 < low.output_error
    by_weights, by_text = run.compressed[:2]
    assert by_weights.weight_error < by_text.weight_error
    assert len(by_text.losses) == 3 and len(by_weights.losses) == 1
    assert [steps for steps, _ in run.rope_removed] == [0, 1, 2]
    assert run.rope_removed[0][1] != run.continued["rotary"][0][1]


def test_a_fresh_model_has_few_heads_and_is_no_conversion(text):
    lab = Laboratory(TINY, text, seed=0)
    fresh = lab.fresh(2)
    new = converted(
        build_model("rotary", TINY, 0), lambda a: mha_to_gqa(a, 2, "first")
    )  # an untrained model, heads and all
    assert abs(fresh.losses[0][1] - lab.loss(new)) < 0.2
    assert fresh[:3] == ("rotary", 2, "fresh")


def test_script_writes_what_load_reads(text, tmp_path, capsys, one_thread):
    """Catches a field that is written and not read, or the reverse; from end to end."""
    path = tmp_path / "c.json"
    options = []
    for name, value in asdict(TINY).items():
        values = value if isinstance(value, tuple) else [value]
        options += [f"--{name.replace('_', '-')}", *map(str, values)]
    conversion.main(["--json", str(path), "--seeds", "0", "1", *options])
    written = json.loads(path.read_text())
    found = Conversion.read(written)
    assert json.loads(json.dumps(found.report())) == written
    assert found.settings == TINY and found.text == text.fingerprint
    assert [run.seed for run in found.runs] == [0, 1]
    assert list(tmp_path.iterdir()) == [path]
    assert found.describe() in capsys.readouterr().out

    first, second = found.runs
    pooled = found.pooled("added", 2, "first")
    assert [len(losses) for losses in pooled] == [2, 2, 2]
    assert pooled[0] == [run.pooled[-1].losses[0][1] for run in (first, second)]
    assert found.continued("rotary")[2][1] == second.continued["rotary"][2][1]
    assert found.latent(3)[1][0] == first.compressed[1].losses[1][1]
    assert found.compressed(24, "weights") == [first.compressed[2], second.compressed[2]]
    with pytest.raises(ValueError, match=r"got 4 and 'text'"):
        found.compressed(4, "text")
    with pytest.raises(ValueError, match="was this tried"):
        found.pooled("added", 2, "random")


def test_a_stopped_run_goes_on_where_it_was(text, tmp_path):
    """Catches a second start that trains again, and a result that depends on the stop."""
    once = run_conversion(tmp_path / "once.json", [5, 6], TINY, text, progress=quiet)
    path = tmp_path / "twice.json"
    run_conversion(path, [5], TINY, text, progress=quiet)
    lines = []
    twice = run_conversion(path, [5, 6], TINY, text, progress=lines.append)
    assert not any("seed 5" in line for line in lines)
    assert [run._replace(cpu_seconds=0) for run in once.runs] == [
        run._replace(cpu_seconds=0) for run in twice.runs
    ]


def test_runs_that_do_not_belong_together_are_kept_apart(text, tmp_path):
    """Catches a mean over runs of other sizes or of another text."""
    path = tmp_path / "c.json"
    run_conversion(path, [0], TINY, text, progress=quiet)
    with pytest.raises(ValueError, match=r"settings must be those of the runs in c.json"):
        run_conversion(
            path, [1], Settings(**{**asdict(TINY), "lr": 1e-3}), text, progress=quiet
        )
    other = text._replace(fingerprint={**text.fingerprint, "sha256": "1" * 64})
    with pytest.raises(ValueError, match=r"text must be those of the runs in c.json"):
        run_conversion(path, [1], TINY, other, progress=quiet)
    assert len(Conversion.read(json.loads(path.read_text())).runs) == 1


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="got n_heads=8, n_kv_heads=3"):
        Settings(kv_heads=(4, 3))
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        Settings(rotary_steps=0)
    with pytest.raises(ValueError, match=r"among ranks, \(6, 64\), got \(7,\)"):
        Settings(ranks=(6, 64), ranks_on=(7,))
    with pytest.raises(ValueError, match="head_dim must be given"):
        Settings(d_model=60)
    with pytest.raises(ValueError, match="got 'conversion-gpu'"):
        Conversion.load("conversion-gpu")


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_finds_the_same(text):
    """Catches states, heads or batches that stay on the CPU."""
    here, there = (run_one(0, TINY, text, device, quiet) for device in ("cpu", "cuda"))
    for mine, other in zip(here.pooled + here.compressed, there.pooled + there.compressed,
                           strict=True):  # fmt: skip
        for (_, loss), (_, same) in zip(mine.losses, other.losses, strict=True):
            assert same == pytest.approx(loss, abs=2e-3)


# What is stored


@pytest.fixture(scope="module")
def stored():
    return Conversion.load()


def test_stored_runs_are_complete(stored):
    """Catches a file cut short, and one of other settings than the script's."""
    assert "conversion-cpu" in results.names()
    assert stored.settings == Settings()
    assert len({run.seed for run in stored.runs}) == len(stored.runs) >= 5
    assert len(str(stored.text["sha256"])) == 64
    assert stored.provenance["device"] == "cpu" and stored.provenance["threads"] == 1
    for positions, ways in WAYS.items():
        for n_kv_heads in stored.settings.kv_heads:
            for how in ways:
                assert len(stored.pooled(positions, n_kv_heads, how)) == 4
    for run in stored.runs:
        assert len(run.pooled) == 3 * 4 + 3 * 2
        assert len(run.compressed) == len(GUIDES) * len(stored.settings.ranks)


def test_stored_numbers_have_what_must_be_true_of_them(stored):
    """Catches results of a broken conversion: full rank is exact, and more."""
    full = stored.settings.d_model
    trained = stored.continued("added")[0]
    for guide in GUIDES:
        for run, loss in zip(stored.compressed(full, guide), trained, strict=True):
            assert run.losses[0][1] == pytest.approx(loss, abs=1e-3)
            assert run.output_error < 1e-3
        errors = [
            [run.weight_error for run in stored.compressed(rank, guide)]
            for rank in stored.settings.ranks
        ]
        if guide == "weights":  # less is cut off with each rank
            assert all(
                a > b for low, high in pairwise(errors)
                for a, b in zip(low, high, strict=True)
            )  # fmt: skip
    for rank in stored.settings.ranks[:-1]:
        pairs = zip(*(stored.compressed(rank, guide) for guide in GUIDES), strict=True)
        assert all(
            by_weights.weight_error < by_text.weight_error for by_weights, by_text in pairs
        )
    for run in stored.runs:
        for positions in POSITIONS:
            assert run.trained[positions][-1][1] == run.continued[positions][0][1]
