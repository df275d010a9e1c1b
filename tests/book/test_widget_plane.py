"""The plane of models in Python: numbers of the cost model, filters, sources, the fallback."""

from __future__ import annotations

import html
import json
import re
from dataclasses import replace

import pytest

from attnlib import MODELS
from attnlib.book.widgets import ModelPlane
from attnlib.book.widgets.plane import (
    ALL,
    CONTEXTS,
    FORMS,
    H100,
    MEASURES,
    QUERIES,
    Machine,
    described,
    parts_of,
    plane_data,
    ridge_of,
)
from attnlib.costs import Geometry, attention_params, decode_cost, kv_cache_bytes
from attnlib.layers import cache_size, step_reads
from attnlib.models import Model
from attnlib.variants import VARIANTS

DATA = plane_data(MODELS)
ENTRIES = {entry["name"]: entry for entry in DATA["models"]}
FIRST_SIX = dict(list(MODELS.items())[:6])


def made(**options) -> ModelPlane:
    return ModelPlane(MODELS, **options)


def model(geometry: Geometry, **options) -> Model:
    facts = {"name": "x", "family": "X", "year": 2024, "kind": "decoder", "params": "1B"}
    return Model(geometry=geometry, source="a paper", checked="paper", **{**facts, **options})


def per_token(name: str) -> list[float]:
    """Return the cache of a token at each context, from the page's data."""
    return [cache / S for S, cache in zip(CONTEXTS, ENTRIES[name]["cache"], strict=True)]


ALIKE = [name for name in ENTRIES if MODELS[name].geometry is not None]


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in ALIKE])
def test_layers_that_differ_keep_and_read_what_the_count_says(name):
    """Catches a sparse model at what it keeps where it should be at what it reads."""
    entry, layers = ENTRIES[name], MODELS[name].layers
    assert entry["variant"] == MODELS[name].variant and entry["params"] is None
    for i, S in enumerate(CONTEXTS):
        step = step_reads(layers, S)
        assert entry["cache"][i] == cache_size(layers, S).once
        assert entry["read"][i] == step.bytes
        assert entry["intensity"][0][i] == round(step.flops / step.bytes, 2)
        ratio = entry["intensity"][3][i] / entry["intensity"][0][i]
        assert 3.9 < ratio < 4.02  # an earlier query sees a little less; rounded
    words = entry["sizes"]
    assert all(str(kind.n_layers) in words for kind in layers)


def test_an_indexer_reads_less_than_it_keeps_and_borrowed_caches_are_read_again():
    entries = {name: ENTRIES[name] for name in ("DeepSeek-V3.2", "Gemma 4 E2B")}
    kept, read = ({n: e[key][-1] for n, e in entries.items()} for key in ("cache", "read"))
    assert read["DeepSeek-V3.2"] < 0.25 * kept["DeepSeek-V3.2"]
    assert read["Gemma 4 E2B"] > 2 * kept["Gemma 4 E2B"]


@pytest.mark.parametrize("name", ALIKE)
def test_numbers_are_the_cost_models(name):
    entry, published = ENTRIES[name], MODELS[name]
    g = published.geometry
    assert (entry["year"], entry["variant"]) == (published.year, g.variant)
    assert entry["params"] == (attention_params(g) if g.d_model else None)
    assert entry["read"] == entry["cache"]
    g = replace(g, d_model=g.d_model or 1)
    for S, cache in zip(CONTEXTS, entry["cache"], strict=True):
        assert cache == kv_cache_bytes(g, S)
        # Twice H heads of width D and D_v for each cached number of two bytes: no other count.
        step = decode_cost(g, S)
        assert entry["intensity"][0] == pytest.approx(step.core_flops / cache, abs=0.005)
    for T, intensity in zip(QUERIES, entry["intensity"], strict=True):
        assert intensity == pytest.approx(
            T * entry["intensity"][0], abs=0.005 * T + 1e-4 * intensity
        ), T
    longest = published.max_context
    assert entry["longest"] == (longest and kv_cache_bytes(g, longest))
    if g.variant != "MLA":
        assert entry["intensity"][0] == g.n_heads / g.n_kv_heads
        assert entry["naive"] is None


def test_golden_numbers():
    """DeepSeek-V3, arXiv 2412.19437: 61 layers of 512 + 64 numbers for 128 heads."""
    entry = ENTRIES["DeepSeek-V3 / R1"]
    assert entry["cache"][0] == 1024 * 70_272 == 1024 * 61 * 576 * 2
    assert entry["intensity"][0] == round(2 * 128 * (512 + 64 + 512) / (576 * 2), 2) == 241.78
    assert entry["naive"]["cache"][0] == 1024 * 61 * 128 * (128 + 64 + 128) * 2
    assert entry["naive"]["intensity"][0] == 1
    assert ENTRIES["Qwen2.5-72B"]["cache"][-1] == 131_072 * 327_680
    assert ENTRIES["Kimi K2"]["cache"] == entry["cache"]
    assert ENTRIES["Kimi K2"]["intensity"][0] == 120.89


