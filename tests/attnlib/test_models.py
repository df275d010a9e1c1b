"""The table of published models: complete, sourced, and what real caches of its shapes take."""

import re
from dataclasses import replace

import pytest

from attnlib import MODELS, kv_cache_bytes
from attnlib.bench import build_layer
from attnlib.models import VARIANTS, UnknownModelError, find_model, models_of


def test_the_table_is_there():
    assert len(MODELS) == len(list(MODELS)) >= 140
    recent = [model for model in MODELS.values() if model.year >= 2025 and model.read]
    assert len(recent) >= 45
    assert all(re.fullmatch(r"2026-\d\d-\d\d", model.read) for model in recent)
    assert not any("class default" in model.checked for model in recent)
    assert all(name == model.name for name, model in MODELS.items())
    assert {model.variant for model in MODELS.values()} == set(VARIANTS)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_says_where_its_numbers_are_from(name):
    model = MODELS[name]
    assert model.source
    assert model.checked
    assert model.links, "its source names no public page"
    assert all(re.fullmatch(r"https://[\w./-]+", link) for link in model.links)
    assert 2017 <= model.year <= 2026
    assert model.kind in {"decoder", "encoder", "encoder-decoder"}
    assert "UNVERIFIED" not in model.source + model.note


SIXTEENTH = ("head_dim", "v_head_dim", "kv_lora_rank", "qk_rope_head_dim")


def scaled_down(geometry):
    """The same heads and layers, a sixteenth of every width; a window of 4 tokens."""
    sizes = {name: getattr(geometry, name) for name in SIXTEENTH}
    sizes = {name: size and size // 16 for name, size in sizes.items()}
    window = geometry.window and 4
    return replace(geometry, **sizes, window=window, d_model=8, q_lora_rank=None)


ALIKE = [name for name, model in MODELS.items() if model.geometry is not None]


@pytest.mark.parametrize("name", ALIKE)
def test_formula_is_what_real_caches_take_at_every_geometry(name):
    """Catches a formula that holds only where heads, widths or layers are ordinary."""
    B, tokens = 2, 7
    geometry = scaled_down(MODELS[name].geometry)
    layer = build_layer(replace(geometry, qkv_bias=False, o_bias=False, qk_norm=False))
    full = geometry.n_layers - geometry.n_window_layers
    measured = full * layer.new_cache(B, tokens).nbytes
    measured += geometry.n_window_layers * layer.new_cache(B, min(tokens, 4)).nbytes
    assert kv_cache_bytes(geometry, tokens, batch_size=B, dtype="float32") == measured


GOLDEN = {  # bytes per token in bfloat16, every layer keeping every token
    "DeepSeek-V3 / R1": 70_272,  # arXiv 2412.19437, section 4.2: 61 layers of 512 + 64
    "DeepSeek-V2": 69_120,  # arXiv 2405.04434, section 3.1.2
    "DeepSeek LLM 67B": 389_120,  # arXiv 2401.02954, Table 2
    "Qwen2.5-72B": 327_680,
    "Llama-3.1 405B": 516_096,  # arXiv 2407.21783, Table 3
    "PaLM 540B": 120_832,  # arXiv 2204.02311, Table 1
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_numbers(name):
    assert kv_cache_bytes(MODELS[name].geometry, 1) == GOLDEN[name]


def test_a_window_caps_gemma_3():
    """52 of Gemma-3 27B's 62 layers keep 1,024 tokens: gemma_pytorch, gemma/config.py."""
    geometry = MODELS["Gemma-3 27B"].geometry
    a_layer = 2 * 16 * 128 * 2
    assert kv_cache_bytes(geometry, 32_768) == a_layer * (10 * 32_768 + 52 * 1024)


@pytest.mark.parametrize("variant", VARIANTS)
def test_models_of_a_variant(variant):
    found = models_of(variant)
    assert found
    assert {model.variant for model in found} == {variant}
    assert sum(len(models_of(each)) for each in VARIANTS) == len(MODELS)


def test_names_are_found_and_wrong_ones_told_what_is_near():
    assert find_model("deepseek-v3 / r1") is MODELS["DeepSeek-V3 / R1"]
    with pytest.raises(ValueError, match=r"got 'Mistral'; near it: Mistral 7B v0\.1"):
        find_model("Mistral")
    with pytest.raises(ValueError, match=r"got ''; list\(MODELS\) shows all names"):
        find_model("")
    with pytest.raises(KeyError):
        MODELS["LLAMA"]
    assert "LLAMA" not in MODELS
    assert MODELS.get("LLAMA") is None
    assert str(UnknownModelError("as it is")) == "as it is"
    with pytest.raises(ValueError, match="SWA, got 'TPA'"):
        models_of("TPA")


def test_the_table_says_how_many_models_it_has():
    """Catches a notebook cell that prints all models by their sizes."""
    assert repr(MODELS) == f"<{len(MODELS)} published models>"
