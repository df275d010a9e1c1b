"""The attention heatmap in Python: what it takes, what it refuses, what it answers."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from attnlib import attention, causal_mask
from attnlib.book.widgets import AttentionHeatmap
from attnlib.book.widgets.heatmap import MAX_EXACT, MAX_TOKENS, MAX_WEIGHTS, unpack_rows

LAYERS, H, T, S = 2, 3, 4, 5
TOKENS, KEYS = list("abcd"), list("vwxyz")
STEP = 0.5 / 65535  # what packing rounds off
AT = torch.arange(T)
CAUSAL = causal_mask(AT, AT)


def softmax(*shape: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    scores = torch.randn(
        *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64
    )
    return (
        scores.masked_fill(~mask, -torch.inf).softmax(-1)
        if mask is not None
        else scores.softmax(-1)
    )


def says(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def shown(widget: AttentionHeatmap) -> torch.Tensor:
    return unpack_rows(widget.shown)


def close(widget: AttentionHeatmap, weights, atol: float = STEP) -> bool:
    weights = torch.as_tensor(weights, dtype=torch.float64)
    return torch.allclose(
        shown(widget), weights.expand(widget.shown["shape"]), rtol=0, atol=atol
    )


# What it takes


def test_weights_are_those_of_attention():
    q, k = torch.randn(1, H, T, 6), torch.randn(1, H, S, 6)
    weights = attention(q, k, k)[1][0]
    widget = AttentionHeatmap(weights, TOKENS, key_tokens=KEYS)
    assert widget.data["shape"] == [1, H, T, S]
    assert close(widget, weights)
    assert (widget.data["queries"], widget.data["keys"]) == (TOKENS, KEYS)


@pytest.mark.parametrize("shape", [(T, S), (H, T, S), (LAYERS, H, T, S)])
def test_layers_heads_queries_and_keys_keep_their_order(shape):
    weights = softmax(*shape)
    assert close(AttentionHeatmap(weights, TOKENS, key_tokens=KEYS), weights)


@pytest.mark.parametrize(
    ("convert", "atol"),
    [
        (torch.Tensor.float, STEP),
        (torch.Tensor.bfloat16, 2**-9),
        (torch.Tensor.half, 2**-11),
        (torch.Tensor.numpy, STEP),
        (torch.Tensor.tolist, STEP),
        (lambda weights: weights.requires_grad_(), STEP),
        (lambda weights: weights.mT.contiguous().mT, STEP),
    ],
    ids=["float32", "bfloat16", "float16", "numpy", "list", "grad", "strides"],
)
def test_any_float_tensor_array_or_list(convert, atol):
    weights = softmax(T, T, mask=CAUSAL)
    widget = AttentionHeatmap(convert(weights.clone()), TOKENS, mask=CAUSAL)
    assert close(widget, weights, atol)


def test_long_row_of_bfloat16_is_taken():
    # Its sum is off by more than a float32's; a check at 1e-3 would refuse a real model's.
    weights = softmax(MAX_TOKENS, MAX_TOKENS).bfloat16()
    AttentionHeatmap(weights, range(MAX_TOKENS))


def test_query_that_sees_nobody_is_a_row_of_zeros():
    weights = softmax(T, T, mask=CAUSAL)
    weights[1] = 0
    widget = AttentionHeatmap(weights, TOKENS, mask=CAUSAL)
    assert close(widget, weights)
    assert "<td>0.000</td>" in widget.fallback()


def test_cursor_begins_at_the_last_query():
    assert AttentionHeatmap(softmax(T, S), TOKENS, key_tokens=KEYS).state() == {
        "example": 0, "layer": 0, "head": 0, "query": T - 1, "key": None
    }  # fmt: skip
    widget = AttentionHeatmap(
        softmax(LAYERS, H, T, S), TOKENS, key_tokens=KEYS, layer=1, head=2, query=0
    )
    assert widget.state() == {"example": 0, "layer": 1, "head": 2, "query": 0, "key": None}


@pytest.mark.parametrize(
    "convert", [torch.Tensor.clone, torch.Tensor.numpy, torch.Tensor.tolist]
)
def test_hidden_cells_are_the_masks(convert):
    mask = causal_mask(AT, AT, window=2)
    widget = AttentionHeatmap(softmax(T, T, mask=mask), TOKENS, mask=convert(mask))
    assert widget.data["hidden"] == "0111001110011100"


def test_page_has_as_many_tokens_and_numbers_as_it_can_show():
    heads = MAX_WEIGHTS // MAX_TOKENS**2
    weights = torch.eye(MAX_TOKENS).expand(heads, MAX_TOKENS, MAX_TOKENS)
    widget = AttentionHeatmap(weights, range(MAX_TOKENS))
    assert len(widget.html()) < 2**21


def test_word_causal_is_the_causal_mask():
    weights = softmax(T, T, mask=CAUSAL)
    one, other = (AttentionHeatmap(weights, TOKENS, mask=mask) for mask in ("causal", CAUSAL))
    assert one.html() == other.html()


# Many weights


def many(*shape: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return weights of which some are near 1 and most near 0, as a real model's are."""
    scores = 4 * torch.randn(*shape, generator=torch.Generator().manual_seed(4))
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1)


