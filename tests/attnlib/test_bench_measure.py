"""Decode and prefill: what is measured, beside which floors, for which variants.

No test here looks at how long anything took.
"""

from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import pytest
import torch
from helpers import buffers
from torch import nn

import attnlib
from attnlib import GroupedQueryAttention, bench
from attnlib.bench import Rates, measure
from attnlib.bench.machine import Timing
from attnlib.bench.measure import Candidate, Plan, probed, quartiles, take_turns
from attnlib.core import attend, merge_heads, new_positions, rotate_new, split_heads
from attnlib.costs import Geometry, decode_cost, kv_cache_bytes, prefill_cost
from attnlib.variants import VARIANTS, Variant, register, unregister

RATES = Rates(1e9, 1e10, "cpu", "float32", 1, 2**20, 64)  # a slow machine, the same everywhere
SMALL = bench.geometries(24, 6, 3, kv_lora_rank=10, qk_rope_head_dim=4, window=64)
FUSED = "flash_attention_for_cpu"
NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def rows_of(phase="decode", tokens=(5, 9), **options):
    """The rows of a tiny run."""
    call = bench.measure_decode if phase == "decode" else bench.measure_prefill
    return call(SMALL, list(tokens), rates=RATES, steps=3, **options)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_rows_stand_beside_the_floor_of_the_costs(phase):
    """Catches floors of another length, batch, dtype or phase, and a wrong ratio."""
    rows = rows_of(phase, batch_size=2, dtype=torch.bfloat16)
    assert [(row.tokens, row.variant) for row in rows] == [
        (n, v) for n in (5, 9) for v in SMALL
    ]
    for row in rows:
        cost = (decode_cost if phase == "decode" else prefill_cost)(
            SMALL[row.variant], row.tokens, batch_size=2, dtype="bfloat16"
        )
        assert (row.code, row.phase, row.batch_size) == ("attnlib", phase, 2)
        assert (row.flops, row.n_bytes) == (cost.flops, cost.bytes)
        floor = cost.floor(bytes_per_second=1e9, flops_per_second=1e10)
        assert row.floor_seconds == floor.weights + floor.core
        assert (row.bytes_per_second, row.flops_per_second) == (1e9, 1e10)
        assert row.threads == 1
        assert row.ratio == row.seconds / row.floor_seconds
        assert 0 < row.low <= row.seconds <= row.high
        assert not row.graph


def test_a_floor_may_be_of_bytes_or_of_flops():
    """Catches a floor that knows only one of the two."""
    slow_memory = rows_of(tokens=[5])[0]
    slow_processor = bench.measure_decode(
        {"MHA": SMALL["MHA"]}, [5], rates=RATES._replace(flops_per_second=1e3), steps=1
    )[0]
    assert slow_memory.floor_seconds == pytest.approx(slow_memory.n_bytes / 1e9)
    assert slow_processor.floor_seconds == pytest.approx(slow_processor.flops / 1e3)


def test_decode_sees_as_many_tokens_as_it_says():
    """Catches a context that grows from round to round, or is a token off."""
    for variant, geometry in SMALL.items():
        layer = bench.build_layer(geometry, rope=attnlib.Rope())
        step, rewind = bench.decode_step(layer, torch.randn(2, 1, 24), 6)
        cache = step.args[1]
        assert cache.capacity == 6, variant
        first = step()
        assert cache.seen == 6, variant
        rewind()
        assert cache.seen == 5, variant
        assert torch.equal(step(), first), variant


def test_the_cache_is_filled_in_parts(monkeypatch):
    """Catches a part that is left out, or entries that are all alike."""
    monkeypatch.setattr(measure, "FILL_TOKENS", 4)
    for variant, geometry in SMALL.items():
        layer = bench.build_layer(geometry, rope=attnlib.Rope())
        step, _ = bench.decode_step(layer, torch.randn(2, 1, 24), 12)
        cache = step.args[1]
        assert (cache.seen, cache.capacity) == (11, 12), variant
        for buffer in buffers(cache):
            stored = buffer.flatten(0, -3)[:, :11]  # (rows, S, width)
            assert (stored != 0).all(), variant
            assert len(stored[0].unique(dim=0)) == 11, variant


