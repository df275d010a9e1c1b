"""The block walk in Python: against attnlib's blocks and merge, by hand, and its tables."""

from __future__ import annotations

import json
import math
import re
from itertools import product

import pytest
import torch

from attnlib import attention
from attnlib.blocks import attention_in_blocks, merge
from attnlib.book.widgets import BlockWalk
from attnlib.book.widgets.blocks import ORDERS, SIZES, in_words, show

T, S = 3, 8  # three queries: unlike the example, and unlike every other size
SCORES = [
    [-1.5, 2.0, 0.1, 2.0, -0.7, 3.3, 0.0, 1.1],
    [5.2, -3.0, 0.4, 0.6, 1.9, 0.2, 5.2, -0.1],
    [0.3, 0.2, 0.1, 0.0, -0.1, -0.2, -0.3, -0.4],
]
VALUES = [[1, -2], [0.5, 3], [-4, 0], [2.5, 1], [0, 7], [-1.5, 2], [3, 0.1], [9, -9]]
HALF = 0.5e-3 + 1e-9  # numbers are rounded to three decimals


def made(**options) -> BlockWalk:
    return BlockWalk(torch.tensor(SCORES), VALUES, **options)  # float32, and a list


def close(one, other, tolerance: float = HALF) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(one, other, strict=True))


def sees(query: int, key: int, *, causal: bool) -> bool:
    """Whether a query, one of the last T tokens, may attend to a key."""
    return not causal or key <= S - T + query


@pytest.fixture(scope="module", params=[False, True], ids=["all", "causal"])
def causal(request) -> bool:
    return request.param


@pytest.fixture(scope="module")
def data(causal) -> dict:
    return made(causal=causal).data


def walks(data: dict):
    """Every step: order, size, query, number of the block, the keys read, and the step."""
    for order, size, query in product(ORDERS, SIZES, range(T)):
        steps = data["walks"][order][str(size)][query]
        assert len(steps) == S // size
        for i, step in enumerate(steps):
            read = list(range(S))
            read = read[: size * (i + 1)] if order == "left" else read[S - size * (i + 1) :]
            yield order, size, query, i, read, step, steps[i - 1] if i else None


def test_each_step_is_attention_in_blocks_over_the_keys_read(data, causal):
    """Catches a sum that is not shrunk, and an output divided by another sum."""
    scores, values = (torch.tensor(x, dtype=torch.float64) for x in (SCORES, VALUES))
    eye = torch.eye(S, dtype=torch.float64)
    for _, size, query, _, read, step, _ in walks(data):
        mask = torch.tensor([[sees(query, key, causal=causal) for key in read]])
        inputs = (scores[None, None, query : query + 1], eye[None, None, read])
        out, lse = attention_in_blocks(
            *inputs, values[None, None, read], mask=mask, scale=1.0, block_size=size
        )
        plain, _ = attention(*inputs, values[None, None, read], mask=mask, scale=1.0)
        assert close(step["out"], out[0, 0, 0].tolist())
        assert close(step["softmax"], plain[0, 0, 0].tolist())
        total = step["after"][0]
        if step["m"] is None:
            assert lse.item() == -math.inf and step["after"] == [0, 0, 0]
        else:
            assert abs(math.exp(lse.item() - step["m"]) - total) <= HALF
            assert close([o / total for o in step["after"][1:]], step["out"], 5e-3)


def test_each_step_follows_from_the_one_before(data, causal):
    """Catches a factor turned upside down, and weights relative to the old maximum."""
    for order, size, query, i, read, step, before in walks(data):
        block = read[-size:] if order == "left" else read[:size]
        seen = [key for key in block if sees(query, key, causal=causal)]
        largest = max((SCORES[query][key] for key in seen), default=None)
        assert step["largest"] == largest
        old = before["m"] if before else None
        known = [m for m in (old, largest) if m is not None]
        assert step["m"] == max(known, default=None)
        m = step["m"] or 0.0
        weights = [
            math.exp(SCORES[query][key] - m) if sees(query, key, causal=causal) else 0.0
            for key in block
        ]
        assert close(step["weights"], weights, 5.1e-3)
        added = [sum(weights)]
        added += [
            sum(w * VALUES[key][d] for w, key in zip(weights, block, strict=True))
            for d in (0, 1)
        ]
        assert close(step["added"], added)
        shrink = 0.0 if old is None else math.exp(old - m)
        assert abs(step["shrink"] - shrink) <= HALF
        then = before["after"] if before else [0.0] * 3
        after = [x * shrink + y for x, y in zip(then, added, strict=True)]
        assert close(step["after"], after, 2 * HALF), (order, size, query, i)