WINDOW = causal_mask(torch.arange(70), torch.arange(70), window=20)


@pytest.mark.parametrize(
    "mask", [None, causal_mask(torch.arange(70), torch.arange(70)), WINDOW]
)
def test_many_weights_take_one_byte_each_and_rows_keep_their_sums(mask):
    weights = many(2, 12, 70, 70, mask=mask)
    weights[1, 5, 30] = 0  # a query that sees no key
    widget = AttentionHeatmap(weights, range(70), mask=mask)
    per_head = 70 * 70 if mask is None else int(mask.sum())
    numbers = widget.data["weights"].removeprefix("u8:")
    assert len(numbers) == 2 * 12 * per_head * 4 // 3  # base64
    assert close(widget, weights, 1 / 255)
    sums = torch.ones(2, 12, 70, dtype=torch.float64)
    sums[1, 5, 30] = 0
    torch.testing.assert_close(shown(widget).sum(-1), sums)


def test_few_weights_are_exact():
    heads = MAX_EXACT // 10_000
    weights = many(heads, 100, 100)
    assert close(AttentionHeatmap(weights, range(100)), weights)
    assert not close(
        AttentionHeatmap(many(heads + 1, 100, 100), range(100)), many(heads + 1, 100, 100)
    )


def test_only_what_a_causal_mask_shows_counts():
    # 30 layers of 9 heads over 76 tokens: 1.6 million weights, of which half are shown.
    mask = causal_mask(torch.arange(76), torch.arange(76))
    weights = torch.eye(76).expand(30, 9, 76, 76)
    widget = AttentionHeatmap(weights, range(76), mask=mask)
    assert len(widget.html()) < 2**21
    with says("800,000 numbers in all"):
        AttentionHeatmap(weights, range(76))


# Several texts


def example(words: str, layers: int = 2, heads: int = 3) -> tuple[torch.Tensor, list[str]]:
    tokens = words.split()
    at = torch.arange(len(tokens))
    return softmax(layers, heads, len(at), len(at), mask=causal_mask(at, at)), tokens


def several(**options) -> AttentionHeatmap:
    examples = {"long": example("one two three four five"), "short": example("six seven")}
    return AttentionHeatmap(examples=examples, **{"mask": "causal", **options})


def test_each_text_has_its_own_weights_tokens_and_mask():
    widget = several(layer=1, head=2)
    for i, (name, words) in enumerate(
        [("long", "one two three four five"), ("short", "six seven")]
    ):
        widget.example = i
        assert widget.shown["name"] == name
        assert widget.shown["queries"] == words.split()
        assert close(widget, example(words)[0])
    assert widget.shown["hidden"] == "0100"
    assert several(mask=None).shown["hidden"] == ""


