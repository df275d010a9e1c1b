"""The window explorer in Python: masks, rings and reach from their definitions, the table."""

from __future__ import annotations

import json
import re
from itertools import product

import pytest

from attnlib.book.widgets import WindowExplorer
from attnlib.book.widgets.window import DIGITS, FIRST, MOST, PATTERNS, in_words, mask, reach

T = 13  # unlike every default


def sees(query: int, key: int, window: int, rule: str, first: int) -> bool:
    """Whether a query sees a key, by the definition."""
    if rule == "chunks":
        return key <= query and key // window == query // window
    return key <= query and (query - key < window or key < first)


def holds(window: int, first: int, seen: int) -> list[int | None]:
    """What the rows hold after so many tokens: each goes to a free row, or to the oldest."""
    rows: list[int | None] = [None] * (first + window)
    for token in range(seen):
        ring = rows[first:]
        free = token if token < first else None
        if free is None:
            old = [-1 if at is None else at for at in ring]
            free = first + old.index(min(old))
        rows[free] = token
    return rows


@pytest.fixture(scope="module")
def data() -> dict:
    return WindowExplorer(T).data


def test_masks_are_those_of_the_definition(data):
    """Catches W without the query's own token, and a chunk cut one token late."""
    for rule, window in product(("sliding", "chunks"), range(1, T + 1)):
        for first, texts in enumerate(data["masks"][rule]):
            expected = [
                "01"[sees(t, at, window, rule, first)] for t in range(T) for at in range(T)
            ]
            assert texts[window - 1] == "".join(expected)
    assert [len(data["masks"][rule]) for rule in ("sliding", "chunks")] == [len(FIRST), 1]


def test_rings_are_those_of_tokens_that_come_one_by_one(data):
    """Catches a ring that counts the first tokens as its own, and rows in another order."""
    for first, window in product(FIRST, range(1, T + 1)):
        words = data["rings"][first][window - 1].split(" ")
        assert len(words) == T
        for seen, word in enumerate(words, start=1):
            rows = holds(window, first, seen)
            filled = [at for at in rows if at is not None]
            assert [DIGITS.index(digit) for digit in word] == filled
            assert rows[: len(filled)] == filled  # empty rows are the last ones


def test_a_ring_holds_what_its_newest_token_sees(data):
    for first, window in product(FIRST, range(1, T + 1)):
        for token, word in enumerate(data["rings"][first][window - 1].split(" ")):
            text = data["masks"]["sliding"][first][window - 1]
            seen = {at for at in range(T) if text[token * T + at] == "1"}
            assert seen == {DIGITS.index(digit) for digit in word}


def test_reach_grows_by_the_window_less_one_in_each_layer():
    for n_layers, window in product(range(1, 5), range(1, T + 1)):
        levels = reach("S" * n_layers, mask(T, window, "sliding", 0), T - 1)
        expected = [min(T, n * (window - 1) + 1) for n in range(n_layers + 1)]
        assert [len(level) for level in levels] == expected
    assert [len(level) for level in reach("SSS", mask(16, 4, "sliding", 0), 15)] == [
        1,
        4,
        7,
        10,
    ]


def test_reach_is_the_closure_of_what_each_layer_sees():
    """Catches layers in the wrong order, and keys that are followed forwards."""
    for pattern, rule, first in product(PATTERNS, ("sliding", "chunks"), FIRST):
        first = 0 if rule == "chunks" else first
        for window, query in product((1, 3, 5), range(T)):
            expected = [{query}]
            for kind in reversed(pattern):
                width = T if kind == "F" else window
                how = "sliding" if kind == "F" else rule
                expected.append(
                    {
                        at
                        for t in expected[-1]
                        for at in range(T)
                        if sees(t, at, width, how, first)
                    }
                )
            levels = reach(pattern, mask(T, window, rule, first), query)
            assert levels == [sorted(level) for level in expected]


