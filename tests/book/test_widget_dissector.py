"""The headline dissector in Python: the facts of the report, each comparison, the fallback."""

from __future__ import annotations

import json
import re
from math import prod

import pytest

from attnlib import MODELS
from attnlib.book.widgets import HeadlineDissector
from attnlib.book.widgets.dissector import TEXTS, baselines, dissector_data, states
from attnlib.costs import Geometry, kv_cache_bytes

STATES = dissector_data()["states"]

# Numbers and bytes of a token on both sides, and the percentage, each worked out by hand from
# the reports: DeepSeek-V2, arXiv 2405.04434, Tables 1 and 9; DeepSeek LLM, 2401.02954, Table 2.
BY_HAND = {
    "deployed 67b model": (60 * 576, 25_920, 95 * 2048, 389_120, "93.34 %"),
    "equal 67b model": (34_560, 69_120, 194_560, 389_120, "82.24 %"),
    "equal 67b layer": (576, 1_152, 2048, 4_096, "71.88 %"),
    "equal gqa model": (34_560, 69_120, 122_880, 245_760, "71.88 %"),
    "deployed gqa layer": (576, 432, 2048, 4_096, "89.45 %"),
    "equal mha layer": (576, 1_152, 32_768, 65_536, "98.24 %"),
    "equal mha model": (34_560, 69_120, 1_966_080, 3_932_160, "98.24 %"),
    "deployed mha model": (34_560, 25_920, 1_966_080, 3_932_160, "99.34 %"),
    "equal matched model": (34_560, 69_120, 860_200, 1_720_400, "95.98 %"),
    "deployed matched model": (34_560, 25_920, 860_200, 1_720_400, "98.49 %"),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_comparisons_by_hand(name):
    state = STATES[name]
    sides = [state["mine"], state["other"]]
    found = [side[part] for side in sides for part in ("count", "n_bytes")]
    assert (*found, state["saving"]) == BY_HAND[name]


def test_every_state_is_on_the_page():
    names = {" ".join(state) for state in states()}
    assert len(names) == 2 * 4 * 2
    assert set(json.loads(json.dumps(HeadlineDissector().data))["states"]) == names


@pytest.mark.parametrize("name", [name for name in STATES if STATES[name]["other"]])
def test_numbers_shown_agree_with_each_other(name):
    """Catches a factor, a ratio or a sentence that belongs to another comparison."""
    state = STATES[name]
    mine, other = state["mine"], state["other"]
    ratio = other["n_bytes"] / mine["n_bytes"]
    assert state["ratio"] == f"1/{ratio:.2f}"
    assert state["saving"] == f"{100 - 100 / ratio:.2f} %"
    assert prod(float(factor) for *_, factor in state["factors"]) == pytest.approx(
        ratio, rel=5e-4
    )
    for what, counted, factor in state["factors"]:
        above, below = (float(re.sub("[a-z, ]", "", number)) for number in counted.split(" / "))
        assert factor == f"{above / below:.3f}", what
    for text in (mine["bytes"], other["bytes"], f"{100 - 100 / ratio:.1f} % less"):
        assert text in state["sentence"]
    assert ("precision" in state["sentence"]) == (mine["bits"] != other["bits"])
    assert ("depth" in state["sentence"]) == (
        name.endswith("67b model") or name.endswith("matched model")
    )


def test_one_comparison_alone_gives_the_headline():
    assert [name for name in STATES if STATES[name]["headline"]] == ["deployed 67b model"]


def test_a_layer_of_the_matched_model_is_not_made_up():
    """The report prints one number for all its layers, and not how many they are."""
    for precision in TEXTS["precision"]:
        state = STATES[f"{precision} matched layer"]
        assert (state["other"], state["saving"], state["ratio"]) == (None, None, None)
        assert "does not say how many layers" in state["sentence"]


def test_baselines_are_what_their_names_say():
    v2, base = MODELS["DeepSeek-V2"].geometry, MODELS["DeepSeek LLM 67B"].geometry
    assert (v2.n_layers, v2.n_heads, v2.head_dim) == (60, 128, 128)
    found = baselines()
    assert found["67b"] == base
    assert (base.variant, base.n_layers, base.n_kv_heads) == ("GQA", 95, 8)
    assert kv_cache_bytes(found["gqa"], 1) * 95 == kv_cache_bytes(base, 1) * 60
    assert found["mha"] == Geometry(60, 128, 128, 128)
    assert found["mha"].variant == "MHA"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"precision": "8"}, "precision must be one of 'deployed', 'equal', got '8'"),
        ({"baseline": "gpt"}, "baseline must be one of '67b', 'gqa', 'mha', .*got 'gpt'"),
        ({"layers": "two"}, "layers must be one of 'model', 'layer', got 'two'"),
    ],
)
def test_bad_first_states(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        HeadlineDissector(**options)


def test_a_kernel_cannot_set_what_the_page_cannot_show():
    widget = HeadlineDissector(baseline="mha")
    with pytest.raises(ValueError, match="precision must be one of"):
        widget.precision = "6"
    assert widget.state() == {"precision": "deployed", "baseline": "mha", "layers": "model"}


def test_without_scripts_the_table_says_all_of_it():
    text = HeadlineDissector().fallback()
    rows = [
        re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row)
        for row in re.findall("<tr>(.*?)</tr>", text, re.DOTALL)[1:]
    ]
    assert len(rows) == 16
    first = ["DeepSeek 67B", TEXTS["precision"]["deployed"], "the whole model", "34,560"]
    first += ["25,920", "194,560", "389,120", "93.34 %", "1/15.01"]
    assert rows[0] == first
    assert [row[0] for row in rows if row[-1] == ""] == ["the report’s MHA"] * 2
    assert "does not spell out the arithmetic" in text
    assert '<a href="https://arxiv.org/abs/2405.04434">' in text


def test_equal_widgets_give_equal_pages_and_the_state_is_in_them():
    one, other = (HeadlineDissector(layers="layer").html() for _ in range(2))
    assert one == other
    stored = json.loads(re.search(r'application/json">(.*?)</script>', one)[1])
    assert (stored["precision"], stored["baseline"], stored["layers"]) == (
        "deployed", "67b", "layer"
    )  # fmt: skip
    assert (
        repr(HeadlineDissector()) == "HeadlineDissector('“93.3 % less KV cache”, taken apart')"
    )
