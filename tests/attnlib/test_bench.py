"""The benchmark: what it measures, beside which floors, and what it says of itself.

No test here looks at how long anything took.
"""

import json
import math

import pytest
import torch
from torch import nn

import attnlib
from attnlib import bench
from attnlib.bench import Rates, Row
from attnlib.costs import Geometry, decode_cost, kv_cache_bytes, prefill_cost

RATES = Rates(1e9, 1e10, "cpu", "float32", 1, 2**20, 64)  # a slow machine, the same everywhere
SMALL = bench.geometries(24, 6, 3, kv_lora_rank=10, qk_rope_head_dim=4)
KINDS = {
    "MHA": attnlib.MultiHeadAttention,
    "GQA": attnlib.GroupedQueryAttention,
    "MQA": attnlib.MultiQueryAttention,
    "MLA": attnlib.MultiHeadLatentAttention,
}
FUSED = "flash_attention_for_cpu"


def measure(phase="decode", tokens=(5, 9), **options):
    """The rows of a tiny run."""
    call = bench.measure_decode if phase == "decode" else bench.measure_prefill
    return call(SMALL, list(tokens), rates=RATES, steps=3, **options)


def test_geometries_are_one_layer_of_each_variant():
    """Catches a wrong head count, and a geometry under another's name."""
    layers = bench.geometries()
    assert list(layers) == ["MHA", "GQA", "MQA", "MLA"]
    for name, geometry in layers.items():
        assert geometry.variant == name
        assert (geometry.n_layers, geometry.n_heads, geometry.head_dim) == (1, 16, 128)
        assert geometry.d_model == 2048
    assert [layers[name].n_kv_heads for name in layers] == [16, 4, 1, 16]
    assert (layers["MLA"].kv_lora_rank, layers["MLA"].qk_rope_head_dim) == (512, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((20, 6, 3), "d_model must be a multiple of n_heads = 6, got 20"),
        ((24, 6, 1), "n_kv_heads must lie between 1 and n_heads = 6, got 1"),
        ((24, 6, 6), "n_kv_heads must lie between 1 and n_heads = 6, got 6"),
        ((24, 6, 4), "n_kv_heads must divide n_heads = 6, got 4"),
        ((24, 0, 4), "n_heads must be an integer of at least 1, got 0"),
    ],
    ids=str,
)
def test_geometries_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        bench.geometries(*arguments)


@pytest.mark.parametrize("variant", SMALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_layers_are_the_geometry(variant, dtype):
    """Catches a layer of other sizes than those that the floor is computed from."""
    geometry = SMALL[variant]
    layer = bench.build_layer(geometry, rope=attnlib.Rope(), dtype=dtype)
    assert type(layer) is KINDS[variant]
    weights = sum(p.numel() for n, p in layer.named_parameters() if "layernorm" not in n)
    assert weights == attnlib.attention_params(geometry, norms=False)
    assert not layer.training
    assert not any(p.requires_grad for p in layer.parameters())
    cache = layer.new_cache(3, 7)
    assert cache.nbytes == kv_cache_bytes(geometry, 7, batch_size=3, dtype=dtype)


def test_layers_have_biases_query_latents_and_widths():
    """Catches a size of the geometry that is left out of the layer."""
    biased = Geometry(1, 6, 2, 5, d_model=22, qkv_bias=True, o_bias=True)
    assert bench.build_layer(biased).q_proj.bias.shape == (30,)
    latent = Geometry(1, 6, 6, 8, 9, 13, 4, d_model=22, q_lora_rank=14)
    layer = bench.build_layer(latent)
    assert layer.q_a_proj.weight.shape == (14, 22)
    assert layer.v_head_dim == 9


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (Geometry(1, 6, 2, 4), "geometry must have a d_model"),
        (Geometry(1, 6, 2, 4, d_model=24, qk_norm=True), "no qk_norm"),
        (Geometry(1, 6, 2, 4, d_model=24, qkv_bias=True), "equal biases"),
        (Geometry(1, 6, 2, 4, 5, d_model=24), "v_head_dim = head_dim but for MLA"),
    ],
    ids=str,
)
def test_layers_that_do_not_exist_are_refused(geometry, message):
    with pytest.raises(ValueError, match=message):
        bench.build_layer(geometry)


@pytest.mark.parametrize("phase", ["decode", "prefill"])
def test_rows_stand_beside_the_floor_of_the_costs(phase):
    """Catches floors of another length, batch, dtype or phase, and a wrong ratio."""
    rows = measure(phase, batch_size=2, dtype=torch.bfloat16)
    assert [(row.tokens, row.variant) for row in rows] == [
        (n, v) for n in (5, 9) for v in SMALL
    ]
    for row in rows:
        cost = (decode_cost if phase == "decode" else prefill_cost)(
            SMALL[row.variant], row.tokens, batch_size=2, dtype="bfloat16"
        )
        assert (row.code, row.phase, row.batch_size) == ("attnlib", phase, 2)
        assert (row.flops, row.n_bytes) == (cost.flops, cost.bytes)
        assert row.floor_seconds == max(cost.bytes / 1e9, cost.flops / 1e10)
        assert row.ratio == row.seconds / row.floor_seconds
        assert 0 < row.low <= row.seconds <= row.high
        assert not row.graph


