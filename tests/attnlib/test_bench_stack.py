"""Several layers as one to the benchmark: a hybrid's steps beside the sum of its floors."""

from dataclasses import replace

import pytest
import torch

from attnlib import bench
from attnlib.bench import Rates
from attnlib.bench.stack import Stack, build_layers
from attnlib.costs import decode_cost, kv_cache_bytes, with_windows
from attnlib.variants.gqa import GroupedQueryAttention
from attnlib.variants.swa import SlidingWindowAttention

RATES = Rates(1e9, 1e10, "cpu", "float32", 1, 2**20, 64)
GQA = bench.geometries(24, 6, 3, kv_lora_rank=10, qk_rope_head_dim=4)["GQA"]
HYBRID = with_windows(replace(GQA, n_layers=4), "SSSF", 5)


def test_a_stack_has_the_layers_of_its_geometry():
    """Catches a hybrid of which one kind of layer is built for all."""
    stack = build_layers(HYBRID, dtype=torch.float64, device="cpu")
    kinds = [type(layer) for layer in stack.layers]
    assert kinds == [SlidingWindowAttention] * 3 + [GroupedQueryAttention]
    assert not isinstance(build_layers(GQA, dtype=None, device=None), Stack)


def test_a_stack_decodes_as_it_reads():
    """Catches layers that share a cache, or that are not added to their input."""
    stack = build_layers(HYBRID, dtype=torch.float64, device="cpu")
    x = torch.randn(2, 13, 24, dtype=torch.float64)
    whole, expected = stack(x), x
    for layer in stack.layers:
        expected = expected + layer(expected)
    torch.testing.assert_close(whole, expected)
    cache = stack.new_cache(2, 13)
    parts = [stack(part, cache) for part in x.split([6, 1, 1, 4, 1], dim=1)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)
    assert cache.seen == 13
    assert cache.nbytes == kv_cache_bytes(HYBRID, 13, batch_size=2, dtype="float64")
    cache.reset()
    assert [part.seen for part in cache.parts] == [0] * 4


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_a_hybrid_stands_beside_the_floor_of_all_its_layers(phase):
    """Catches the floor of one layer beside the time of four."""
    layers = {"GQA": GQA, "SSSF": HYBRID}
    measure = bench.measure_decode if phase == "decode" else bench.measure_prefill
    rows = {row.variant: row for row in measure(layers, [9], rates=RATES, steps=2)}
    if phase == "decode":
        cost = decode_cost(HYBRID, 9, dtype="float32")
        assert (rows["SSSF"].flops, rows["SSSF"].n_bytes) == (cost.flops, cost.bytes)
    assert rows["SSSF"].floor_seconds > 3 * rows["GQA"].floor_seconds
    assert "SSSF" in bench.table(list(rows.values()))
