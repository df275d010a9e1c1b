"""The headline dissector in Python: the facts of each report, each reading, the fallback."""

from __future__ import annotations

import html
import json
import re
from math import prod

import pytest

from attnlib import MODELS
from attnlib.book.widgets import HeadlineDissector
from attnlib.book.widgets.base import StateError
from attnlib.book.widgets.dissector import HEADLINES, TEXTS, baselines, dissector_data, states
from attnlib.costs import Geometry, kv_cache_bytes

DATA = dissector_data()
STATES = DATA["states"]
ENTRIES = {entry["name"]: entry for entry in DATA["headlines"]}
READINGS = {
    f"{entry['name']} {reading['name']}": reading
    for entry in DATA["headlines"]
    for reading in entry["readings"]
}

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
        ({"headline": "v3"}, "headline must be one of 'v2', 'ladder', .*got 'v3'"),
        ({"reading": "kept"}, "reading must be one of '' for the headline 'v2', got 'kept'"),
        ({"headline": "dsa", "reading": "8k"}, "reading must be one of 'kept', .*got '8k'"),
    ],
)
def test_bad_first_states(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        HeadlineDissector(**options)


def test_a_kernel_cannot_set_what_the_page_cannot_show():
    widget = HeadlineDissector(baseline="mha")
    with pytest.raises(ValueError, match="precision must be one of"):
        widget.precision = "6"
    assert widget.state() == {
        "precision": "deployed",
        "baseline": "mha",
        "layers": "model",
        "headline": "v2",
        "reading": "",
    }


def rows_of(text: str) -> list[list[list[str]]]:
    """Return the cells of each table of a fallback, without its head."""
    return [
        [
            [html.unescape(cell) for cell in re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row)]
            for row in re.findall("<tr>(.*?)</tr>", table, re.DOTALL)[1:]
        ]
        for table in re.findall("<table>.*?</table>", text, re.DOTALL)
    ]


def test_without_scripts_the_table_says_all_of_it():
    text = HeadlineDissector().fallback()
    rows = rows_of(text)[0]
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
        repr(HeadlineDissector())
        == "HeadlineDissector('Headlines, taken apart: relative to what?')"
    )


# The other headlines. Both sides and the result of each reading, worked out by hand from the
# sources that the widget names: layers x numbers x bytes, and the published times.
GIVEN = {  # amounts of both sides, the result, whether it is the headline's number
    "ladder first": (890, 95 * 2 * 8 * 128 * 2, "437.2 times less", True),
    "ladder bits": (3_200, 389_120, "121.6 times less", False),
    "ladder v3": (890, 61 * 576 * 2, "79.0 times less", False),
    "ladder v4flash": (
        890, 21 * (584 + 68) / 4 + 20 * 584 / 128, "3.95 times less", False
    ),
    "kimi75 design": (1_152, 4 * 1_152, "75.0 % less", True),
    "kimi75 token": (7 * 1_152, 27 * 1_152, "74.1 % less", False),
    "kimi75 8k": (109_477_888, 27 * 1_152 * 8_192, "57.0 % less", False),
    "kimi75 1m": (8_499_134_464, 27 * 1_152 * 2**20, "73.9 % less", False),
    "kimi6 printed": (1.84, 11.48, "6.24 times faster", True),
    "kimi6 one": (1, 2.25, "about 2.2 to 2.3 times faster", False),
    "kimi6 cache": (8_499_134_464, 27 * 1_152 * 2**20, "3.84 times less", False),
    "gemma4 exact": (512 + 128, 1_024, "37.5 % less", True),
    "gemma4 vector": (512, 1_024, "50.0 % less", False),
    "gemma4 stored": (1_024, 1_024, "0 % less", False),
    "gemma4 whole": (7_549_747_200, 11_576_279_040, "34.8 % less", False),
    "nsa load64k": (5_630, 65_536, "11.6 times less", True),
    "nsa load8k": (2_046, 8_192, "4.0 times less", False),
    "nsa everything": (30 * 4 * 320 * 2 * 17 / 16, 30 * 4 * 320 * 2, "6.25 % more", False),
    "tp8 heads": (70_272 * 8 * 8_192, 70_272 * 8 * 8_192, "0 % less", False),
    "tp8 positions": (70_272 * 8_192, 70_272 * 8 * 8_192, "8 times less", True),
    "tp8 sequences": (70_272 * 8_192, 70_272 * 8 * 8_192, "8 times less", True),
    "tp8 llama": (327_680 * 8_192, 327_680 * 8 * 8_192, "8 times less", True),
    "fp8 byte": (576, 1_152, "50.0 % less", True),
    "fp8 layout": (512 + 16 + 128, 1_152, "43.1 % less", False),
    "fp8 q8": (2_048 * 34 / 32, 4_096, "46.9 % less", False),
    "dsa kept": (61 * (656 + 132), 61 * 656, "20.1 % more", False),
    "dsa long": (
        61 * (132 * 131_072 + 656 * 2_048), 61 * 656 * 131_072, "4.61 times less", False
    ),
    "dsa short": (61 * (656 + 132) * 2_048, 61 * 656 * 2_048, "20.1 % more", False),
}  # fmt: skip
RATIOS = {
    "ladder first": "437.21",
    "dsa long": "4.61",
    "dsa short": "0.83",
    "nsa load8k": "4.00",
}
STATE = 20 * (32 * 128 * 128 * 4 + 36_864 * 2)  # bytes of Kimi Linear's, whatever the context


