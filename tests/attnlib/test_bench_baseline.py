"""transformers' layers beside attnlib's: the same sizes, weights, positions and rounds."""

import pytest
import torch

import attnlib
from attnlib import bench
from attnlib.bench import Rates
from attnlib.bench.baseline import BASELINES, baseline_decode_step, baseline_prefill
from attnlib.variants import VARIANTS

RATES = Rates(1e9, 1e10, "cpu", "float32", 1, 2**20, 64)
SMALL = bench.geometries(24, 6, 3, kv_lora_rank=10, qk_rope_head_dim=4)
COMPARED = [name for name in SMALL if VARIANTS[name].layer in BASELINES]


@pytest.mark.parametrize("variant", COMPARED)
def test_transformers_layer_gives_the_same_result(variant):
    """Catches a comparison of layers with other sizes, weights, positions or masks."""
    pytest.importorskip("transformers")
    geometry = SMALL[variant]
    layer = bench.build_layer(geometry, rope=attnlib.Rope())
    x = torch.randn(2, 7, 24)
    with torch.no_grad():
        theirs = baseline_prefill(geometry, layer, x)()[0]
        torch.testing.assert_close(layer(x), theirs, rtol=1e-4, atol=1e-5)
        step, rewind = baseline_decode_step(geometry, layer, x[:, :1], 6)
        first = step()[0]
        cache = step.keywords["past_key_values"]
        assert cache.get_seq_length() == 6
        rewind()
        assert cache.get_seq_length() == 5
        assert torch.equal(step()[0], first)


def test_transformers_rows_come_in_the_same_rounds():
    """Catches a comparison with another run."""
    pytest.importorskip("transformers")
    layers = {name: SMALL[name] for name in COMPARED}
    rows = bench.measure_decode(layers, [5], rates=RATES, steps=3, compare=True)
    assert [row.code for row in rows] == ["attnlib", "transformers"] * len(COMPARED)
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        assert ours.variant == theirs.variant
        assert ours.floor_seconds == theirs.floor_seconds
    rows = bench.measure_prefill(layers, [5], rates=RATES, steps=3, compare=True, parts=True)
    assert [row.code for row in rows] == ["attnlib", "transformers", "parts"] * len(COMPARED)


def test_a_window_has_no_counterpart():
    """Catches a layer of transformers that would see more than ours."""
    pytest.importorskip("transformers")
    rows = bench.measure_decode(SMALL, [5], rates=RATES, steps=1, compare=True)
    assert {row.variant for row in rows if row.code == "transformers"} == set(COMPARED)
    assert {row.variant for row in rows if row.code == "attnlib"} == set(SMALL)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_runs_the_baselines():
    """Catches weights, angles or caches that stay on the CPU."""
    pytest.importorskip("transformers")
    layers = bench.geometries(512, 8, 2, kv_lora_rank=128, qk_rope_head_dim=32)
    rows = bench.measure_decode(
        layers, [65], rates=RATES, batch_size=2, steps=2, dtype=torch.bfloat16, device="cuda",
        compare=True,
    )  # fmt: skip
    assert [row.variant for row in rows if row.code == "transformers"] == COMPARED
    rows = bench.measure_prefill(
        layers, [64], rates=RATES, steps=2, dtype=torch.bfloat16, device="cuda", compare=True
    )
    assert {row.variant for row in rows if row.code == "transformers"} == set(COMPARED)
