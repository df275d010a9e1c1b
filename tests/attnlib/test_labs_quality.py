"""The experiment on quality: fair sizes, a script that can be stopped, and what is stored."""

import json
import re
from dataclasses import asdict

import pytest
import torch
from helpers import short_text

from attnlib.costs import attention_params
from attnlib.labs import experiment, quality, results
from attnlib.labs.quality import (
    CONFIGURATIONS,
    EQUAL_CACHE,
    OWN_CACHE,
    Quality,
    Settings,
    build_model,
    configurations,
    model_sizes,
    run_quality,
)

TINY = Settings(
    d_model=24, n_layers=1, n_heads=4, n_kv_heads=2, head_dim=4, d_ff=40, steps=4, looks=2,
    batch_size=2, tokens=8, warmup=1, held_out_windows=3,
)  # fmt: skip
LARGE = Settings(d_model=512, n_layers=8, n_heads=8, n_kv_heads=2, head_dim=64, d_ff=2048)
OPTIONS = [f"--{k.replace('_', '-')}={v}" for k, v in asdict(TINY).items()]


@pytest.fixture
def text(monkeypatch):
    """A short text instead of the long one."""
    short = short_text(400, 200)
    monkeypatch.setattr(experiment, "load_text", lambda folder: short)
    return short


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_gpu_trains_the_same_model(text, name):
    """Catches batches or windows that stay on the CPU, and a measurement that cannot wait."""
    here, there = (quality.run_one(name, 0, TINY, text, device) for device in ("cpu", "cuda"))
    for (_, mine), (_, other) in zip(here.losses, there.losses, strict=True):
        assert other == pytest.approx(mine, abs=1e-3)
    assert there.cpu_seconds > 0 and there.peak_bytes > 0


@pytest.mark.parametrize("settings", [Settings(), TINY, LARGE])
def test_all_models_have_as_many_parameters(settings):
    """Catches a model that wins because it is larger."""
    counted = {name: model_sizes(some) for name, some in configurations(settings).items()}
    whole = counted["MHA"]["parameters"]
    assert set(counted) == set(CONFIGURATIONS)
    assert counted.pop("MQA, smaller")["parameters"] < whole
    for name, some in counted.items():
        assert abs(some["parameters"] / whole - 1) < 0.005, name


def test_each_control_differs_in_one_thing():
    """Catches a control that says nothing, differing in two things or in none."""
    known = configurations(Settings())
    smaller = known["MQA, smaller"]
    assert smaller.geometry == known["MQA"].geometry
    assert smaller.d_ff == known["MHA"].d_ff < known["MQA"].d_ff
    wide, mha = known["MHA, wide heads"], known["MHA"]
    assert wide.d_ff == mha.d_ff
    assert (wide.geometry.n_heads, wide.geometry.head_dim) == (4, 32)
    assert wide.geometry.head_dim == known["MQA, wide heads"].geometry.head_dim
    counts = [model_sizes(some) for some in (wide, mha)]
    assert counts[0] == counts[1]  # parameters and cache


def test_feed_forward_parts_get_what_attention_saves():
    """Catches equal totals that come from elsewhere, such as another number of layers."""
    for name, some in configurations(Settings()).items():
        counted = model_sizes(some)
        assert counted["attention_parameters"] == attention_params(some.geometry), name
        assert counted["mlp_parameters"] == 4 * 2 * 128 * some.d_ff, name
        assert len(build_model(some).blocks) == 4


@pytest.mark.parametrize("settings", [Settings(), TINY, LARGE])
def test_equal_caches_are_equal(settings):
    wanted = 2 * settings.n_kv_heads * settings.head_dim
    counted = {name: model_sizes(some) for name, some in configurations(settings).items()}
    assert {counted[name]["cache_numbers"] for name in EQUAL_CACHE} == {wanted}
    assert counted["MHA"]["cache_numbers"] == 2 * settings.n_heads * settings.head_dim
    assert counted["MQA"]["cache_numbers"] == 2 * settings.head_dim


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_cache_bytes_are_those_of_real_caches(name):
    """Catches a formula that is not of the layer which was built."""
    some = configurations(Settings())[name]
    caches = build_model(some).new_caches(3, 7)
    assert sum(cache.nbytes for cache in caches) == 3 * 7 * model_sizes(some)["cache_bytes"]


