"""A model for the page in Python: what is packed, and which models pagemodel.js cannot compute.

tests/site/widgets/test_widget_page_heatmap.py compares what the page computes with PyTorch.
"""

from __future__ import annotations

import base64
import re

import numpy as np
import pytest
import torch
from torch import nn

from attnlib import GroupedQueryAttention, MultiHeadAttention, NtkScaling, Rope
from attnlib.book.widgets import AttentionHeatmap, page_model
from attnlib.book.widgets.pagemodel import PROJECTIONS, ranges

V, D_MODEL, H = 5, 12, 2
LETTERS = "ABC01"


def says(message: str):
    return pytest.raises(ValueError, match=re.escape(message))


def parts(**options) -> dict:
    """Return good arguments of page_model, except for those that are given."""
    torch.manual_seed(6)
    good = {
        "embed": nn.Embedding(V, D_MODEL).weight,
        "layers": [MultiHeadAttention(D_MODEL, H, rope=Rope(100.0)) for _ in range(3)],
        "predict": torch.randn(V, D_MODEL, dtype=torch.bfloat16),
        "vocabulary": LETTERS,
    }
    return {**good, **options}


def layer(**options) -> MultiHeadAttention:
    return MultiHeadAttention(D_MODEL, H, **{"rope": Rope(100.0), **options})


def test_parameters_are_packed_in_the_order_of_the_arguments():
    given = parts()
    packed = page_model(**given)
    code = packed["parameters"].removeprefix("f16:")
    numbers = np.frombuffer(base64.b64decode(code), dtype="<f2")
    expected = [given["embed"]]
    for one in given["layers"]:
        expected += [getattr(one, name).weight for name in PROJECTIONS]
    expected = [part.detach().half().flatten() for part in (*expected, given["predict"])]
    assert torch.equal(torch.tensor(numbers), torch.cat(expected))
    assert {name: value for name, value in packed.items() if name != "parameters"} == {
        "vocabulary": LETTERS,
        "longest": 32,
        "complaint": "Type 2 to 32 characters from A to C, 0 or 1.",
        "width": D_MODEL,
        "layers": 3,
        "heads": H,
        "head_width": D_MODEL // H,
        "base": 100.0,
    }


def test_layers_may_have_no_positions_and_any_width_of_a_head():
    packed = page_model(**parts(layers=nn.ModuleList([layer(rope=None, head_dim=7)])))
    assert (packed["base"], packed["head_width"]) == (None, 7)


@pytest.mark.parametrize(
    ("vocabulary", "words"),
    [
        ("ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", "A to Z or 0 to 5"),
        ("abc", "a to c"),
        ("ab", "a or b"),
        ("(+)x012", "(, +, ), x or 0 to 2"),
    ],
)
def test_vocabulary_in_words(vocabulary, words):
    assert ranges(vocabulary) == words


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"embed": torch.zeros(V + 1, D_MODEL)},
            "embed must have shape (V, d_model) = (5, d_mo",
        ),
        ({"embed": torch.zeros(V)}, "got (5,)"),
        (
            {"predict": torch.zeros(D_MODEL, V)},
            "predict must have shape (V, d_model) = (5, 12)",
        ),
        ({"vocabulary": "ABC0"}, "embed must have shape (V, d_model) = (4, d_model)"),
        ({"vocabulary": "ABCA1"}, "vocabulary must not repeat a character, got 'ABCA1'"),
        ({"layers": []}, "layers must have at least one layer"),
        ({"layers": [nn.Linear(12, 12)]}, "of MultiHeadAttention, got Linear"),
        ({"layers": [GroupedQueryAttention(12, 2, 1)]}, "got GroupedQueryAttention"),
        ({"layers": [layer(bias=True)]}, "layers must have no bias"),
        ({"layers": [MultiHeadAttention(6, 3)]}, "as wide as embed, d_model = 12, got 6"),
        ({"layers": [layer(), layer(rope=None)]}, "the same n_heads, head_dim and rope"),
        ({"layers": [layer(), layer(head_dim=8)]}, "the same n_heads, head_dim and rope"),
        (
            {"layers": [layer(rope=Rope(interleaved=True))]},
            "rope=Rope(base) or None, got Rope(",
        ),
        ({"layers": [layer(rope=Rope(scaling=NtkScaling(2)))]}, "Rope(base) or None"),
        ({"predict": torch.full((V, D_MODEL), 1e5)}, "parameters below 65,520, got 100,000"),
        ({"predict": torch.full((V, D_MODEL), torch.nan)}, "below 65,520, got nan"),
        ({"longest": 1}, "longest must be an integer of at least 2, got 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_models(options, complaint):
    with says(complaint):
        page_model(**parts(**options))


def test_model_that_is_too_large_for_a_page():
    with says("at most 200,000 parameters"):
        page_model(
            torch.zeros(V, 256), [MultiHeadAttention(256, 4)], torch.zeros(V, 256), LETTERS
        )


# In the heatmap


def heatmap(tokens: str = "AB1", **options) -> AttentionHeatmap:
    weights = torch.eye(len(tokens)).expand(3, H, len(tokens), len(tokens))
    options = {"model": page_model(**parts()), "mask": "causal", **options}
    return AttentionHeatmap(options.pop("weights", weights), tokens, **options)


def test_page_gets_the_model():
    widget = heatmap()
    assert widget.data["model"] == page_model(**parts())
    assert not widget.data["asks"]


def test_page_may_show_longer_texts_than_the_first():
    widget = heatmap()
    widget.set_state({"text": "A" * 20, "query": 19, "key": 18})
    assert (widget.message, widget.query, widget.key) == ("", 19, 18)
    with says("query must be one of 0, "):
        widget.set_state({"query": 32})


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (
            {"weights": torch.eye(3).expand(2, H, 3, 3)},
            "model must have the 2 layers and 2 heads",
        ),
        (
            {"weights": torch.eye(3).expand(3, 3, 3, 3)},
            "3 layers and 3 heads of weights, got 3",
        ),
        ({"tokens": "ABX"}, "model must know the tokens"),
        ({"key_tokens": "ABC"}, "model must know the tokens"),
        ({"tokens": "A" * 33}, "at most 32 characters"),
    ],
)
def test_model_that_does_not_fit_the_weights(options, complaint):
    with says(complaint):
        heatmap(**options)