def test_nine_headlines_with_two_to_four_readings():
    assert list(ENTRIES) == [
        "v2", "ladder", "kimi75", "kimi6", "gemma4", "nsa", "tp8", "fp8", "dsa"
    ]  # fmt: skip
    assert set(READINGS) == set(GIVEN)
    counts = {name: len(entry["readings"]) for name, entry in ENTRIES.items()}
    assert counts.pop("v2") == 0
    assert set(counts.values()) <= {2, 3, 4}


def test_no_two_readings_share_a_name():
    """Catches a reading that would stay chosen when the headline changes."""
    names = [name.split()[1] for name in READINGS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", GIVEN)
def test_readings_by_hand(name):
    reading, (mine, other, result, is_headline) = READINGS[name], GIVEN[name]
    assert (reading["mine"]["amount"], reading["other"]["amount"]) == pytest.approx(
        (mine, other), rel=1e-12
    )
    assert (reading["strong"], reading["headline"]) == (result, is_headline)
    assert reading["total"] == RATIOS.get(name, reading["total"])


@pytest.mark.parametrize("name", READINGS)
def test_both_sides_say_what_is_counted(name):
    """Catches a side without name, precision, or the context or batch it is for."""
    for which in ("mine", "other"):
        side = READINGS[name][which]
        assert all(side[part] for part in ("name", "counted", "precision", "context", "takes"))
        assert re.search("bits|precision", side["precision"])
        assert re.search("batch|sequence", side["context"])


@pytest.mark.parametrize("name", READINGS)
def test_factors_make_the_ratio(name):
    """Catches a factor or a bar that belongs to another reading."""
    reading = READINGS[name]
    assert reading["factors"]
    amounts = reading["other"]["amount"] / reading["mine"]["amount"]
    assert reading["ratio"] == pytest.approx(amounts)
    if name == "kimi6 one":  # published as a range
        assert reading["total"] == "about 2.2 to 2.3"
        return
    assert reading["total"] == f"{amounts:.2f}"
    product = prod(float(factor) for *_, factor in reading["factors"])
    assert product == pytest.approx(amounts, rel=5e-3)
    for what, counted, factor in reading["factors"]:
        above, below = (float(number.replace(",", "")) for number in counted.split(" / "))
        assert float(factor) == pytest.approx(above / below, abs=6e-4), what
    assert reading["mine"]["takes"] in reading["rest"]


@pytest.mark.parametrize("name", READINGS)
def test_texts_are_sentences(name):
    reading, entry = READINGS[name], ENTRIES[name.split()[0]]
    for text in (reading["sentence"], reading["stamp"], entry["about"]):
        assert text.endswith(".")
        assert text[0].isupper()
        assert "  " not in text and "—" not in text
    assert not reading["text"].endswith(".")


@pytest.mark.parametrize("name", [name for name in ENTRIES if name not in ("v2", "dsa")])
def test_a_reading_gives_each_printed_number(name):
    """Catches a headline that no comparison here explains."""
    found = [reading for reading in ENTRIES[name]["readings"] if reading["headline"]]
    assert found
    for reading in ENTRIES[name]["readings"]:
        verb = "gives" if reading["headline"] else "does not give"
        printed = HEADLINES[name].claim.printed
        assert reading["stamp"].startswith(f"This reading {verb} the headline’s {printed}.")


def test_what_shrinks_and_what_grows_with_sparse_attention():
    stamps = [reading["stamp"] for reading in ENTRIES["dsa"]["readings"]]
    assert all(stamp.startswith("The headline prints no number. ") for stamp in stamps)
    assert "What is kept grows." in stamps[0]
    assert "A step reads less: the ratio is 4.61." in stamps[1]
    assert "A step reads more: the ratio is 0.83." in stamps[2]


def test_the_whole_ladder():
    rows = ENTRIES["ladder"]["table"]["rows"]
    assert [(row[0], row[1]) for row in rows] == [
        ("DeepSeek LLM 67B, 16 bits", "389,120"),
        ("DeepSeek-V2, 16 bits", "69,120"),
        ("DeepSeek-V3, 16 bits", "70,272"),
        ("DeepSeek-V3, fp8 layout", "40,016"),
        ("DeepSeek-V3.2, fp8 layout", "48,068"),
        ("DeepSeek-V4-Flash, V4’s layout", "3,514"),
        ("DeepSeek-V4-Pro, V4’s layout", "5,031"),
        ("DeepSeek-V4.1-Flash, 4 bits and scales", "890"),
    ]
    assert rows[-1][2] == "437.2"
    assert [row[3] for row in rows[:5]] == ["nothing"] * 5
    assert [row[3] for row in rows[5:]] == [
        f"the last 128 tokens in {layers} layers" for layers in (43, 61, 40)
    ]
    assert [name for name, entry in ENTRIES.items() if entry["table"]] == ["ladder"]


def test_sentences_carry_their_numbers():
    words = {
        "nsa load64k": ("4,094 + 1,024 + 512 tokens", "not a clocked speed"),
        "nsa load8k": ("510 + 1,024 + 512 tokens",),
        "gemma4 exact": ("128 of the 512 numbers", "512 + 128 numbers"),
        "gemma4 whole": ("50 layers with a window", "10 global layers hold 92.8 %"),
        "kimi75 token": ("20 linear layers and 7 MLA layers",),
        "kimi75 8k": (f"{STATE:,} bytes", "39.7 % of"),
        "kimi75 1m": (f"{STATE:,} bytes", "0.5 % of"),
        "kimi6 one": ("about 2.2 to 2.3 times faster",),
        "tp8 llama": ("8 KV heads",),
        "dsa kept": ("index key of 128 numbers",),
        "dsa long": ("all 131,072 tokens, then the 2,048 entries",),
    }
    for name, parts in words.items():
        for part in parts:
            assert part in READINGS[name]["sentence"], name
    assert "11.48 milliseconds" in READINGS["kimi6 printed"]["rest"]


@pytest.mark.parametrize("name", [name for name in ENTRIES if name != "v2"])
def test_sources_are_public_addresses(name):
    sources = ENTRIES[name]["sources"]
    assert sources
    for text, address in sources:
        assert text
        assert re.fullmatch(r"https://[a-z.]+/\S+", address)
    assert len({address for _, address in sources}) == len(sources)


def test_a_new_headline_begins_with_its_first_reading():
    widget = HeadlineDissector()
    widget.headline = "dsa"
    assert widget.reading == "kept"
    widget.reading = "long"
    with pytest.raises(StateError, match=r"reading must be one of 'kept', .*got 'heads'"):
        widget.reading = "heads"
    assert (widget.headline, widget.reading) == ("dsa", "long")
    widget.headline = "v2"
    assert widget.reading == ""
    both = HeadlineDissector(headline="tp8", reading="llama")
    assert (both.headline, both.reading) == ("tp8", "llama")
    assert HeadlineDissector(headline="tp8").reading == "heads"


def test_a_page_can_set_both_at_once():
    """Catches an order in which a live page's message would be refused."""
    widget = HeadlineDissector(headline="nsa")
    widget.set_state({"reading": "q8", "headline": "fp8"})
    assert (widget.headline, widget.reading) == ("fp8", "q8")


def test_without_scripts_every_reading_is_in_a_table():
    text = HeadlineDissector().fallback()
    tables = rows_of(text)
    assert len(tables) == 9 + 1  # and the ladder
    named = {row[0]: row for table in tables[1:] for row in table if len(row) == 6}
    assert len(named) == len(READINGS) - 1  # two headlines have a reading called the same
    for reading in READINGS.values():
        row = next(r for t in tables[1:] for r in t if r[-1] == reading["sentence"])
        assert row[0] == reading["text"]
        assert reading["mine"]["takes"] in row[1]
        assert reading["other"]["takes"] in row[2]
        assert row[3].startswith(reading["strong"] + reading["rest"])
        assert all(name in row[4] for name, *_ in reading["factors"])
    for entry in list(ENTRIES.values())[1:]:
        assert html.escape(entry["about"]) in text
        assert all(f'href="{address}"' in text for _, address in entry["sources"])
