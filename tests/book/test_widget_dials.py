"""The five dials in Python: the page's data are cache_size's, the state is checked.

tests/site/widgets/test_widget_page_dials.py compares what the page computes from these data.
"""

from __future__ import annotations

import html
import json
import re

import pytest

from attnlib.book.widgets import CacheDials
from attnlib.book.widgets.dials import (
    DEVICES,
    FORMATS,
    LIMITS,
    SERVED,
    WORDS,
    counted,
    dials_data,
    layers_that_own,
)
from attnlib.book.widgets.explorer import amount
from attnlib.layers import FORMATS as ALL_FORMATS
from attnlib.layers import Part, cache_size, layers_of, max_cached_tokens, read_by
from attnlib.models import MODELS

DECODERS = {name: model for name, model in MODELS.items() if model.kind != "encoder"}
SOME = {name: DECODERS[name] for name in ("gpt-oss-120b", "Kimi K3", "DeepSeek-V4.1-Flash")}
DATA = json.loads(json.dumps(dials_data(DECODERS)))  # as the page gets it


def made(**options) -> CacheDials:
    return CacheDials(SOME, **options)


def names(*parts: Part) -> list[str]:
    return [part.name for part in parts]


def bits(part: dict, tokens: int, dtype: str) -> int:
    """Return the bits of a part of one layer, from the page's data alone."""
    kept = Part("", 1, 1, part["keeps"], part["size"]).entries(tokens)
    return part["bits"][dtype] * part["heads"] * kept


@pytest.mark.parametrize("dtype", FORMATS)
def test_data_of_every_decoder_sum_up_to_its_cache(dtype):
    for name, model in DECODERS.items():
        stored = model.stored if dtype == SERVED else dtype
        kinds = DATA["models"][name]["kinds"]
        for tokens in (1, 127, 4_097, 131_072):
            total = sum(
                kind["layers"] * bits(part, tokens, dtype)
                for kind in kinds
                for part in kind["parts"]
            )
            size = cache_size(model, tokens, dtype=stored)
            assert -(-total // 8) == size.once, (name, tokens)


def test_data_hold_what_layers_borrow_apart_from_what_they_own():
    """Catches a borrowed cache that is counted, or an index that a layer does not read."""
    borrowing = [name for name, m in DECODERS.items() if any(k.borrows for k in layers_of(m))]
    assert {"Gemma 4 E4B", "DeepSeek-V4.1-Flash"} <= set(borrowing)
    for name in DECODERS:
        kinds = layers_of(DECODERS[name])
        for kind, data in zip(kinds, DATA["models"][name]["kinds"], strict=True):
            lent, parts = ([part["name"] for part in data[key]] for key in ("lent", "parts"))
            assert lent + parts == names(*read_by(kind, kinds))
            assert parts == names(*kind.parts)
            assert data["borrows"] == kind.borrows
            assert (lent == []) == (kind.borrows is None)
            assert {*lent, *parts} <= set(WORDS)


def test_scales_are_what_a_row_lacks_without_them():
    kv = DATA["models"]["Llama-3 8B"]["kinds"][0]["parts"][0]
    assert (kv["heads"], kv["width"]) == (8, 256)
    assert {name: kv["bits"][name] - kv["bare"][name] for name in FORMATS} == {
        SERVED: 0,
        "float32": 0,
        "bfloat16": 0,
        "int8": 0,
        "q8_0": 16 * 256 // 32,
        "q5_0": 16 * 256 // 32,
        "q4_0": 16 * 256 // 32,
    }
    assert kv["bare"]["q5_0"] == 5 * 256
    shared = DATA["models"]["DeepSeek-V4-Flash"]["kinds"][0]["parts"][0]
    assert shared["name"] == "shared" and shared["width"] == 448
    assert shared["bits"][SERVED] - shared["bare"][SERVED] == 8 * 448 // 64 + 8  # and a byte


def test_formats_are_the_cost_models():
    assert set(FORMATS) - {SERVED} <= set(ALL_FORMATS)
    for name in ("q8_0", "q5_0", "q4_0"):
        n_bytes, width = map(int, re.findall(r"\d+", FORMATS[name].partition(",")[2]))
        size = cache_size(DECODERS["Llama-2 7B"], 1, dtype=name).once
        assert size == 32 * 32 * 2 * 128 * n_bytes // width


def test_a_count_with_wrong_dials():
    """Catches a mistake that is another one than the switch says."""
    gemma, kimi, v41 = (
        DECODERS[name] for name in ("Gemma 4 E4B", "Kimi K3", "DeepSeek-V4.1-Flash")
    )
    assert [kind.n_layers for kind in counted(gemma, owners="all")] == [20, 4, 15, 3]
    assert all(kind.borrows is None for kind in counted(gemma, owners="all"))
    per_token = 42 - 24  # layers that borrow
    more = cache_size(counted(gemma, owners="all"), 512).once - cache_size(gemma, 512).once
    assert per_token == 18 and more == 512 * 2 * 2 * 2 * (15 * 256 + 3 * 512)

    bare = counted(kimi, width="kv")
    assert cache_size(bare, 7).once == 24 * 7 * (512 + 64) * 2  # the latent layers alone
    assert cache_size(kimi, 7).once > 69 * 96 * 128 * 128 * 4

    entries = [names(*kind.parts) for kind in counted(v41, owners="all")]
    kinds = layers_of(v41)
    assert entries == [names(*read_by(kind, kinds)) for kind in kinds]
    assert counted(v41) == kinds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"a": "GPT-5"}, "a must be one of 'gpt-oss-120b', 'Kimi K3'"),
        ({"b": "gpt-oss"}, "b must be one of 'gpt-oss-120b', 'Kimi K3'"),
        ({"context": 0}, "context must be an integer of at least 1, got 0"),
        ({"context": 10**8}, "context must be an integer from 1 to 10,000,000, got 100000000"),
        ({"users": 1.5}, "users must be an integer of at least 1, got 1.5"),
        ({"users": 65_537}, "users must be an integer from 1 to 65,536, got 65537"),
        ({"memory": -80}, "memory must be an integer of at least 1, got -80"),
        ({"dtype": "q9_0"}, "dtype must be one of 'as served', 'float32', 'bfloat16'"),
        ({"devices": 3}, "devices must be one of 1, 2, 4, 8, 16, got 3"),
        ({"devices": 2.0}, "devices must be an integer of at least 1, got 2.0"),
        ({"split": "layers"}, "split must be one of 'heads', 'positions', 'sequences', got"),
    ],
)
def test_bad_first_states(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        made(**options)


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ({}, "models must name at least two models, got []"),
        ({"x": SOME["Kimi K3"]}, "models must name at least two models, got ['x']"),
        (
            {"x": SOME["Kimi K3"], "y": (32, 8, 128)},
            "models must be attnlib.models.Model, got (32, 8, 128): y",
        ),
    ],
)
def test_bad_models(models, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        CacheDials(models)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a", "GPT-5"),
        ("b", ""),
        ("owners", "none"),
        ("kept", "own"),
        ("width", "keys"),
        ("dtype", "fp16"),
        ("scales", "no"),
        ("devices", 32),
        ("split", "layers"),
        ("page", 32),
        *((name, 0) for name in LIMITS),
        *((name, limit + 1) for name, limit in LIMITS.items()),
    ],
)
def test_a_kernel_cannot_set_what_the_page_cannot_show(name, value):
    dials = made()
    before = dials.state()
    with pytest.raises(ValueError, match=f"^{name} must be "):
        setattr(dials, name, value)
    assert dials.state() == before