def test_windows_make_a_token_cheaper_in_a_longer_context():
    g = MODELS["Gemma-3 27B"].geometry
    each = per_token("Gemma-3 27B")
    assert each[0] == kv_cache_bytes(g, 1)
    assert each == sorted(each, reverse=True)
    full, near = g.n_layers - g.n_window_layers, g.n_window_layers
    assert each[-1] == 2 * 2 * 16 * 128 * (full * 131_072 + near * 1024) / 131_072
    assert len(set(per_token("Llama-3 8B"))) == 1


def test_encoders_are_left_out_and_that_is_said():
    encoders = [name for name, published in MODELS.items() if published.kind == "encoder"]
    assert encoders
    assert set(ENTRIES) == set(MODELS) - set(encoders)
    for name in encoders:
        assert name in DATA["left_out"]
    few = {name: published for name, published in MODELS.items() if name not in encoders}
    assert plane_data(few)["left_out"] == ""


def test_data_is_json_and_names_no_measure_twice():
    assert json.loads(json.dumps(DATA)) == DATA
    assert len(set(MEASURES.values())) == len(MEASURES)


def test_families_of_one_are_not_offered():
    families = [
        published.family for published in MODELS.values() if published.kind != "encoder"
    ]
    assert DATA["families"] == sorted(
        {family for family in families if families.count(family) > 1}, key=str.casefold
    )
    assert 5 < len(DATA["families"]) < len(set(families))


@pytest.mark.parametrize(
    ("geometry", "text"),
    [
        (Geometry(32, 32, 8, 128), "32 query heads share 8 KV heads of width 128"),
        (Geometry(3, 71, 1, 64), "3 layers; 71 query heads share 1 KV head of width 64"),
        (
            Geometry(2, 4, 4, 16, 8),
            "4 heads of width 16 (values 8), each with a key and a value",
        ),
        (
            Geometry(61, 128, 128, 128, 128, 512, 64),
            "128 heads of width 128; latent 512, rotary key 64",
        ),
        (
            Geometry(26, 8, 4, 256, window=4096, n_window_layers=13),
            "width 256; 13 layers see the last 4,096 tokens",
        ),
        (
            Geometry(6, 8, 4, 256, window=9, n_window_layers=6),
            "; every layer sees the last 9 tokens",
        ),
    ],
)
def test_sizes_in_words(geometry, text):
    assert text in described(geometry)


def test_sources_lead_to_what_they_name():
    assert parts_of("arXiv 2407.21783 Table 3 + a copy") == [
        ["arXiv 2407.21783", "https://arxiv.org/abs/2407.21783"],
        [" Table 3 + a copy", None],
    ]
    assert parts_of("see https://example.org/a(1).") == [
        ["see ", None],
        ["https://example.org/a(1", "https://example.org/a(1"],
        [").", None],
    ]
    assert parts_of("a copy") == [["a copy", None]]
    for name, entry in ENTRIES.items():
        assert "".join(text for text, _ in entry["source"]) == MODELS[name].source
        linked = {address for _, address in entry["source"] if address}
        assert linked <= set(MODELS[name].links)
        assert bool(linked) == bool(MODELS[name].links)


def test_ridge_point():
    """989 TFLOP/s over 3.35 TB/s: arXiv 2505.21487 prints about 295."""
    assert round(ridge_of(H100)["intensity"]) == 295
    assert "989 TFLOPs / 3.35 TB a second = 295 FLOPs per byte" in ridge_of(H100)["text"]
    assert ridge_of(None) is None
    assert plane_data(FIRST_SIX, Machine("x", 6.0, 3.0, "y"))["machine"]["intensity"] == 2
    assert "Ridge" not in ModelPlane(FIRST_SIX, machine=None).fallback()


ENCODER = model(Geometry(2, 4, 4, 16, d_model=64), kind="encoder")


