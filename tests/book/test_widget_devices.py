"""The split of a layer in Python: who holds what, what is sent, the tables."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import product

import pytest

from attnlib.book.widgets import DeviceSplit
from attnlib.book.widgets.devices import (
    ENGINES,
    HEADS,
    LINKS,
    POSITIONS,
    RANKS,
    SEQUENCES,
    SPLITS,
    VARIANTS,
    Shared,
    layer,
    sending,
    shared,
    situation,
)
from attnlib.layers import cache_size
from attnlib.models import MODELS

IN_COSTS = {"heads": "heads", "sequences": "sequences", "context": "positions"}
CASES = list(product(VARIANTS, RANKS, SPLITS))
EVERY_CASE = pytest.mark.parametrize(("variant", "ranks", "split"), CASES)


def size(variant: str, ranks: int, split: str):
    """What the cost model says of a case."""
    options = {"batch_size": SEQUENCES, "devices": ranks, "split": IN_COSTS[split]}
    return cache_size([layer(variant)], POSITIONS, **options)


def entries(case: Shared) -> list[set[tuple[int, int, int]]]:
    """The entries of each rank: KV head, sequence, position."""
    return [set(product(rank.heads, rank.sequences, rank.positions)) for rank in case.ranks]


@EVERY_CASE
def test_bytes_and_copies_are_those_of_the_cost_model(variant, ranks, split):
    """Catches a copy that is not counted, and a latent that is divided by heads."""
    case, found = shared(variant, ranks, split), size(variant, ranks, split)
    assert case.once == found.once
    assert max(rank.bytes for rank in case.ranks) == found.per_device
    idle = sum(not rank.bytes for rank in case.ranks)
    assert idle == (4 if (ranks, split) == (8, "sequences") else 0)
    total = sum(rank.bytes for rank in case.ranks)
    assert total == found.total - idle * found.per_device
    assert case.copies * case.once == total


@EVERY_CASE
def test_each_entry_is_stored_as_often_as_its_copies_say(variant, ranks, split):
    held = entries(shared(variant, ranks, split))
    counted = Counter(entry for one in held for entry in one)
    _, kv_heads = VARIANTS[variant]
    assert set(counted) == set(product(range(kv_heads), range(SEQUENCES), range(POSITIONS)))
    assert set(counted.values()) == {shared(variant, ranks, split).copies}


@EVERY_CASE
def test_every_query_meets_every_key_of_its_sequence(variant, ranks, split):
    """Catches a rank whose query heads read a KV head that lies elsewhere."""
    case = shared(variant, ranks, split)
    _, kv_heads = VARIANTS[variant]
    met = Counter(
        (query, sequence, position)
        for rank in case.ranks
        for query, sequence, position in product(rank.queries, rank.sequences, rank.positions)
        if query // (HEADS // kv_heads) in rank.heads
    )
    assert set(met) == set(product(range(HEADS), range(SEQUENCES), range(POSITIONS)))
    assert set(met.values()) == {1}  # nothing is computed twice


@EVERY_CASE
def test_a_copy_names_the_lowest_rank_that_holds_the_same(variant, ranks, split):
    case = shared(variant, ranks, split)
    held = entries(case)
    for at, rank in enumerate(case.ranks):
        same = [other for other in range(ranks) if held[other] == held[at] and held[at]]
        assert rank.first == (same[0] if same else at)


def test_copies_by_heads_are_those_of_the_chapter():
    """Literal numbers: 8 ranks share 8, 4, 2 and 1 KV heads, and a latent."""
    copies = [shared(variant, 8, "heads").copies for variant in VARIANTS]
    assert copies == [1, 2, 4, 8, 8]
    for variant, split in product(VARIANTS, ("sequences", "context")):
        assert shared(variant, 8, split).copies == 1


def test_positions_are_dealt_out_in_turn():
    case = shared("heads-1", 4, "context")
    positions = [rank.positions for rank in case.ranks]
    assert positions == [(0, 4), (1, 5), (2, 6), (3, 7)]
    assert {rank.queries for rank in case.ranks} == {tuple(range(HEADS))}


def ring_all_reduce(parts: list[list[float]]) -> tuple[list[list[float]], int]:
    """Add up lists in a ring, chunk by chunk; return the sums and the numbers each sent."""
    N, n_sent = len(parts), 0
    size = len(parts[0]) // N
    held = [[part[c * size : (c + 1) * size] for c in range(N)] for part in parts]
    for is_gathering, step in product((False, True), range(N - 1)):
        sent = [(r + is_gathering - step) % N for r in range(N)]
        messages = [list(held[r][sent[r]]) for r in range(N)]
        n_sent += size
        for r in range(N):
            to, chunk = (r + 1) % N, sent[r]
            old = held[to][chunk]
            new = messages[r]
            held[to][chunk] = (
                new if is_gathering else [a + b for a, b in zip(old, new, strict=True)]
            )
    return [[x for chunk in one for x in chunk] for one in held], n_sent


@pytest.mark.parametrize("ranks", RANKS)
def test_what_is_sent_is_what_a_ring_sends(ranks):
    """Catches a formula that forgets the second half of an all-reduce."""
    parts = [[float(128 * r + i) for i in range(128)] for r in range(ranks)]
    sums, n_sent = ring_all_reduce(parts)
    assert sums == [[sum(column) for column in zip(*parts, strict=True)]] * ranks
    assert {shared(v, ranks, "heads").sent for v in VARIANTS} == {n_sent}
    gathered = sum(8 * (16 + 1) for _ in range(ranks - 1))  # each step passes one part on
    assert {shared(v, ranks, "context").sent for v in VARIANTS} == {gathered}
    assert {shared(v, ranks, "sequences").sent for v in VARIANTS} == {0}


def test_the_latent_is_as_wide_beside_a_head_as_in_deepseek():
    [kind] = MODELS["DeepSeek-V3 / R1"].layers
    [latent, rotary], [head] = layer("latent").parts, layer("heads-1").parts
    assert latent.width / head.width == 2 and rotary.width / head.width == 0.25
    assert kind.kv_lora_rank == 4 * 128 and kind.qk_rope_head_dim == 128 // 2


@EVERY_CASE
def test_words_fit_their_case(variant, ranks, split):
    """Catches a sentence about copies where there are none, and a source without its link."""
    key = situation(variant, ranks, split)
    words, sources = ENGINES[key]
    case = shared(variant, ranks, split)
    assert bool(words) == bool(sources) == (ranks > 1)
    assert set(sources) <= set(LINKS)
    assert ("copied" in key) == (case.copies > 1 and variant != "latent")
    assert ("MLA" in key) == (variant == "latent" and ranks > 1)
    assert key == "one rank" or {"context": "positions"}.get(split, split) in key
    text = sending(variant, ranks, split)
    assert (f"= {case.sent} numbers" in text) == (case.sent > 0)


def test_every_engine_sentence_and_link_is_used():
    used = {situation(*case) for case in CASES}
    assert used == set(ENGINES)
    assert {name for _, names in ENGINES.values() for name in names} == set(LINKS)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"variant": "GQA"}, "variant must be one of 'heads-8', 'heads-4', .*got 'GQA'"),
        ({"ranks": 3}, "ranks must be one of 1, 2, 4, 8, got 3"),
        ({"ranks": 2.0}, "ranks must be an integer of at least 1, got 2.0"),
        ({"split": "positions"}, "split must be one of 'heads', .*got 'positions'"),
        ({"rank": 8}, "rank must be one of 0, 1, .*got 8"),
        ({"ranks": 2, "rank": 2}, "rank must be one of 0, 1, got 2"),
        ({"rank": -1}, "rank must be an integer of at least 0, got -1"),
    ],
)
def test_bad_arguments_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        DeviceSplit(**options)


def test_a_kernel_cannot_set_what_the_page_cannot_show():
    widget = DeviceSplit("latent", 4, split="context", rank=3)
    state = {"rank": 3, "ranks": 4, "split": "context", "variant": "latent"}
    assert widget.state() == state
    for name, value in (("variant", ""), ("ranks", 5), ("split", ""), ("rank", 4)):
        with pytest.raises(ValueError, match=rf"^{name} must be one of .*got {value!r}$"):
            setattr(widget, name, value)
    assert widget.state() == state
    widget.ranks = 2
    assert widget.rank == 1  # the last one that there is


def cells(text: str) -> list[list[list[str]]]:
    """Return the cells of each table, without its head."""
    return [
        [
            [re.sub("<.*?>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", row)]
            for row in re.findall("<tr>(.*?)</tr>", one, re.DOTALL)[1:]
        ]
        for one in re.findall("<table>(.*?)</table>", text, re.DOTALL)
    ]


def test_without_scripts_the_tables_say_copies_and_shares():
    held, sent = cells(DeviceSplit().fallback())
    assert [row[0] for row in held] == [label for label, _ in VARIANTS.values()]
    assert held[0][1:] == [f"stored once, 1/{n} of the cache each" for n in (2, 4, 8)]
    assert held[2][1:] == [
        "stored once, 1/2 of the cache each",
        "2 copies, 1/2 of the cache each",
        "4 copies, 1/2 of the cache each",
    ]
    assert held[4][1:] == [f"{n} copies, the whole cache each" for n in (2, 4, 8)]
    numbers = [[128, 192, 224], [0, 0, 0], [136, 408, 952]]
    assert [row[1:] for row in sent] == [[f"{n} numbers" for n in row] for row in numbers]


def test_the_page_is_small_and_the_same_each_time():
    one, other = (DeviceSplit(label="x").html() for _ in range(2))
    assert one == other
    stored = json.loads(re.search(r'application/json">(.*?)</script>', one)[1])
    assert (stored["variant"], stored["ranks"], stored["split"]) == ("heads-2", 8, "heads")
    assert stored["data"] == DeviceSplit().data  # its keys are texts already
    assert len(json.dumps(stored)) < 60_000
