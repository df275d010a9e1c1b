"""The front page's figure in Python: bytes of real caches, limits, the stored page."""

from __future__ import annotations

import pytest

from attnlib import MODELS, Geometry, kv_cache_bytes
from attnlib.book.widgets import CacheGrowth
from attnlib.book.widgets.growth import CONTEXTS

NAME = "DeepSeek-V3 / R1"


def figure(**options) -> CacheGrowth:
    """Return the figure of the front page."""
    return CacheGrowth(MODELS[NAME].geometry, name=NAME, **options)


def test_bytes_are_those_of_the_cost_model():
    """Catches a bar of another model, and of another precision."""
    per_token = {one["name"]: one["bytes"] for one in figure().data["variants"]}
    n_layers, n_heads, width = 61, 128, 128
    for name, kv_heads in (("MHA", n_heads), ("GQA", 8), ("MQA", 1)):
        assert per_token[name] == kv_cache_bytes(
            Geometry(n_layers, n_heads, kv_heads, width), 1
        )
    assert per_token["MLA"] == kv_cache_bytes(MODELS[NAME].geometry, 1)


def test_the_context_is_one_of_the_slider():
    widget = figure(context=2048)
    widget.context = CONTEXTS[-1]
    with pytest.raises(ValueError, match="context must be one of"):
        widget.context = 2049
    assert widget.context == CONTEXTS[-1]
    with pytest.raises(ValueError, match="context must be one of"):
        figure(context=1)
    with pytest.raises(ValueError, match="memory must be"):
        figure(memory=0)


def test_without_scripts_there_is_a_table():
    table = figure().fallback()
    geometry = MODELS[NAME].geometry
    assert f"{kv_cache_bytes(geometry, 1):,}" in table
    assert f"{kv_cache_bytes(geometry, 131_072) / 2**30:.2f}" in table
    assert table.count('<th scope="row">') == len(figure().data["variants"])