def test_variants_are_what_their_names_say():
    geometries = {name: c.geometry for name, c in configurations(Settings()).items()}
    assert [geometries[name].variant for name in OWN_CACHE] == ["MHA", "GQA", "MQA", "MLA"]
    few, wide = geometries["MHA, few heads"], geometries["MQA, wide heads"]
    assert (few.variant, few.n_heads, few.head_dim) == ("MHA", 2, 16)
    assert (wide.variant, wide.n_heads, wide.head_dim) == ("MQA", 8, 32)
    assert (geometries["MLA"].kv_lora_rank, geometries["MLA"].qk_rope_head_dim) == (48, 16)


def test_models_are_built_to_be_trained():
    """Catches layers whose weights want no gradients, as build_layer makes them."""
    for name, some in configurations(TINY).items():
        model = build_model(some, seed=1)
        model(torch.randint(256, (2, 5))).sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters()), name


def test_the_seed_decides_the_weights():
    some = configurations(TINY)["GQA"]
    first, same, other = (build_model(some, seed=seed).embed.weight for seed in (0, 0, 1))
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_script_writes_what_load_reads(text, tmp_path, capsys, one_thread):
    """Catches a field that is written and not read, or the reverse; from end to end."""
    path = tmp_path / "q.json"
    quality.main(["--json", str(path), "--seeds", "0", "1", *OPTIONS])
    written = json.loads(path.read_text())
    found = Quality.read(written)
    assert json.loads(json.dumps(found.report())) == written
    assert found.settings == TINY and found.text == text.fingerprint
    assert found.seeds() == [0, 1]
    assert len(found.runs) == 2 * len(CONFIGURATIONS)
    for run in found.runs:
        assert [step for step, _ in run.losses] == [0, 2, 4]
        assert run.cpu_seconds > 0 and run.peak_bytes > 0
    assert list(tmp_path.iterdir()) == [path]
    printed = capsys.readouterr().out
    assert found.describe() in printed and "MQA, wide heads" in printed


def test_a_stopped_run_goes_on_where_it_was(text, tmp_path):
    """Catches a second start that trains again, and a result that depends on the stop."""
    quiet = {"progress": lambda line: None, "names": ("GQA", "MLA")}
    once = run_quality(tmp_path / "once.json", [5, 6], TINY, text, **quiet)
    path = tmp_path / "twice.json"
    run_quality(path, [5], TINY, text, **quiet)
    lines = []
    twice = run_quality(path, [5, 6], TINY, text, **{**quiet, "progress": lines.append})
    assert len(lines) == 2
    assert [(run.configuration, run.seed, run.losses) for run in once.runs] == [
        (run.configuration, run.seed, run.losses) for run in twice.runs
    ]
    assert Quality.read(json.loads(path.read_text())).seeds() == [5, 6]


def test_runs_that_do_not_belong_together_are_kept_apart(text, tmp_path):
    """Catches a mean over runs of other sizes or of another text."""
    path = tmp_path / "q.json"
    quiet = {"progress": lambda line: None, "names": ("MQA",)}
    run_quality(path, [0], TINY, text, **quiet)
    with pytest.raises(ValueError, match=r"settings must be those of the runs in q.json"):
        run_quality(path, [1], Settings(**{**asdict(TINY), "lr": 1e-3}), text, **quiet)
    other = text._replace(fingerprint={**text.fingerprint, "sha256": "1" * 64})
    with pytest.raises(ValueError, match=r"text must be those of the runs in q.json"):
        run_quality(path, [1], TINY, other, **quiet)
    assert len(Quality.read(json.loads(path.read_text())).runs) == 1


