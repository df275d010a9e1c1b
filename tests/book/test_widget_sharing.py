"""Head sharing in Python: numbers from real layers and caches, limits, the stored page."""

from __future__ import annotations

import json
import re

import pytest
import torch

from attnlib import GroupedQueryAttention, KVCache, MultiHeadAttention, MultiQueryAttention
from attnlib.book.widgets import HeadSharing
from attnlib.book.widgets.sharing import who_shares

DIVISORS = {6: [6, 3, 2, 1], 8: [8, 4, 2, 1], 32: [32, 16, 8, 4, 2, 1], 7: [7, 1]}


def test_stops_are_the_divisors_from_mha_to_mqa():
    for n_heads, divisors in DIVISORS.items():
        options = HeadSharing(n_heads, 4).data["options"]
        assert [option["kv"] for option in options] == divisors
        assert [option["name"] for option in options] == [
            "MHA", *["GQA"] * (len(divisors) - 2), "MQA"
        ]  # fmt: skip
        assert all(option["kv"] * option["G"] == n_heads for option in options)


def test_wires_are_those_of_a_layer_that_repeats_its_heads_in_place():
    # Consecutive heads share, as in transformers' repeat_kv; in turns would pass at the ends.
    for option in HeadSharing(6, 4).data["options"]:
        kv = torch.arange(option["kv"])
        assert option["reads"] == kv.repeat_interleave(option["G"]).tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float8_e4m3fn])
def test_bytes_are_those_of_the_layers_own_caches(dtype):
    n_heads, head_dim, n_layers = 6, 10, 5
    for option in HeadSharing(n_heads, head_dim, dtype=dtype, n_layers=n_layers).data[
        "options"
    ]:
        with torch.device("meta"):
            layer = GroupedQueryAttention(22, n_heads, option["kv"], head_dim=head_dim)
            one, nine = (layer.new_cache(1, tokens, dtype=dtype) for tokens in (1, 9))
        assert option["bytes"] == one.nbytes == nine.nbytes // 9
        assert option["total"] == n_layers * one.nbytes


def test_the_ends_are_mha_and_mqa():
    options = HeadSharing(6, 10, dtype=torch.float16).data["options"]
    for option, layer_type in (
        (options[0], MultiHeadAttention),
        (options[-1], MultiQueryAttention),
    ):
        cache = layer_type(22, 6, head_dim=10).new_cache(1, 1, dtype=torch.float16)
        assert option["bytes"] == cache.nbytes
    assert [option["ratio"] for option in options] == ["the same", "1/2", "1/3", "1/6"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"n_heads": 1}, "n_heads must be an integer of at least 2, got 1"),
        ({"n_heads": 65}, "n_heads must be at most 64 to be drawn, got 65"),
        ({"n_heads": 8.0}, "n_heads must be an integer of at least 2, got 8.0"),
        ({"head_dim": 0}, "head_dim must be an integer of at least 1, got 0"),
        ({"tokens": 9}, "tokens must be at most 8 to be drawn, got 9"),
        ({"tokens": 0}, "tokens must be an integer of at least 1, got 0"),
        ({"n_layers": -1}, "n_layers must be an integer of at least 1, got -1"),
        ({"n_kv_heads": 3}, "n_kv_heads.*got.*3"),
        ({"n_kv_heads": 16}, "n_kv_heads.*got.*16"),
        ({"dtype": "bfloat16"}, "dtype must be one of torch's.*got 'bfloat16'"),
        ({"head": 8}, "head must be one of 0, 1, .*got 8"),
        ({"head": -1}, "head must be one of 0, 1, .*got -1"),
    ],
)
def test_bad_arguments_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        HeadSharing(**options)


def test_a_kernel_cannot_set_what_the_page_cannot_show():
    widget = HeadSharing(8, 4, n_kv_heads=2, head=5)
    assert widget.state() == {"head": 5, "n_kv_heads": 2}
    with pytest.raises(ValueError, match="n_kv_heads must be one of 8, 4, 2, 1, got 3"):
        widget.n_kv_heads = 3
    with pytest.raises(ValueError, match=r"head must be one of .*got 8"):
        widget.head = 8
    assert widget.state() == {"head": 5, "n_kv_heads": 2}


def test_who_shares_in_words():
    assert who_shares([0, 1, 2]) == "none"
    assert who_shares([0, 0, 0]) == "all"
    assert who_shares([0, 0, 1, 1]) == "0 and 1, 2 and 3"
    assert who_shares([0, 0, 0, 1, 1, 1]) == "0 to 2, 3 to 5"
    assert who_shares([h // 2 for h in range(12)]) == "0 and 1, 2 and 3, ..., 10 and 11"


def test_without_scripts_the_table_says_all_of_it():
    text = HeadSharing(32, 128, n_kv_heads=8, n_layers=80).fallback()
    rows = [
        [re.sub("<.*?>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", row)]
        for row in re.findall("<tr>(.*?)</tr>", text, re.DOTALL)[1:]
    ]
    assert [row[:3] for row in rows[:3]] == [
        ["MHA", "32", "1"],
        ["GQA", "16", "2"],
        ["GQA", "8", "4"],
    ]
    for row in rows:
        cache = KVCache(1, int(row[1]), 1, 128, dtype=torch.bfloat16, device="meta")
        assert row[4:6] == [f"{cache.nbytes:,}", f"{80 * cache.nbytes:,}"]
    assert [row[6] for row in rows] == ["the same", "1/2", "1/4", "1/8", "1/16", "1/32"]
    assert rows[2][3] == "0 to 3, 4 to 7, ..., 28 to 31"
    assert "32 query heads of width 128, cached in bfloat16." in text
    assert "layers" not in HeadSharing(32, 128).fallback()


def test_equal_widgets_give_equal_pages_and_the_state_is_in_them():
    one, other = (HeadSharing(8, 4, n_kv_heads=2, label="x").html() for _ in range(2))
    assert one == other
    stored = json.loads(re.search(r'application/json">(.*?)</script>', one)[1])
    assert (stored["n_kv_heads"], stored["head"], stored["label"]) == (2, 0, "x")
    assert one != HeadSharing(8, 4, n_kv_heads=4, label="x").html()