def test_another_text_keeps_layer_and_head_and_moves_the_cursor_into_it():
    widget = several(layer=1, head=2)
    assert widget.query == 4
    widget.key = 3
    widget.example = 1
    assert widget.state() == {"example": 1, "layer": 1, "head": 2, "query": 1, "key": 1}
    widget.example = 0
    assert widget.state() == {"example": 0, "layer": 1, "head": 2, "query": 1, "key": 1}


def test_page_may_send_a_text_together_with_its_cursor():
    widget = several(example=1)
    assert widget.query == 1
    widget.set_state({"example": 0, "query": 4})
    assert widget.state()["query"] == 4


def test_cursor_is_checked_against_the_text_shown():
    with says("query must be one of 0, 1, got 2"):
        several(example=1, query=2)
    with says("example must be one of 0, 1, got 2"):
        several(example=2)


def test_table_is_that_of_the_first_text():
    table = several(head=1).fallback()
    assert "Long, layer 0, head 1." in table
    assert re.findall('scope="row">([^<]*)<', table) == "one two three four five".split()


def test_real_model_fits_on_a_page():
    at = torch.arange(24)
    weights = many(30, 9, 24, 24, mask=causal_mask(at, at))
    widget = AttentionHeatmap(
        examples={name: (weights, range(24)) for name in "abc"}, mask="causal"
    )
    assert len(widget.html()) < 400_000
    assert close(widget, weights, 1 / 255)


@pytest.mark.parametrize(
    ("examples", "complaint"),
    [
        ({}, "examples must have at least one text"),
        ({"a": example("x y"), "b": example("x", layers=1)}, "the same layers and heads"),
        ({"a": example("x y"), "b": example("x", heads=1)}, "the same layers and heads"),
        ({"a": example("x y"), "b": (example("x y")[0], "xyz")}, "examples['b']: tokens must"),
        ({"a": (torch.ones(2, 2) / 2, "xy")}, "examples['a']: mask must hide no key"),
        (
            {name: (torch.eye(128).expand(40, 128, 128), range(128)) for name in "abc"},
            "examples must have at most 800,000 weights in all that the mask does not hide, got"
            " 990,720",
        ),
    ],
    ids=["none", "layers", "heads", "tokens", "leak", "many"],
)
def test_bad_examples(examples, complaint):
    with says(complaint):
        AttentionHeatmap(examples=examples, mask="causal")


def test_examples_take_no_mask_of_one_length():
    with says('mask must be "causal" or None with examples'):
        several(mask=causal_mask(torch.arange(5), torch.arange(5)))


# What it refuses


def changed(value: float, at: tuple[int, ...] = (1, 2)) -> torch.Tensor:
    weights = softmax(T, T)
    weights[at] = value
    return weights


@pytest.mark.parametrize(
    ("weights", "complaint"),
    [
        (changed(torch.nan), "weights must be finite, got NaN"),
        (changed(torch.inf), "weights must be finite, got NaN or infinity"),
        (changed(-0.25), "weights must be in 0 to 1, got -0.25 to"),
        (changed(1.5), "weights must be in 0 to 1, got"),
        (softmax(T, T) * 100, "weights must be in 0 to 1, got"),
        (softmax(T, T) * 0.9, "the row of query 0, head 0, layer 0 sums to 0.900"),
        (softmax(T, T) ** 2, "weights must sum to 1 over the keys"),
        (softmax(T, T).mT, "weights must sum to 1 over the keys"),
        (softmax(T), "got (4,)"),
        (softmax(1, LAYERS, H, T, T), "got (1, 2, 3, 4, 4)"),
        (torch.zeros(0, T), "got (0, 4)"),
        (torch.zeros(1).expand(10_000, 10_000), "got (1, 1, 10000, 10000)"),
        (torch.zeros(1).expand(T, 129), "at most 128 queries and keys"),
        (torch.zeros(1).expand(50, 128, 128), "800,000 numbers in all"),
    ],
)
def test_bad_weights(weights, complaint):
    with says(complaint):
        AttentionHeatmap(weights, "abcd")