def test_one_token_needs_no_past():
    """Catches a cache of no tokens."""
    assert [row.tokens for row in rows_of(tokens=[1])] == [1] * len(SMALL)


def test_variants_take_turns_in_random_order():
    """Catches rounds of one variant after the other, or always in one order."""
    order, lines = [], []
    candidates = [
        Candidate(name, "attnlib", partial(order.append, name)) for name in ("MHA", "GQA")
    ]
    plan = Plan("decode", SMALL, RATES, 1, 8, torch.float32, "cpu", progress=lines.append)
    for candidate in candidates:
        probed(candidate, "cpu")  # for its memory and for its backend
    assert order == ["MHA"] * 2 + ["GQA"] * 2
    assert take_turns(plan, 5, candidates) == candidates
    rounds = [tuple(order[i : i + 2]) for i in range(4, 20, 2)]
    assert set(rounds) == {("MHA", "GQA"), ("GQA", "MHA")}
    assert lines == [f"decode, 5 tokens, round {i} of 8" for i in range(1, 9)]
    assert [len(candidate.timings) for candidate in candidates] == [8, 8]


def test_rates_are_measured_in_the_same_rounds_if_none_are_given(monkeypatch):
    """Catches floors of another minute, and a rate that is upside down."""

    class FakeProbes:
        n_bytes, flops = 200, 3000

        def __init__(self, device, dtype):
            self.read, self.multiply = (lambda: "read"), (lambda: "multiply")

    seconds = {"reading": [1.0, 2.0, 4.0], "multiplying": [3.0, 3.0, 3.0]}

    def time_once(candidate, device):
        candidate.run()
        candidate.rewind()
        some = seconds.get(candidate.variant, [1.0, 1.0, 5.0])
        return Timing(some[len(candidate.timings)], 1.0)

    monkeypatch.setattr(measure, "Probes", FakeProbes)
    monkeypatch.setattr(measure, "time_once", time_once)
    rows = bench.measure_decode(SMALL, [5], steps=3)
    assert [row.variant for row in rows] == list(SMALL)
    for row in rows:
        cost = decode_cost(SMALL[row.variant], 5, dtype="float32")
        rates = {"bytes_per_second": 100.0, "flops_per_second": 1000.0}
        assert row.floor_seconds == cost.floor(**rates).seconds
        assert row.rate_spread == 2.0  # quartiles 1.5 and 3
        assert row.interrupted == pytest.approx(1 / 3)
        assert row.seconds == 1.0


def test_threads_are_as_asked_and_as_before_afterwards():
    """Catches a page that leaves the reader's session on one thread."""
    with bench.using_threads(2):
        assert {row.threads for row in rows_of(tokens=[5])} == {1}
        assert {row.threads for row in rows_of(tokens=[5], threads=None)} == {2}
        assert torch.get_num_threads() == 2


def test_a_failure_leaves_the_other_measurements(monkeypatch):
    """Catches an hour of measurements that is lost because one did not fit into memory."""
    real = measure.decode_step

    def fails_for_mqa(layer, x, tokens):
        if layer.n_kv_heads == 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory on a machine of mine")
        step, rewind = real(layer, x, tokens)
        if layer.n_kv_heads != 3:
            return step, rewind
        calls = []

        def fails_late():
            calls.append(1)
            if len(calls) > 3:
                raise RuntimeError("no kernel\nand a long story")
            return step()

        return fails_late, rewind

    monkeypatch.setattr(measure, "decode_step", fails_for_mqa)
    lines = []
    rows = rows_of(tokens=[5], on_failure=lines.append)
    assert [row.variant for row in rows] == ["MHA", "MLA"]
    assert sorted(lines) == [
        "decode, 5 tokens, batch 1, GQA, attnlib: RuntimeError: no kernel",
        "decode, 5 tokens, batch 1, MQA, attnlib: out of memory",
        "decode, 5 tokens, batch 1, SWA, attnlib: RuntimeError: no kernel",
    ]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        rows_of(tokens=[5])