def test_a_floor_may_be_of_bytes_or_of_flops():
    """Catches a floor that knows only one of the two."""
    slow_memory = measure(tokens=[5])[0]
    slow_processor = bench.measure_decode(
        {"MHA": SMALL["MHA"]}, [5], rates=RATES._replace(flops_per_second=1e3), steps=1
    )[0]
    assert slow_memory.floor_seconds == slow_memory.n_bytes / 1e9
    assert slow_processor.floor_seconds == slow_processor.flops / 1e3


def test_decode_sees_as_many_tokens_as_it_says():
    """Catches a context that grows from round to round, or is a token off."""
    for variant, geometry in SMALL.items():
        layer = bench.build_layer(geometry, rope=attnlib.Rope())
        step, rewind = bench.decode_step(geometry, layer, torch.randn(2, 1, 24), 6)
        cache = step.args[1]
        assert cache.capacity == 6, variant
        first = step()
        assert cache.seen == 6, variant
        rewind()
        assert cache.seen == 5, variant
        assert torch.equal(step(), first), variant


def test_one_token_needs_no_past():
    """Catches a cache of no tokens."""
    assert [row.tokens for row in measure(tokens=[1])] == [1] * 4


def test_variants_take_turns():
    """Catches rounds of one variant after the other, which drift apart with the machine."""
    order, calls = [], []
    for name in ("MHA", "GQA"):
        calls.append(bench.Call(name, "attnlib", lambda name=name: order.append(name)))
    layers = {name: SMALL[name] for name in ("MHA", "GQA")}
    said = []
    bench.time_calls(calls, "decode", 5, layers, RATES, 1, 3, torch.float32, "cpu", said.append)
    looks = 2  # for memory and for the backend
    assert order == ["MHA"] * looks + ["GQA"] * looks + ["MHA", "GQA"] * 3
    assert said == [f"decode, 5 tokens, round {i} of 3" for i in (1, 2, 3)]


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
        parts = bench.prefill_parts(geometry, layer, torch.randn(2, 7, 24))
        assert bench.sdpa_backend(parts) == FUSED, variant
        assert sorted(called) == sorted(
            name for name, module in layer.named_modules() if isinstance(module, nn.Linear)
        )


def test_backend_is_the_one_that_ran():
    """Catches a name that is assumed; and the decode step of the CPU, which runs none."""
    q = torch.randn(1, 2, 8, 4)
    attend = torch.nn.functional.scaled_dot_product_attention
    assert bench.sdpa_backend(lambda: attend(q, q, q)) == FUSED
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        assert bench.sdpa_backend(lambda: attend(q, q, q)) == "attention_math"
    assert bench.sdpa_backend(lambda: q @ q.mT) == "none"
    assert {row.backend for row in measure(tokens=[5])} == {"none"}
    assert {row.backend for row in measure(tokens=[5], dtype=torch.bfloat16)} == {FUSED}
    assert {row.backend for row in measure("prefill", tokens=[5])} == {FUSED}


def test_allocated_counts_what_stays_and_what_came_in_between():
    """Catches sizes that are rounded, and a peak that is the sum of all requests."""

    def call():
        a = torch.empty(1000)
        b = torch.empty(500)
        del a
        c = torch.empty(200)
        return b, c

    assert bench.allocated(call) == (4 * 700, 4 * 1500)
    assert bench.allocated(lambda: None) == (0, 0)


@pytest.mark.parametrize("variant", SMALL)
def test_allocated_equals_formula_and_nbytes(variant):
    """Catches a cache that takes more than it says."""
    layer = bench.build_layer(SMALL[variant])
    held = bench.allocated(lambda: layer.new_cache(2, 11)).held
    assert held == layer.new_cache(2, 11).nbytes
    assert held == kv_cache_bytes(SMALL[variant], 11, batch_size=2, dtype="float32")


@pytest.mark.parametrize("variant", SMALL)
def test_prefill_memory_is_linear_in_the_prompt(variant):
    """Catches a score matrix: twice the tokens would take four times the memory."""
    rows = bench.measure_prefill({variant: SMALL[variant]}, [1024, 2048], rates=RATES, steps=1)
    short, long = (row.peak_bytes for row in rows)
    assert long < 2.1 * short