def test_every_order_and_size_ends_at_the_same_output(data):
    ends = [{} for _ in range(T)]
    for order, size, query in product(ORDERS, SIZES, range(T)):
        end = data["walks"][order][str(size)][query][-1]
        ends[query][order, size] = (end["m"], *end["after"], *end["out"])
    assert all(len(set(found.values())) == 1 for found in ends)


def test_parts_are_merged_by_their_log_sum_exps(data, causal):
    """Catches shares of another base than the whole, and a mean that counts empty parts."""
    for size, query in product(SIZES, range(T)):
        found = data["parts"][str(size)][query]
        outs, sums = [], []
        for start in range(0, S, size):
            seen = [k for k in range(start, start + size) if sees(query, k, causal=causal)]
            weights = [math.exp(SCORES[query][k]) for k in seen]
            sums.append(sum(weights))
            pairs = list(zip(weights, seen, strict=True))
            out = [sum(w * VALUES[k][d] for w, k in pairs) for d in (0, 1)]
            outs.append([x / sum(weights) for x in out] if seen else None)
        for part, out, total in zip(found["parts"], outs, sums, strict=True):
            assert (part["lse"] is None) == (out is None)
            assert close(part["out"], out or [0, 0])
            assert abs(part["share"] - total / sum(sums)) <= HALF
            if out:
                assert abs(part["lse"] - math.log(total)) <= HALF
        assert abs(found["lse"] - math.log(sum(sums))) <= HALF
        some = [out for out in outs if out]
        assert close(found["mean"], [sum(x) / len(some) for x in zip(*some, strict=True)])
        lses = [torch.tensor([[[math.log(total)]]]) for total in sums if total]
        merged, _ = merge([torch.tensor([[[out]]]) for out in some], lses)
        assert close(found["merged"], merged.flatten().tolist(), 2 * HALF)
        assert found["merged"] == found["softmax"]


def test_the_causal_mask_is_that_of_the_last_tokens():
    rows = made(causal=True).data["scores"]
    assert [[int(x is not None) for x in row] for row in rows] == [
        [1, 1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 1, 1, 1],
    ]
    assert rows[0][:6] == SCORES[0][:6]
    assert not any(None in row for row in made().data["scores"])


def test_the_example_shows_what_its_chapter_says():
    """A maximum that grows, one that comes first, one that comes late, and equal scores."""
    walk = BlockWalk().data["walks"]["left"]["2"]
    second = walk[0][1]
    assert (walk[0][0]["m"], second["m"], second["shrink"]) == (0.7, 2.1, 0.247)
    assert [step["shrink"] for step in walk[1][1:]] == [1.0] * 3
    assert walk[2][-1]["shrink"] < 0.05
    parts = BlockWalk().data["parts"]["2"]
    assert [found["mean"] == found["merged"] for found in parts] == [False, False, False, True]


ROW = [0.0] * S


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"scores": [ROW]}, r"scores must have 2 to 4 rows and 8 columns, got shape \(1, 8\)"),
        ({"scores": [ROW] * 5}, r"scores must have 2 to 4 rows .*got shape \(5, 8\)"),
        ({"scores": [[0.0] * 7] * 3}, r"scores must have .*8 columns, got shape \(3, 7\)"),
        ({"scores": ROW}, r"scores must have .*got shape \(8,\)"),
        ({"scores": [ROW, ROW[1:]]}, "scores must be rows of equally many numbers"),
        ({"scores": [ROW, "a" * S]}, "scores must be rows of equally many numbers"),
        ({"scores": [ROW, [0.25] * S]}, "scores must have at most one decimal .*got 0.25"),
        ({"scores": [ROW, [100.0] * S]}, "at most 99 in magnitude, got 100.0"),
        ({"scores": [ROW, [-math.inf] * S]}, "at most 99 in magnitude, got -inf"),
        (
            {"values": [[1, 2]] * 7},
            r"values must have 8 rows and 2 columns.*got shape \(7, 2\)",
        ),
        ({"values": [[1, 2, 3]] * 8}, r"values must have 8 rows .*got shape \(8, 3\)"),
        ({"values": [[1, math.nan]] * 8}, "values must have at most one decimal .*got nan"),
        ({"block_size": 3}, "block_size must be one of 1, 2, 4, 8, got 3"),
        ({"query": 4}, "query must be one of 0, 1, 2, 3, got 4"),
        ({"read": 0}, "read must be one of 1, 2, .*got 0"),
        ({"read": 9}, "read must be one of 1, 2, .*got 9"),
        ({"order": "top"}, "order must be one of 'left', 'right', got 'top'"),
        ({"view": "all"}, "view must be one of 'walk', 'parts', got 'all'"),
    ],
)
def test_bad_arguments_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        BlockWalk(**options)