def test_one_full_layer_reaches_everything_and_chunks_nothing_beyond_theirs():
    for pattern in ("SSSF", "FSSS", "SF", "F"):
        assert reach(pattern, mask(T, 2, "sliding", 0), 9)[-1] == list(range(10))
    assert reach("SSSS", mask(T, 4, "chunks", 0), 10)[-1] == [8, 9, 10]
    assert reach("SS", mask(T, 2, "sliding", 2), 10)[-1] == [0, 1, 8, 9, 10]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tokens": 3}, "tokens must be an integer of at least 4, got 3"),
        ({"tokens": 21}, "tokens must be at most 20 to be drawn, got 21"),
        ({"tokens": 16.0}, "tokens must be an integer of at least 4, got 16.0"),
        ({"window": 0}, "window must be an integer of at least 1, got 0"),
        ({"window": 17}, "window must be one of 1, 2, .*got 17"),
        ({"rule": "strided"}, "rule must be one of 'sliding', 'chunks', got 'strided'"),
        ({"first": 3}, "first must be one of 0, 1, 2, got 3"),
        ({"first": -1}, "first must be an integer of at least 0, got -1"),
        ({"first": 1, "rule": "chunks"}, "first must be 0 with chunks, got 1"),
        ({"pattern": "FS"}, "pattern must be one of 'S', 'SS', .*got 'FS'"),
        ({"query": 16}, "query must be one of 0, 1, .*got 16"),
        ({"query": True}, "query must be an integer of at least 0, got True"),
    ],
)
def test_bad_arguments_are_named(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        WindowExplorer(**options)


def test_a_kernel_cannot_set_what_the_page_cannot_show():
    widget = WindowExplorer(T, 5, first=1, pattern="SF")
    state = {"first": 1, "pattern": "SF", "query": T - 1, "rule": "sliding", "window": 5}
    assert widget.state() == state
    for name, value in (("window", T + 1), ("query", T), ("pattern", ""), ("rule", "")):
        with pytest.raises(ValueError, match=rf"^{name} must be one of .*got {value!r}$"):
            setattr(widget, name, value)
    assert widget.state() == state


def cells(text: str) -> list[list[list[str]]]:
    """Return the cells of each table, without its head."""
    return [
        [
            [re.sub("<.*?>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", row)]
            for row in re.findall("<tr>(.*?)</tr>", one, re.DOTALL)[1:]
        ]
        for one in re.findall("<table>(.*?)</table>", text, re.DOTALL)
    ]


def test_without_scripts_the_tables_say_reach_and_rows():
    widget = WindowExplorer(first=1, pattern="SS", window=3, query=9)
    far, rows = cells(widget.fallback())
    assert far == [
        ["the output", "1", "9"],
        ["the input of layer 1", "4", "0 and 7 to 9"],
        ["the input of layer 0", "6", "0 and 5 to 9"],
    ]
    assert rows == [
        ["row 0", "token 0"],
        ["row 1", "token 7"],
        ["row 2", "token 8"],
        ["row 3", "token 9"],
    ]
    for words in (
        "token 9 reaches",
        "the last W tokens and the first token, W = 3",
        "4 of 10 tok",
    ):
        assert words in widget.fallback()


def test_empty_rows_and_chunks_stand_in_the_tables():
    widget = WindowExplorer(window=4, query=1)
    widget.first, widget.rule = 2, "chunks"  # a reader may do so; chunks have no first tokens
    far, rows = cells(widget.fallback())
    assert [row[1:] for row in far] == [["1", "1"], *[["2", "0 and 1"]] * 3]
    assert [row[1] for row in rows] == ["token 0", "token 1", "empty", "empty"]
    assert "its chunk of W tokens, W = 4" in widget.fallback()


def test_tokens_in_words():
    assert in_words([4]) == "4"
    assert in_words([4, 5]) == "4 and 5"
    assert in_words([4, 5, 6]) == "4 to 6"
    assert in_words([0, 1, 4, 5, 6]) == "0, 1 and 4 to 6"


def test_the_page_is_small_and_the_same_each_time():
    one, other = (WindowExplorer(label="x").html() for _ in range(2))
    assert one == other
    stored = json.loads(re.search(r'application/json">(.*?)</script>', one)[1])
    assert (stored["window"], stored["query"], stored["pattern"]) == (4, 15, "SSS")
    assert len(json.dumps(WindowExplorer(MOST).data)) < 60_000