def test_profiler_writes_nothing(capfd):
    """Catches lines of torch's profiler that would land in a notebook."""
    bench.allocated(lambda: torch.empty(3))
    bench.sdpa_backend(lambda: None)
    assert capfd.readouterr() == ("", "")


def test_profiler_gives_stderr_back_after_an_error(capfd):
    """Catches a stderr that stays mute once something went wrong."""
    with pytest.raises(ZeroDivisionError):
        bench.allocated(lambda: 1 // 0)
    import os

    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_rates_say_how_they_were_measured():
    """Catches a rate of another size, and one that is not a number."""
    rates = bench.machine_rates(read_bytes=1001, matmul_size=17, repeats=2)
    assert rates.bytes_per_second > 0
    assert math.isfinite(rates.flops_per_second)
    assert (rates.device, rates.dtype) == ("cpu", "float32")
    assert (rates.read_bytes, rates.matmul_size) == (1008, 17)
    assert rates.threads == torch.get_num_threads()


@pytest.mark.parametrize("dtype", bench.DTYPES)
def test_rates_in_every_dtype(dtype):
    """Catches a dtype that the kernels of one of the reads lack."""
    rates = bench.machine_rates(
        dtype=bench.DTYPES[dtype], read_bytes=4096, matmul_size=8, repeats=1
    )
    assert rates.dtype == dtype


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tokens": [5, 0]}, "tokens must be an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"device": "abacus"}, "device must be cpu or cuda, got abacus"),
        (
            {"geometries": {"MHA": Geometry(2, 6, 6, 4, d_model=24)}},
            "geometries must have one layer each, got 2 in MHA",
        ),
        (
            {
                "geometries": {
                    "MHA": Geometry(1, 6, 6, 4, d_model=24, window=8, n_window_layers=1)
                }
            },
            "geometries must have no window, got 8 in MHA",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("call", [bench.measure_decode, bench.measure_prefill])
def test_plans_are_refused(call, options, message):
    plan = {"geometries": SMALL, "tokens": [5], "rates": RATES, **options}
    with pytest.raises(ValueError, match=message):
        call(**plan)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_named():
    with pytest.raises(ValueError, match="torch finds no GPU, got cuda"):
        bench.machine_rates(device="cuda")


def test_compare_without_transformers_is_refused(monkeypatch):
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="transformers is not installed, got True"):
        measure(compare=True)


@pytest.mark.parametrize("variant", SMALL)
def test_transformers_layer_gives_the_same_result(variant):
    """Catches a comparison of layers with other sizes, weights, positions or masks."""
    pytest.importorskip("transformers")
    geometry = SMALL[variant]
    layer = bench.build_layer(geometry, rope=attnlib.Rope())
    x = torch.randn(2, 7, 24)
    with torch.no_grad():
        theirs = bench.their_prefill(geometry, layer, x)()[0]
        torch.testing.assert_close(layer(x), theirs, rtol=1e-4, atol=1e-5)
        step, rewind = bench.their_decode_step(geometry, layer, x[:, :1], 6)
        first = step()[0]
        cache = step.keywords["past_key_values"]
        assert cache.get_seq_length() == 6
        rewind()
        assert cache.get_seq_length() == 5
        assert torch.equal(step()[0], first)


def test_transformers_rows_come_in_the_same_rounds():
    """Catches a comparison with another run."""
    pytest.importorskip("transformers")
    rows = measure(tokens=[5], compare=True)
    assert [row.code for row in rows] == ["attnlib", "transformers"] * 4
    for ours, theirs in zip(rows[::2], rows[1::2], strict=True):
        assert ours.variant == theirs.variant
        assert ours.floor_seconds == theirs.floor_seconds
    rows = measure("prefill", tokens=[5], compare=True, parts=True)
    assert [row.code for row in rows] == ["attnlib", "transformers", "parts"] * 4


def row(variant="MHA", tokens=5, seconds=3.0, floor=2.0, **options):
    fields = {"code": "attnlib", "phase": "decode", "batch_size": 1, "low": 2.5, "high": 4.0,
              "flops": 10, "n_bytes": 20, **options}  # fmt: skip
    return Row(variant=variant, tokens=tokens, seconds=seconds, floor_seconds=floor, **fields)


def test_table_shows_milliseconds_and_ratio():
    """Catches a wrong unit, and columns that are swapped."""
    text = bench.table(
        [row(backend="none", peak_bytes=3 * 2**20), row("MLA", 8192, graph=True)]
    )
    head, first, second = text.splitlines()
    assert head.split()[:4] == ["phase", "tokens", "variant", "code"]
    assert first.split() == ["decode", "5", "MHA", "attnlib", "3000.00", "2500.00", "to",
                             "4000.00", "2000.00", "1.50", "3.0", "MiB", "none"]  # fmt: skip
    assert "8,192  MLA" in second
    assert "attnlib (graph)" in second