def test_first_state_and_every_choice():
    dials = made()
    assert (dials.a, dials.b, dials.context, dials.memory) == (*list(SOME)[:2], 131_072, 80)
    assert made(b="DeepSeek-V4.1-Flash").b == "DeepSeek-V4.1-Flash"
    for trait, key in {
        "owners": "owners",
        "kept": "kept",
        "width": "width",
        "dtype": "formats",
        "scales": "scales",
        "split": "splits",
        "page": "pages",
    }.items():
        for value, text in dials.data[key]:
            setattr(dials, trait, value)  # all that the page offers is allowed
            assert text
    assert dials.data["devices"] == list(DEVICES)


def rows(text: str) -> dict[str, list[str]]:
    found = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text)
    return {html.unescape(name): re.findall("<td>(.*?)</td>", row) for name, row in found}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"context": 5_000, "users": 3, "dtype": "q5_0", "memory": 24},
        {"context": 1, "dtype": SERVED, "memory": 1},
    ],
)
def test_without_scripts_the_table_has_every_model(state):
    dials = CacheDials(DECODERS, **state)
    found = rows(dials.fallback())
    assert list(found) == list(DECODERS)
    for name, cells in found.items():
        model = DECODERS[name]
        dtype = model.stored if dials.dtype == SERVED else dials.dtype
        options = {"batch_size": dials.users, "dtype": dtype}
        size = cache_size(model, dials.context, **options).once
        fit = max_cached_tokens(model, dials.memory * 10**9, most=2**50, **options)
        assert cells == [
            " + ".join(layers_that_own(layers_of(model))),
            f"{size:,}",
            amount(size, "GB"),
            "any number" if fit is None else f"{fit:,}",
        ]


def test_without_scripts_the_table_says_what_it_counts():
    text = made().fallback()
    assert "The cache of 1 user with 131,072 tokens, on one device." in text
    assert "tokens per user that fit in 80 GB" in text
    assert f"<li>Kimi K3: {html.escape(SOME['Kimi K3'].note)}</li>" in text
    text = made(users=16, context=1, dtype="q4_0", memory=1_500).fallback()
    assert "The cache of 16 users with 1 token each, on one device." in text
    assert FORMATS["q4_0"] in text and "that fit in 1,500 GB" in text
    assert layers_that_own(layers_of(SOME["gpt-oss-120b"])) == ["18 window", "18 full"]
    assert layers_that_own(layers_of(DECODERS["Gemma 4 E4B"])) == ["20 window", "4 full"]


def test_equal_widgets_give_equal_pages_and_the_state_is_in_them():
    assert made().html() == made().html()
    assert made(devices=8).html() != made().html()
    stored = json.loads(re.search(r'application/json">(.*?)</script>', made().html())[1])
    assert {name: stored[name] for name in made().state()} == made().state()
    assert stored["data"] == json.loads(json.dumps(dials_data(SOME)))
    assert 'id="cache-dials" data-widget="dials"' in made().html()
    assert repr(made()) == "CacheDials('Five dials of a cache')"
    assert repr(made(label="Two caches")) == "CacheDials('Two caches')"