def test_parts_are_the_projections_and_one_fused_call():
    """Catches a yardstick that leaves a projection out, or runs another kernel."""
    for variant, geometry in SMALL.items():
        layer = bench.build_layer(geometry)
        called = []
        for name, module in layer.named_modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(
                    lambda *_, name=name, called=called: called.append(name)
                )
        parts = bench.prefill_parts(layer, torch.randn(2, 7, 24))
        assert bench.sdpa_backend(parts) == FUSED, variant
        assert sorted(called) == sorted(
            name for name, module in layer.named_modules() if isinstance(module, nn.Linear)
        )


def test_backends_of_the_rows():
    """Catches the decode step of the CPU, which runs no fused kernel, under another's name."""
    assert {row.backend for row in rows_of(tokens=[5])} == {"none"}
    assert {row.backend for row in rows_of(tokens=[5], dtype=torch.bfloat16)} == {FUSED}
    assert {row.backend for row in rows_of("prefill", tokens=[5])} == {FUSED}


@pytest.mark.parametrize("variant", SMALL)
def test_prefill_memory_is_linear_in_the_prompt(variant):
    """Catches a score matrix: twice the tokens would take four times the memory."""
    rows = bench.measure_prefill({variant: SMALL[variant]}, [1024, 2048], rates=RATES, steps=1)
    short, long = (row.peak_bytes for row in rows)
    assert long < 2.1 * short


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": [5, 0]}, "tokens must be an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"device": "abacus"}, "device must be cpu or cuda, got abacus"),
        (
            {"geometries": {"MLA": replace(SMALL["MLA"], window=8, n_window_layers=1)}},
            "geometries must have no window, got 8 in MLA",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", [bench.measure_decode, bench.measure_prefill])
def test_plans_are_refused(call, options, message):
    plan = {"geometries": SMALL, "tokens": [5], "rates": RATES, **options}
    with pytest.raises(ValueError, match=message):
        call(**plan)


def test_compare_without_transformers_is_refused(monkeypatch):
    monkeypatch.setattr(measure, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="transformers is not installed, got True"):
        rows_of(compare=True)


def test_quartiles():
    """Catches quartiles in another order, and a single round."""
    assert quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == (3.0, 2.0, 4.0)
    assert quartiles([2.0]) == (2.0, 2.0, 2.0)


class Windowed(GroupedQueryAttention):
    """A toy variant: GQA whose queries see the newest keys only."""

    window = 4

    def forward(self, x, cache=None, *, positions=None, causal=True, key_mask=None,
                return_weights=False):  # fmt: skip
        B, T, _ = x.shape
        q = split_heads(self.q_proj(x), self.n_heads)
        k = split_heads(self.k_proj(x), self.n_kv_heads)
        v = split_heads(self.v_proj(x), self.n_kv_heads)
        at = stored_at = new_positions(x, cache, positions)
        q, k = rotate_new(self.rope, at, cache, q, k)
        if cache is not None:
            k, v, stored_at = cache.update(k, v, positions=positions)
        out, _ = attend(q, k, v, at, stored_at, window=self.window)
        return self.o_proj(merge_heads(out))


def window_of(sizes):
    geometry = sizes.heads(sizes.n_kv_heads)
    return replace(geometry, window=Windowed.window, n_window_layers=1)


@pytest.fixture
def toy():
    """A further variant, registered for one test."""
    variant = Variant(
        name="toy",
        title="Toy attention",
        layer=Windowed,
        color="#888888",
        applies=lambda geometry: geometry.window == Windowed.window,
        cache_numbers=VARIANTS["GQA"].cache_numbers,
        geometry=window_of,
        from_geometry=lambda g, d_model, rope: Windowed(
            d_model, g.n_heads, g.n_kv_heads, head_dim=g.head_dim, rope=rope
        ),
    )
    register(variant)
    yield variant
    unregister("toy")


def test_a_registered_variant_is_measured_without_a_change_here(toy):
    """Catches a benchmark that knows its variants by name, or needs to know their caches."""
    layers = bench.geometries(24, 6, 3, kv_lora_rank=10, qk_rope_head_dim=4, window=64)
    assert list(layers) == [*SMALL, "toy"]
    compare = find_spec("transformers") is not None
    decode = bench.measure_decode(layers, [9], rates=RATES, steps=1, compare=compare)
    prefill = bench.measure_prefill(
        layers, [9], rates=RATES, steps=1, compare=compare, parts=True
    )
    for rows, count in ((decode, decode_cost), (prefill, prefill_cost)):
        (row,) = (row for row in rows if row.variant == "toy")  # no counterpart, no "parts"
        assert row.code == "attnlib"
        cost = count(layers["toy"], 9, dtype="float32")
        assert (row.flops, row.n_bytes) == (cost.flops, cost.bytes)
        assert row.n_bytes < next(r.n_bytes for r in rows if r.variant == "GQA")
        assert "toy" in bench.table(rows)
    predicted, measured = bench.rankings(decode)[9]
    assert sorted(predicted) == sorted(measured) == sorted(layers)


def test_a_window_that_the_layer_lacks_is_refused(toy):
    """Catches a floor of a window beside the time of a layer that sees everything."""
    other = replace(SMALL["MLA"], window=3, n_window_layers=1)
    with pytest.raises(ValueError, match="geometries must have no window, got 3 in MLA"):
        bench.measure_decode({"MLA": other}, [5], rates=RATES, steps=1)


@pytest.mark.cuda
@NEEDS_CUDA
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_a_gpu_measures_every_variant_and_its_graph(dtype):
    """Catches tensors of the CPU, and a step that a CUDA graph cannot record."""
    layers = bench.geometries(512, 8, 2, kv_lora_rank=128, qk_rope_head_dim=32)
    lines = []
    rows = bench.measure_decode(
        layers, [1, 300], rates=RATES, batch_size=2, steps=3, dtype=dtype, device="cuda",
        progress=lines.append,
    )  # fmt: skip
    assert [line for line in lines if "no CUDA graph" in line] == []
    assert [(row.tokens, row.variant, row.graph) for row in rows] == [
        (n, name, graph) for n in (1, 300) for name in layers for graph in (False, True)
    ]
    assert all(0 < row.low <= row.seconds <= row.high and row.backend for row in rows)
    rows = bench.measure_prefill(
        layers, [64], rates=RATES, steps=2, dtype=dtype, device="cuda", parts=True
    )
    assert [row.code for row in rows] == ["attnlib", "parts"] * len(layers)


@pytest.mark.cuda
@NEEDS_CUDA
@pytest.mark.parametrize("variant", SMALL)
def test_a_graph_replays_the_step(variant):
    """Catches a graph that computes something else, or sees more tokens each time."""
    geometry = bench.geometries(512, 8, 2, kv_lora_rank=128, qk_rope_head_dim=32)[variant]
    layer = bench.build_layer(geometry, rope=attnlib.Rope(), device="cuda")
    step, rewind = bench.decode_step(layer, torch.randn(2, 1, 512, device="cuda"), 40)
    outputs = []
    replay = measure.graphed(lambda: outputs.append(step()), rewind)
    recorded = outputs[-1]
    for _ in range(2):
        replay()
        rewind()
    torch.testing.assert_close(recorded, step(), rtol=1e-4, atol=1e-5)
    rewind()
    assert step.args[1].seen == 39


@pytest.mark.cuda
@NEEDS_CUDA
def test_what_does_not_fit_into_a_gpu_is_left_out():
    """Catches memory that stays taken, and a run that ends with the first lack of it."""
    free = torch.cuda.mem_get_info()[0]
    geometry = {"MHA": Geometry(1, 16, 16, 128, d_model=2048)}
    too_many = 2 * free // kv_cache_bytes(geometry["MHA"], 1, dtype="float32")
    lines = []
    rows = bench.measure_decode(
        geometry, [too_many, 64], rates=RATES, steps=1, device="cuda", on_failure=lines.append
    )
    assert {row.tokens for row in rows} == {64}
    assert len(lines) == 1 and lines[0].endswith("out of memory")