def test_wrong_row_is_named_by_query_head_and_layer():
    weights = softmax(LAYERS, H, T, T)
    weights[1, 2, 3] *= 0.5
    with says("the row of query 3, head 2, layer 1 sums to 0.500"):
        AttentionHeatmap(weights, TOKENS)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tokens": "abc"}, "tokens must name the 4 queries, got 3"),
        ({"tokens": "abcde"}, "tokens must name the 4 queries, got 5"),
        ({"tokens": ["x"] * 10_000}, "tokens must name the 4 queries, got 10000"),
        ({"key_tokens": None}, "tokens must name the 5 keys, got 4"),
        ({"key_tokens": "vwxy"}, "key_tokens must name the 5 keys, got 4"),
        ({"layer_names": ["one"]}, "layer_names must name 2 layers, got 1"),
        ({"head_names": "ab"}, "head_names must name 3 heads, got 2"),
        ({"layer": 2}, "layer must be one of 0, 1, got 2"),
        ({"head": 3}, "head must be one of 0, 1, 2, got 3"),
        ({"head": -1}, "head must be one of 0, 1, 2, got -1"),
        ({"query": 4}, "query must be one of 0, 1, 2, 3, got 4"),
        ({"mask": torch.ones(T, S)}, "with shape (T, S) = (4, 5), got torch.float32"),
        ({"mask": torch.ones(S, T, dtype=torch.bool)}, "(4, 5), got torch.bool with (5, 4)"),
        ({"mask": np.ones((T, S))}, "mask must be boolean"),
        ({"mask": torch.ones(T, S).tril().bool()}, "mask must hide no key that has a weight"),
        ({"mask": "causal"}, 'or "causal" for as many keys as queries, got \'causal\' with 4'),
        ({"mask": "casual"}, "got 'casual'"),
        ({"tokens": None}, "weights and tokens must be given, or examples"),
        ({"example": 1}, "example must be one of 0, got 1"),
        ({"examples": {"a": (torch.eye(2), "ab")}}, "leave out those arguments"),
        ({"model": {}, "respond": print}, "model answers by itself"),
        ({"model": {}, "examples": {}}, "model answers by itself"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_bad_options(options, complaint):
    good = {"tokens": TOKENS, "key_tokens": KEYS}
    with says(complaint):
        AttentionHeatmap(softmax(LAYERS, H, T, S), **{**good, **options})


# What it says without scripts


def test_table_of_few_keys_has_every_weight():
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    mask = torch.tensor([[True, False], [True, True]])
    cells = re.findall(
        "<t[dh](?: [^>]*)?>([^<]*)<", AttentionHeatmap(weights, "ab", mask=mask).fallback()
    )
    assert cells == [
        "",
        "a",
        "b",
        "sum",
        "a",
        "1.00",
        "hidden",
        "1.000",
        "b",
        "0.25",
        "0.75",
        "1.000",
    ]


def test_table_of_many_keys_has_the_largest_of_each_query():
    weights = torch.full((2, 11), 0.01)
    weights[0, 3], weights[1, 10], weights[1, 0] = 0.9, 0.6, 0.31
    cells = re.findall(
        "<t[dh](?: [^>]*)?>([^<]*)<",
        AttentionHeatmap(weights, "ab", key_tokens="abcdefghijk").fallback(),
    )
    assert cells == ["query", "attends most to", "a", "d 0.9", "b", "k 0.6, a 0.3"]


def test_table_is_that_of_the_head_shown():
    weights = torch.stack([torch.eye(T), torch.ones(T, T) / T])
    widget = AttentionHeatmap(weights, TOKENS, head_names=["self", "even"], head=1)
    assert "Even. One row" in widget.fallback()
    assert "0.25" in widget.fallback()
    assert "0.25" not in AttentionHeatmap(weights, TOKENS).fallback()


# What it answers with a kernel


def respond(text: str):
    if not text.strip():
        raise ValueError("type a few words")
    if text == "wrong":
        return softmax(2, 3, 3) * 2, "abc"
    if text == "tokens":
        return softmax(2, 3, 3), "ab"
    if text == "heads":
        return torch.eye(2).expand(5, 2, 2), "ab"
    if text == "long":
        return torch.eye(200).expand(2, 200, 200), range(200)
    if text == "leak":
        return torch.ones(2, 2, 2) / 2, "ab"
    if text == "broken":
        raise KeyError("no such word")
    if text == "nothing":
        return None
    words = text.split()
    at = torch.arange(len(words))
    return softmax(2, len(words), len(words), mask=causal_mask(at, at)), words


def asked(**options) -> AttentionHeatmap:
    weights, words = respond("the cat sat here")
    widget = AttentionHeatmap(
        weights, words, **{"mask": CAUSAL, "respond": respond, "query": 1, **options}
    )
    widget.key = 0
    return widget


def test_new_text_shows_new_weights_and_puts_the_cursor_at_their_end():
    widget = asked(head=1, head_names=["first", "second"])
    widget.text = "two words"
    assert close(widget, respond("two words")[0])
    assert widget.data["queries"] == widget.data["keys"] == ["two", "words"]
    assert widget.data["hidden"] == "0100"
    assert widget.data["heads"] == ["first", "second"]
    assert widget.data["asks"]
    assert widget.state() == {"example": 0, "layer": 0, "head": 1, "query": 1, "key": None}
    assert widget.message == ""
    widget.text = "now there are five words"  # longer than before
    assert widget.state()["query"] == 4


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("  ", "type a few words"),
        ("wrong", "weights must be in 0 to 1"),
        ("tokens", "tokens must name the 3 queries, got 2"),
        ("heads", "respond must return weights of [1, 2] layers and heads, got [1, 5]"),
        ("long", "at most 128 queries"),
        ("leak", "mask must hide no key that has a weight"),
    ],
)
def test_refused_text_says_why_and_changes_nothing(text, complaint):
    widget = asked()
    data, state = widget.data, widget.state()
    widget.text = text
    assert complaint in widget.message
    assert (widget.data, widget.state()) == (data, state)
    widget.text = "two words"
    assert widget.message == ""