def test_a_kernel_cannot_set_what_the_page_cannot_show():
    widget = made(block_size=4, query=2, order="right")
    state = {"block_size": 4, "query": 2, "read": 4, "order": "right", "view": "walk"}
    assert widget.state() == state
    for name, value in (("block_size", 5), ("query", T), ("read", 9), ("view", "")):
        with pytest.raises(ValueError, match=rf"^{name} must be one of .*got {value!r}$"):
            setattr(widget, name, value)
    assert widget.state() == state
    widget.block_size, widget.read = 8, 1  # any number of keys goes with any size
    assert widget.read == 1


def cells(text: str) -> list[list[list[str]]]:
    """Return the cells of each table, without its head."""
    return [
        [
            [re.sub("<.*?>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", row)]
            for row in re.findall("<tr>(.*?)</tr>", one, re.DOTALL)[1:]
        ]
        for one in re.findall("<table>(.*?)</table>", text, re.DOTALL)
    ]


def test_without_scripts_the_tables_say_the_walk_and_the_parts():
    scores, walk, parts = cells(BlockWalk(block_size=4).fallback())
    assert [row[0] for row in scores[:4]] == [f"query {i}" for i in range(4)]
    assert scores[0][1:] == ["0.5", "0.7", "2.1", "0.3", "1.2", "−0.4", "3.0", "0.8"]
    assert scores[-1][1:] == ["0.0", "2.0", "1.0", "1.0", "−1.0", "3.0", "0.0", "−2.0"]
    assert walk == [
        "block 1: keys 0 to 3|2.1|–|1.614|2.037|1.658|1.262|1.028".split("|"),
        "block 2: keys 4 to 7|3.0|0.407|1.966|−0.565|0.388|−0.288|0.197".split("|"),
        "softmax over all keys at once||||||−0.288|0.197".split("|"),
    ]
    assert parts == [
        "keys 0 to 3|2.579|1.262|1.028|0.334".split("|"),
        "keys 4 to 7|3.270|−1.064|−0.219|0.666".split("|"),
        "merged by the shares||−0.288|0.197|1.000".split("|"),
        "plain mean of the parts||0.099|0.404|".split("|"),
    ]


def test_the_tables_follow_the_state():
    widget = made(block_size=2, query=1, order="right", causal=True)
    _, walk, parts = cells(widget.fallback())
    assert [row[0] for row in walk[:2]] == ["block 1: keys 6 and 7", "block 2: keys 4 and 5"]
    assert walk[0][1] == "5.2" and parts[0][0] == "keys 0 and 1"
    assert "Query 1, 4 blocks of 2, from the right." in widget.fallback()
    widget = BlockWalk(block_size=2, order="right", causal=True)  # keys 6 and 7 are hidden
    _, walk, parts = cells(widget.fallback())
    assert walk[0][1:] == ["−∞", "–", *["0.000"] * 5]
    assert parts[3][1:] == ["−∞", "–", "–", "0.000"]


def test_numbers_and_keys_in_words():
    assert [show(-0.25, 2), show(None), show(-3.0, 1)] == ["−0.25", "−∞", "−3.0"]
    assert in_words([4]) == "key 4"
    assert in_words([4, 5]) == "keys 4 and 5"
    assert in_words([4, 5, 6, 7]) == "keys 4 to 7"


def test_the_page_is_small_and_the_same_each_time():
    one, other = (BlockWalk(label="x").html() for _ in range(2))
    assert one == other
    stored = json.loads(re.search(r'application/json">(.*?)</script>', one)[1])
    assert (stored["block_size"], stored["query"], stored["read"]) == (2, 0, 2)
    assert len(json.dumps(stored)) < 60_000
    assert "-0.0," not in json.dumps(stored)
