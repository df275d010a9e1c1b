"""The cache explorer in Python: its numbers are the cost model's, its state is checked."""

from __future__ import annotations

import json
import re

import pytest

from attnlib.book.widgets import CacheExplorer
from attnlib.book.widgets.explorer import OWN, SIZES, amount, comparable, explorer_data
from attnlib.costs import CACHE_NUMBERS, Geometry, evaluate, kv_cache_bytes
from attnlib.variants import VARIANTS

LLAMA2 = Geometry(32, 32, 32, 128)
LLAMA3 = Geometry(32, 32, 8, 128)
V3 = Geometry(61, 128, 128, 128, 128, 512, 64)
MODELS = {"Llama-3 8B": LLAMA3, "Llama-2 7B": LLAMA2, "DeepSeek-V3": V3}


def made(**options) -> CacheExplorer:
    return CacheExplorer(MODELS, **options)


@pytest.mark.parametrize("name", MODELS)
def test_page_has_the_formulas_and_the_sizes_of_the_cost_model(name):
    data = json.loads(json.dumps(made().data))
    entry = data["models"][name]
    formulas = {variant["name"]: variant["numbers"] for variant in data["variants"]}
    numbers = evaluate(formulas[entry["variant"]], entry["sizes"])
    assert entry["variant"] == MODELS[name].variant
    assert numbers * entry["sizes"]["n_layers"] * 2 == kv_cache_bytes(MODELS[name], 1)
    assert list(formulas) == list(VARIANTS)


def test_each_variant_at_a_models_sizes():
    """Catches a bar that is not what a layer of that kind would keep."""
    sizes = made().data["models"]["Llama-3 8B"]["sizes"]
    as_variant = {
        "MHA": Geometry(32, 32, 32, 128),
        "GQA": Geometry(32, 32, 8, 128),
        "MQA": Geometry(32, 32, 1, 128),
        "MLA": Geometry(32, 32, 32, 128, 128, 512, 64),
    }
    for variant, geometry in as_variant.items():
        assert 32 * evaluate(CACHE_NUMBERS[variant], sizes) * 2 == kv_cache_bytes(geometry, 1)


def test_what_a_model_lacks_is_assumed_and_said():
    assert comparable(LLAMA2)["n_kv_heads"] == 8
    assert comparable(Geometry(1, 4, 4, 16))["n_kv_heads"] == 2
    assert comparable(Geometry(1, 12, 1, 16))["n_kv_heads"] == 6  # 8 does not divide 12
    assert comparable(Geometry(1, 1, 1, 16))["n_kv_heads"] == 1
    assert comparable(LLAMA3)["n_kv_heads"] == 8
    assert comparable(Geometry(28, 16, 16, 256))["kv_lora_rank"] == 1024
    assert comparable(Geometry(28, 16, 16, 256))["qk_rope_head_dim"] == 128
    assert comparable(V3) == {
        "n_layers": 61,
        "n_heads": 128,
        "n_kv_heads": 8,
        "head_dim": 128,
        "v_head_dim": 128,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
    }
    said = {name: entry["assumed"] for name, entry in made().data["models"].items()}
    assert "GQA" not in said["Llama-3 8B"] and "no latent" in said["Llama-3 8B"]
    assert "8 KV heads" in said["Llama-2 7B"] and "no latent" in said["Llama-2 7B"]
    assert "8 KV heads" in said["DeepSeek-V3"] and "latent" not in said["DeepSeek-V3"]


def test_what_the_cache_does_not_depend_on_changes_nothing():
    """Catches a size of the projections that gets onto the page or stops it."""
    more = Geometry(32, 32, 8, 128, d_model=4096, qkv_bias=True, o_bias=True, qk_norm=True)
    assert explorer_data({"x": more}) == explorer_data({"x": LLAMA3})


def test_choosing_a_model_sets_the_sizes_and_editing_one_makes_it_the_readers_own():
    explorer = made()
    explorer.model = "DeepSeek-V3"
    assert {name: getattr(explorer, name) for name in SIZES} == comparable(V3)
    explorer.n_layers = 27
    assert explorer.model == OWN
    assert explorer.kv_lora_rank == 512
    explorer.model = "Llama-2 7B"
    assert {name: getattr(explorer, name) for name in SIZES} == comparable(LLAMA2)