@pytest.mark.parametrize(("text", "error"), [("broken", KeyError), ("nothing", TypeError)])
def test_mistake_in_respond_is_raised_and_told_and_changes_nothing(text, error):
    widget = asked()
    data, state = widget.data, widget.state()
    with pytest.raises(error):
        widget.text = text
    assert widget.message.startswith(f"{error.__name__}: ")
    assert (widget.data, widget.state()) == (data, state)


def test_typed_text_is_the_last_choice_of_the_examples():
    widget = several(layer=1, respond=lambda text: example(text), key_tokens=None)
    widget.text = "my own three"
    assert [text["name"] for text in widget.data["examples"]] == ["long", "short", "your text"]
    assert widget.state() == {"example": 2, "layer": 1, "head": 0, "query": 2, "key": None}
    assert close(widget, example("my own three")[0])
    widget.example = 0
    widget.text = "another"
    assert [text["name"] for text in widget.data["examples"]] == ["long", "short", "your text"]
    assert widget.shown["queries"] == ["another"]
    assert widget.shown["hidden"] == "0"


def test_mask_that_is_not_causal_ends_with_its_weights():
    # Catches a causal hatching over weights that are not causal.
    mask = causal_mask(AT, AT, window=2)
    widget = AttentionHeatmap(softmax(2, T, T, mask=mask), TOKENS, mask=mask, respond=respond)
    widget.text = "leak"
    assert widget.message == ""
    assert widget.data["hidden"] == ""


def test_new_data_and_new_cursor_reach_the_page_in_one_message(monkeypatch):
    # Apart, the page would draw the old cursor on the new map.
    widget = asked()
    sent = []
    monkeypatch.setattr(
        AttentionHeatmap, "_send", lambda self, msg, buffers=None: sent.append(msg)
    )
    widget.text = "two words"
    states = [message["state"] for message in sent if message["method"] == "update"]
    assert [set(state) & {"data", "query", "key"} for state in states if "data" in state] == [
        {"data", "key"}  # the query is 1 as before
    ]


def test_widget_without_respond_says_so():
    widget = AttentionHeatmap(torch.eye(2), "ab")
    assert not widget.data["asks"]
    widget.text = "two words"
    assert "without `respond`" in widget.message