def test_only_seeds_that_all_have_are_compared(text, tmp_path):
    """Catches a pair whose members are of different seeds."""
    path, quiet = tmp_path / "q.json", {"progress": lambda line: None}
    run_quality(path, [4, 2], TINY, text, names=("MHA", "GQA"), **quiet)
    found = run_quality(path, [9], TINY, text, names=("MHA",), **quiet)
    assert found.seeds() == [2, 4]
    for name in ("MHA", "GQA"):
        assert [run.seed for run in found.select(name)] == [2, 4]
    by_hand = [r.losses[1][1] for s in (2, 4) for r in found.runs
               if (r.configuration, r.seed) == ("GQA", s)]  # fmt: skip
    assert found.losses("GQA", look=1) == by_hand


def test_what_does_not_fit_is_refused(text):
    with pytest.raises(ValueError, match=r"name must be one of .*, got 'MLP'"):
        quality.run_one("MLP", 0, TINY, text)
    with pytest.raises(ValueError, match="got n_heads=8, n_kv_heads=3"):
        Settings(n_kv_heads=3)
    with pytest.raises(ValueError, match="looks must divide steps = 800, got 3"):
        Settings(looks=3)
    with pytest.raises(ValueError, match="d_ff must be an integer of at least 1, got 0"):
        Settings(d_ff=0)
    with pytest.raises(ValueError, match=r"d_ff must leave each layer .*, got 1"):
        configurations(Settings(d_ff=1))
    with pytest.raises(ValueError, match=r"got 'conversion-gpu'"):
        Quality.load("conversion-gpu")
    found = Quality({}, {}, TINY, runs=[], sizes={})
    with pytest.raises(ValueError, match=r"name must be one of \[\], got 'MHA'"):
        found.select("MHA")


@pytest.fixture(scope="module")
def stored():
    return Quality.load()


class TestStored:
    """What is stored with the package was made by the script as it is."""

    def test_every_configuration_has_every_seed(self, stored):
        assert len(stored.seeds()) >= 5
        assert len(stored.runs) == len(stored.seeds()) * len(CONFIGURATIONS)
        assert {run.configuration for run in stored.runs} == set(CONFIGURATIONS)

    def test_sizes_are_those_of_the_models(self, stored):
        """Catches results of models that the code no longer builds."""
        assert stored.settings == Settings()
        known = configurations(stored.settings)
        assert stored.sizes == {name: model_sizes(some) for name, some in known.items()}

    def test_models_have_learned(self, stored):
        steps = [0, 200, 400, 600, 800]
        for run in stored.runs:
            assert [step for step, _ in run.losses] == steps
            losses = [loss for _, loss in run.losses]
            assert losses == sorted(losses, reverse=True)
            assert losses[-1] < 2.0 and 5.4 < losses[0] < 6.5
            assert 0 < run.cpu_seconds < 10 and run.peak_bytes > 2**20

    def test_provenance_says_where_and_with_what_but_not_whose(self, stored):
        for fact in ("date", "processor", "threads", "dtype", "torch", "python", "attnlib"):
            assert stored.provenance[fact], fact
        assert re.fullmatch(r"[0-9a-f]{64}", stored.text["sha256"])
        text = json.dumps(stored.report())
        assert not re.search(r"/(?:home|root|tmp|usr|work)\b|hostname", text, re.IGNORECASE)

    def test_description_names_day_and_seeds(self, stored):
        lines = dict(re.split(r"\s{2,}", line, maxsplit=1)
                     for line in stored.describe().splitlines())  # fmt: skip
        assert lines["seeds"] == ", ".join(map(str, stored.seeds()))
        assert str(stored.provenance["torch"]) in lines["versions"]

    def test_names_are_those_that_can_be_loaded(self, stored):
        assert "quality-cpu" in results.names()