def test_a_change_from_the_page_arrives_whole():
    """Catches sizes that, taken one by one, turn a chosen model into the reader's own."""
    explorer = made()
    explorer.set_state({**comparable(V3), "model": "DeepSeek-V3"})
    assert explorer.model == "DeepSeek-V3"
    explorer.set_state({"n_layers": 60, "model": OWN})
    assert (explorer.model, explorer.n_layers, explorer.n_heads) == (OWN, 60, 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "GPT-5"}, "model must be one of 'Llama-3 8B'"),
        ({"context": 0}, "context must be an integer of at least 1, got 0"),
        ({"context": 10**8}, "context must be an integer from 1 to 10,000,000, got 100000000"),
        ({"users": 1.5}, "users must be an integer of at least 1, got 1.5"),
        ({"bits": 6}, "bits must be one of 32, 16, 8, 4, got 6"),
        ({"memory": -80}, "memory must be an integer of at least 1, got -80"),
        ({"unit": "GBit"}, "unit must be one of 'GB', 'GiB', got 'GBit'"),
    ],
)
def test_bad_first_states(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        made(**options)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({}, "models must name at least one geometry, got {}"),
        (
            {"x": (32, 32, 8, 128)},
            "models must be attnlib.costs.Geometry, got (32, 32, 8, 128)",
        ),
        ({"x": Geometry(1001, 8, 8, 16)}, "n_layers of x must be at most 1,000, got 1,001"),
        (
            {"x": Geometry(26, 8, 4, 256, window=4096, n_window_layers=13)},
            "window of x must be None here, got 4,096",
        ),
        ({OWN: LLAMA3}, "models must not use the name 'your own geometry'"),
    ],
)
def test_bad_models(models, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CacheExplorer(models)


@pytest.mark.parametrize("name", ["n_layers", "head_dim", "context", "users", "memory"])
def test_state_stays_within_what_the_page_can_show(name):
    explorer = made()
    for value in (0, 10**9):
        with pytest.raises(ValueError, match=f"{name} must be an integer from 1 to "):
            setattr(explorer, name, value)


def test_fallback_holds_the_numbers():
    text = made().fallback()
    row = re.search(r"<tr><th[^>]*>Llama-3 8B, GQA \(as published\)</th>(.*?)</tr>", text)[1]
    per_token, cache = kv_cache_bytes(LLAMA3, 1), kv_cache_bytes(LLAMA3, 8192, batch_size=32)
    assert re.findall("<td>(.*?)</td>", row) == [
        f"{per_token:,}",
        f"{cache:,}",
        "32.00",
        "34.36",
        f"{80 * 10**9 // per_token:,}",
        f"{80 * 10**9 // kv_cache_bytes(LLAMA3, 8192):,}",
    ]
    assert text.count("(as published)") == len(MODELS)
    assert "70,272" in text
    assert "32 users with 8,192 tokens each" in text


@pytest.mark.parametrize(
    ("n_bytes", "unit", "expected"),
    [
        (2**30 * 9 // 8, "GiB", "1.13"),  # half up, where Python's rounding gives 1.12
        (2**30, "GiB", "1.00"),
        (2**30 - 1, "GiB", "1.00"),
        (2**30 // 10, "GiB", "0.1000"),  # a little less than a tenth
        (70_272, "GB", "0.0001"),
        (523_986_010_112, "GB", "523.99"),
        (2**70, "GiB", "1,099,511,627,776.00"),
    ],
)
def test_amounts(n_bytes, unit, expected):
    assert amount(n_bytes, unit) == expected


def test_equal_widgets_give_equal_pages():
    assert made().html() == made().html()
    assert 'id="cache-explorer"' in made().html()
    assert made(users=1).html() != made().html()
    assert repr(made()) == "CacheExplorer('How much memory the cache takes')"
