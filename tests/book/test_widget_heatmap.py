"""The attention heatmap in Python: what it takes, what it refuses, what it answers."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from attnlib import attention, causal_mask
from attnlib.book.widgets import AttentionHeatmap
from attnlib.book.widgets.base import unpack
from attnlib.book.widgets.heatmap import MAX_TOKENS, MAX_WEIGHTS

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
    return torch.tensor(unpack(widget.data["weights"]), dtype=torch.float64).view(
        widget.data["shape"]
    )


def close(widget: AttentionHeatmap, weights, atol: float = STEP) -> bool:
    weights = torch.as_tensor(weights, dtype=torch.float64)
    return torch.allclose(
        shown(widget), weights.expand(widget.data["shape"]), rtol=0, atol=atol
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
        "layer": 0, "head": 0, "query": T - 1, "key": None
    }  # fmt: skip
    widget = AttentionHeatmap(
        softmax(LAYERS, H, T, S), TOKENS, key_tokens=KEYS, layer=1, head=2, query=0
    )
    assert widget.state() == {"layer": 1, "head": 2, "query": 0, "key": None}


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
        (torch.zeros(1).expand(40, 128, 128), "600,000 numbers in all"),
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
    assert widget.state() == {"layer": 0, "head": 1, "query": 1, "key": None}
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