def test_rankings_compare_predicted_with_measured():
    """Catches an order of the fastest first, and rows of other code that count."""
    rows = [row("MHA", 5, 3.0, 2.0), row("GQA", 5, 4.0, 1.0), row("MQA", 7, 1.0, 1.0),
            row("MQA", 5, 9.0, 9.0, code="transformers")]  # fmt: skip
    assert bench.rankings(rows) == {5: (["MHA", "GQA"], ["GQA", "MHA"]), 7: (["MQA"], ["MQA"])}
    rows.append(row("MHA", 5, 1.0, 2.0, graph=True))
    assert bench.rankings(rows) == {5: (["MHA"], ["MHA"])}


def test_summary_names_floors_that_are_almost_equal():
    """Catches a contradiction of prediction and measurement where the prediction is a draw."""
    rows = [row("MHA", 5, 9.0, 3.0), row("GQA", 5, 4.0, 1.05), row("MLA", 5, 7.0, 1.0)]
    text = bench.summary(RATES, RATES._replace(bytes_per_second=2e9), rows)
    assert "rates of the floors: read 1.0 GB/s, multiply 10.0 GFLOP/s" in text
    assert "rates afterwards: read 2.0 GB/s" in text
    assert "predicted MHA, GQA, MLA; measured MHA, MLA, GQA" in text
    assert "the floors of GQA and MLA differ by less than 10 %" in text
    assert "the floors of MHA and GQA" not in text


def test_quartiles():
    """Catches quartiles in another order, and a single round."""
    assert bench.quartiles([5.0, 1.0, 3.0, 2.0, 4.0]) == (3.0, 2.0, 4.0)
    assert bench.quartiles([2.0]) == (2.0, 2.0, 2.0)


def test_command_line_writes_all_numbers(tmp_path, capsys, monkeypatch):
    """Catches a file without origin, rows that are lost, and a table that is not printed."""
    monkeypatch.setattr(bench, "machine_rates", lambda **options: RATES)
    file = tmp_path / "run.json"
    bench.main(["--quick", "--tokens", "3,6", "--prefill", "4", "--steps", "1", "--no-compare",
                "--batch-size", "2", "--dtype", "bfloat16", "--json", str(file)])  # fmt: skip
    out, err = capsys.readouterr()
    report = json.loads(file.read_text())
    facts = report["provenance"]
    assert facts["torch"] == torch.__version__
    assert (facts["device"], facts["dtype"]) == ("cpu", "bfloat16")
    assert facts["threads"] == torch.get_num_threads()
    assert facts["date"][:2] == "20"
    assert facts["date"].endswith("Z")
    assert {"processor", "system", "python", "transformers"} <= set(facts)
    assert report["rates"] == RATES._asdict()
    assert Geometry(**report["geometries"]["MLA"]).kv_lora_rank == 64
    wanted = [("decode", 3)] * 4 + [("decode", 6)] * 4 + [("prefill", 4)] * 8
    assert [(row["phase"], row["tokens"]) for row in report["rows"]] == wanted
    for entry in report["rows"]:
        ratio = entry.pop("ratio")
        assert Row(**entry).ratio == ratio
        assert entry["backend"]
        assert entry["batch_size"] == 2
    lines = out.splitlines()
    assert sum(line.startswith(("decode  ", "prefill  ")) for line in lines) == 16
    assert "round 1 of 1" in err
    assert "round" not in out


def test_provenance_names_no_machine():
    """Catches a host name, a user or a path in what is published."""
    import getpass
    import platform

    text = json.dumps(bench.provenance("cpu", torch.float32))
    for private in (platform.node(), getpass.getuser(), "/home", "/root", "/work", "/tmp"):
        assert not private or private not in text, private


def test_picture_draws_floors_and_marks():
    """Catches a panel under another variant's name, and rows of two phases in one picture."""
    from attnlib.book.plots import step_times

    rows = [row(variant, tokens, 0.003, 0.002, low=0.0025, high=0.004)
            for variant in SMALL for tokens in (9, 5)]  # fmt: skip
    rows += [row("MHA", 5, 0.5, 0.002, low=0.4, high=0.6, code="transformers")]
    figure = step_times(rows)
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(SMALL)
    for ax in figure.axes:
        floor = ax.lines[0]
        assert list(floor.get_xdata()) == [5, 9]
        assert list(floor.get_ydata()) == [2.0, 2.0]
    marks = [list(line.get_ydata()) for line in figure.axes[0].lines[1:]]
    assert [500.0] in marks
    assert [3.0, 3.0] in marks
    assert [500.0] not in [list(line.get_ydata()) for line in figure.axes[1].lines]
    with pytest.raises(ValueError, match="one phase, got decode and prefill"):
        step_times([*rows, row(phase="prefill")])
    with pytest.raises(ValueError, match="one phase, got none"):
        step_times([])