@pytest.mark.parametrize(
    ("models", "complaint"),
    [
        ({}, "models must hold 1 to 300 models that decode, got 0"),
        ({"x": ENCODER}, "models must hold 1 to 300 models that decode, got 0"),
        ({"x": Geometry(2, 4, 2, 16)}, "models must be attnlib.models.Model, got Geometry"),
        (
            {str(i): model(Geometry(2, 4, 2, 16, d_model=64)) for i in range(301)},
            "models must hold 1 to 300 models that decode, got 301",
        ),
    ],
)
def test_bad_models(models, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        ModelPlane(models)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"x": "heads"}, "x must be one of 'bytes', 'read', 'intensity', .*got 'heads'"),
        ({"y": ""}, "y must be one of 'bytes', 'read', 'intensity', .*got ''"),
        ({"x": "year", "y": "year"}, "x and y must differ, got 'year' for both"),
        ({"context": 1000}, r"context must be one of 1024, 2048, .*got 1000"),
        ({"queries": 5}, "queries must be one of 1, 2, 3, 4, got 5"),
        ({"model": "GPT-5"}, "model must be one of .*got 'GPT-5'"),
        ({"model": "BERT-base"}, "model must be one of .*got 'BERT-base'"),
        (
            {"machine": Machine("x", 1e12, 0, "y")},
            "bytes_per_second of the machine must be above 0, got 0",
        ),
        (
            {"machine": Machine("x", float("nan"), 1.0, "y")},
            "flops_per_second of the machine must be above 0, got nan",
        ),
    ],
)
def test_bad_first_states(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        made(**options)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("family", "Lama"),
        ("from_year", 1999),
        ("form", "cached"),
        ("x", "z"),
        ("shown", ["GQA", "SSA"]),
    ],
)
def test_a_kernel_cannot_set_what_the_page_cannot_show(name, value):
    plane = made()
    before = plane.state()
    with pytest.raises(ValueError, match=rf"{name} must .* got {re.escape(repr(value))}"):
        setattr(plane, name, value)
    assert plane.state() == before


def test_first_state():
    plane = made(model="Kimi K2")
    years = [published.year for published in MODELS.values() if published.kind != "encoder"]
    assert (plane.x, plane.y, plane.context, plane.model) == (
        "bytes", "intensity", 8192, "Kimi K2"
    )  # fmt: skip
    assert plane.queries == 1
    assert made(queries=2).queries == 2
    assert (plane.from_year, plane.to_year) == (min(years), max(years))
    assert (plane.family, plane.form, plane.ridge) == (ALL, "absorbed", True)
    assert set(FORMS) == {"absorbed", "naive"}


def test_an_axis_that_wants_the_others_measure_swaps_with_it():
    plane = made()
    plane.x = "intensity"
    assert (plane.x, plane.y) == ("intensity", "bytes")
    plane.y = "year"
    plane.y = "intensity"
    assert (plane.x, plane.y) == ("year", "intensity")
    plane.set_state({"x": "intensity", "y": "year"})  # as the page sends it
    assert (plane.x, plane.y) == ("intensity", "year")


def test_years_push_each_other():
    plane = made()
    plane.to_year = 2022
    plane.from_year = 2024
    assert (plane.from_year, plane.to_year) == (2024, 2024)
    plane.to_year = 2020
    assert (plane.from_year, plane.to_year) == (2020, 2020)


def test_without_scripts_the_table_has_every_model():
    text = made(context=1024).fallback()
    rows = {
        html.unescape(row[0]): row[1:]
        for row in (
            re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row)
            for row in re.findall("<tr>(.*?)</tr>", text, re.DOTALL)[1:]
        )
    }
    assert list(rows) == list(ENTRIES)
    for name, cells in rows.items():
        entry = ENTRIES[name]
        assert cells[:2] == [f"{entry['year']}", entry["variant"]]
        assert cells[3] == f"{round(entry['cache'][0] / 1024):,}"
        assert cells[4] == f"{round(entry['read'][0] / 1024):,}"
        assert cells[8] == (f"{entry['params']:,}" if entry["params"] else "")
        assert re.sub("<.*?>", "", html.unescape(cells[9])) == MODELS[name].source
    assert rows["DeepSeek-V3 / R1"][3:7] == ["70,272", "70,272", "241.78", "131,072"]
    assert rows["PaLM 8B"][6:8] == ["not published", ""]
    assert f"{len(ENTRIES)} models, the cache over 1,024 tokens in bfloat16" in text


def test_text_of_a_model_stays_text():
    g = Geometry(2, 4, 2, 16, d_model=64)
    nasty = replace(model(g), source='<b> https://example.org/"><i>', note="<u>")
    text = ModelPlane({"<s>": nasty}).html()
    assert not re.search("<[bius]>", text.replace("\\u003c", ""))
    assert "&lt;b&gt;" in text


def test_equal_widgets_give_equal_pages_and_the_state_is_in_them():
    one, other = (ModelPlane(FIRST_SIX, x="year").html() for _ in range(2))
    assert one == other
    stored = json.loads(re.search(r'application/json">(.*?)</script>', one)[1])
    assert (stored["x"], stored["y"], stored["shown"]) == ("year", "intensity", list(VARIANTS))
    assert repr(ModelPlane(FIRST_SIX, label="y")) == "ModelPlane('y')"
