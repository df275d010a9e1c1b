"""The cost model against the tensors of real caches, and against published numbers."""

import ast
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnlib import (
    MODELS,
    GroupedQueryAttention,
    MultiHeadAttention,
    MultiHeadLatentAttention,
    MultiQueryAttention,
    costs,
    scalars,
)
from attnlib.costs import (
    CACHE_NUMBERS,
    DTYPE_BITS,
    FORMS,
    Cost,
    Geometry,
    attention_params,
    bits_of,
    decode_cost,
    decode_flops,
    evaluate,
    kv_cache_bytes,
    max_batch_size,
    max_tokens,
    prefill_cost,
    prefill_flops,
    roofline_seconds,
)
from attnlib.variants import VARIANTS

LAYERS, B, TOKENS, D_MODEL, H = 3, 2, 7, 48, 6  # all different
LATENT = {"kv_lora_rank": 20, "qk_rope_head_dim": 10}
CASES = {
    "MHA": (MultiHeadAttention(D_MODEL, H, head_dim=4), Geometry(LAYERS, H, H, 4)),
    "GQA": (GroupedQueryAttention(D_MODEL, H, 3, head_dim=4), Geometry(LAYERS, H, 3, 4)),
    "MQA": (MultiQueryAttention(D_MODEL, H, head_dim=4), Geometry(LAYERS, H, 1, 4)),
    "MLA": (
        MultiHeadLatentAttention(D_MODEL, H, qk_nope_head_dim=4, v_head_dim=5, **LATENT),
        Geometry(LAYERS, H, H, 4, 5, **LATENT),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("variant", CASES)
def test_formula_is_what_the_tensors_take(variant, dtype):
    layer, geometry = CASES[variant]
    assert geometry.variant == variant
    caches = [layer.new_cache(B, TOKENS, dtype=getattr(torch, dtype)) for _ in range(LAYERS)]
    measured = sum(cache.nbytes for cache in caches)
    assert kv_cache_bytes(geometry, TOKENS, batch_size=B, dtype=dtype) == measured
    assert (
        kv_cache_bytes(geometry, TOKENS, batch_size=B, dtype=getattr(torch, dtype)) == measured
    )


PUBLISHED = {  # bytes per token in bfloat16; the sources are in attnlib/models.json
    "DeepSeek-V3": (Geometry(61, 128, 128, 128, 128, 512, 64), 70_272),
    "Qwen2.5-72B": (Geometry(80, 64, 8, 128), 327_680),
    "Llama-3.1 405B": (Geometry(126, 128, 8, 128), 516_096),
    "Llama-2 7B": (Geometry(32, 32, 32, 128), 524_288),
    "Gemma 7B": (Geometry(28, 16, 16, 256), 458_752),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_numbers(name):
    geometry, expected = PUBLISHED[name]
    assert kv_cache_bytes(geometry, 1) == expected
    assert kv_cache_bytes(geometry, 4096, batch_size=3) == 3 * 4096 * expected


def test_deepseek_v2_at_six_bits_against_deepseek_67b():
    """Both ends of the published 93.3 %: 34,560 numbers of 6 bits, 194,560 of 16."""
    small = kv_cache_bytes(Geometry(60, 128, 128, 128, 128, 512, 64), 1, dtype=6)
    large = kv_cache_bytes(Geometry(95, 64, 8, 128), 1)
    assert (small, large) == (25_920, 389_120)


def test_head_widths_may_differ():
    assert kv_cache_bytes(Geometry(5, 6, 2, 24, 16), 1) == 5 * 2 * (24 + 16) * 2


def test_half_bytes_are_rounded_up_once():
    odd = Geometry(1, 1, 1, 1, 1, 2, 1)  # three numbers per token
    assert [kv_cache_bytes(odd, tokens, dtype="int4") for tokens in (1, 2, 3)] == [2, 3, 5]


def test_results_are_exact_beyond_double_precision():
    huge = Geometry(999, 1023, 1023, 1023)
    expected = 999 * 2 * 1023 * 1023 * 2 * (10**9 + 1) * 65_537
    assert kv_cache_bytes(huge, 10**9 + 1, batch_size=65_537) == expected
    assert expected > 2**53


def test_data_holds_each_variant_and_names_sizes_that_exist():
    sizes = CASES["MLA"][1].sizes()
    assert set(CACHE_NUMBERS) == set(VARIANTS)
    assert evaluate([(2, ("n_heads", "v_head_dim")), (3, ())], sizes) == 2 * 6 * 5 + 3
    for polynomial in CACHE_NUMBERS.values():
        assert evaluate(polynomial, sizes) > 0


def test_dtype_bits_are_torchs():
    for name, bits in DTYPE_BITS.items():
        if name != "int4":  # torch has no such tensors
            assert getattr(torch, name).itemsize * 8 == bits
    assert bits_of("int4") == 4


def test_sharing_is_its_ends():
    assert Geometry(2, 8, 8, 16).variant == "MHA"
    assert Geometry(2, 8, 1, 16).variant == "MQA"
    assert Geometry(2, 1, 1, 16).variant in {"MHA", "MQA"}  # the same thing
    assert Geometry(2, 8, 4, 16).variant == "GQA"


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((0, 8, 8, 16), "n_layers must be an integer of at least 1, got 0"),
        ((2, 8.0, 8, 16), "n_heads must be an integer of at least 1, got 8.0"),
        ((2, 8, 8, True), "head_dim must be an integer of at least 1, got True"),
        ((2, 8, 3, 16), "n_kv_heads must divide n_heads = 8, got 3"),
        ((2, 8, 8, 16, 16, 512), "must be given together, got 512 and None"),
        ((2, 8, 8, 16, -1), "v_head_dim must be an integer of at least 1, got -1"),
    ],
)
def test_bad_geometries(sizes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Geometry(*sizes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": 0}, "tokens must be an integer of at least 1, got 0"),
        ({"tokens": 1.5}, "tokens must be an integer of at least 1, got 1.5"),
        (
            {"tokens": 1, "batch_size": -2},
            "batch_size must be an integer of at least 1, got -2",
        ),
        ({"tokens": 1, "dtype": "bf16"}, "got 'bf16'"),
        ({"tokens": 1, "dtype": 0}, "dtype must be an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        kv_cache_bytes(Geometry(2, 8, 8, 16), **arguments)


V3 = Geometry(1, 128, 128, 128, 128, 512, 64, d_model=7168, q_lora_rank=1536)
LLAMA = {"n_layers": 1, "n_heads": 32, "head_dim": 128, "d_model": 4096}  # sizes of 7B and 8B
BIASED = Geometry(2, 6, 3, 4, 5, d_model=7, qkv_bias=True, o_bias=True, qk_norm=True)


def numbers_of(layer, *, but=()):
    return sum(p.numel() for name, p in layer.named_parameters() if name not in but)


@pytest.mark.parametrize("variant", CASES)
def test_parameters_are_those_of_the_layer(variant):
    layer, geometry = CASES[variant]
    geometry = replace(geometry, d_model=D_MODEL)
    assert attention_params(geometry) == LAYERS * numbers_of(layer)
    gains = LATENT["kv_lora_rank"] * (variant == "MLA")
    assert attention_params(geometry, norms=False) == LAYERS * (numbers_of(layer) - gains)


def test_parameters_with_a_latent_of_queries_and_with_biases():
    sizes = {"qk_nope_head_dim": 4, "v_head_dim": 5, "q_lora_rank": 9}
    layer = MultiHeadLatentAttention(D_MODEL, H, **sizes, **LATENT)
    geometry = Geometry(1, H, H, 4, 5, **LATENT, d_model=D_MODEL, q_lora_rank=9)
    assert attention_params(geometry) == numbers_of(layer)
    biased = GroupedQueryAttention(D_MODEL, H, 3, head_dim=4, bias=True)
    geometry = Geometry(1, H, 3, 4, d_model=D_MODEL, qkv_bias=True, o_bias=True)
    assert attention_params(geometry) == numbers_of(biased)
    without = replace(geometry, o_bias=False)
    assert attention_params(without) == numbers_of(biased, but={"o_proj.bias"})


def test_gains_of_queries_and_keys_count_once_a_layer():
    with_norms = attention_params(BIASED) - attention_params(BIASED, norms=False)
    assert with_norms == 2 * 2 * 4  # two layers, gains for query and key, four numbers each


def test_published_parameters():
    """DeepSeek-V3: arXiv 2412.19437, section 4.2; the others follow from Llama's sizes."""
    assert attention_params(V3, norms=False) == 187_105_280
    assert attention_params(V3) == 187_105_280 + 1536 + 512
    counted = {g: attention_params(Geometry(n_kv_heads=g, **LLAMA)) for g in (32, 8, 1)}
    assert counted == {32: 67_108_864, 8: 41_943_040, 1: 34_603_008}


FORM_COSTS = {  # of DeepSeek-V3, for each token seen: FLOPs, and numbers cached
    "absorbed": (278_528, 576),
    "expanded": (33_636_352, 576),
    "naive": (81_920, 40_960),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_a_token_seen_costs_in_each_form_of_mla(form):
    near, far = (decode_cost(V3, tokens, form=form) for tokens in (1000, 1001))
    assert far.core_flops - near.core_flops == FORM_COSTS[form][0]
    assert far.cache_bytes - near.cache_bytes == 2 * FORM_COSTS[form][1]
    assert near.weight_bytes == 2 * attention_params(V3)


def test_absorbed_and_naive_do_the_same_products_with_weights():
    """Absorbing carries query and result through W_UK and W_UV once, as a new token would."""
    absorbed, expanded, naive = (decode_cost(V3, 9, form=form) for form in FORMS)
    assert absorbed.projection_flops == naive.projection_flops == 2 * 187_105_280
    assert expanded.projection_flops == 2 * (187_105_280 - 512 * 128 * 256)


def test_intensities():
    """GLA paper, arXiv 2505.21487, Table 1: MHA 1, GQA H / H_kv, MQA H, MLA near 2 H."""
    ratio = {
        g: decode_cost(Geometry(n_kv_heads=g, **LLAMA), 77).core_intensity for g in (32, 8, 1)
    }
    assert ratio == {32: 1, 8: 4, 1: 32}
    assert decode_cost(V3, 77).core_intensity == pytest.approx(241.78, abs=0.005)
    assert decode_cost(V3, 77, dtype=8).core_intensity == pytest.approx(483.56, abs=0.005)
    step = decode_cost(V3, 77)
    assert step.intensity == step.flops / step.bytes
    assert step.flops == decode_flops(V3, 77) == step.projection_flops + step.core_flops
    assert step.bytes == step.weight_bytes + step.cache_bytes


def test_a_batch_multiplies_everything_but_the_weights():
    one, five = (decode_cost(V3, 77, batch_size=B) for B in (1, 5))
    assert five == Cost(
        5 * one.projection_flops, 5 * one.core_flops, one.weight_bytes, 5 * one.cache_bytes
    )
    once, often = (prefill_cost(V3, 77, batch_size=B) for B in (1, 5))
    assert (often.flops, often.bytes) == (
        5 * once.flops,
        once.weight_bytes + 5 * once.cache_bytes,
    )


def test_weights_may_have_another_dtype_than_the_cache():
    step = decode_cost(V3, 77, dtype="int8", weight_dtype="float32")
    assert step.weight_bytes == 4 * attention_params(V3)
    assert step.cache_bytes == 77 * 576


@pytest.mark.parametrize("variant", CASES)
def test_flops_are_what_torch_counts_in_a_layer(variant):
    """FlopCounterMode sees matmul, linear and attention; einsum decomposes into bmm."""
    layer, geometry = CASES[variant]
    geometry = replace(geometry, n_layers=1, d_model=D_MODEL)
    x = torch.randn(B, TOKENS, D_MODEL)
    options = {"absorb": True} if variant == "MLA" else {}
    cache = layer.new_cache(B, TOKENS)
    with torch.no_grad():
        layer(x[:, :-1], cache)
        with FlopCounterMode(display=False) as counter:
            layer(x[:, -1:], cache, return_weights=True, **options)  # no kernel's own rules
    assert counter.get_total_flops() == count_of_one_step(geometry)


def count_of_one_step(geometry):
    """What our formula says, with what the written-out form does beyond the least.

    Absorbed, it sums over whole rows of the cache and cuts the rotary part off afterwards.
    """
    extra = 2 * B * H * TOKENS * LATENT["qk_rope_head_dim"] * (geometry.variant == "MLA")
    return decode_flops(geometry, TOKENS, batch_size=B) + extra


def test_prefill_is_the_triangle():
    """Each token sees itself and earlier ones: T (T + 1) / 2 pairs, not T squared."""
    geometry = Geometry(2, 6, 3, 4, 5, d_model=7)
    pairs = sum(range(1, 12))
    cost = prefill_cost(geometry, 11)
    assert cost.core_flops == 2 * 2 * 6 * (4 + 5) * pairs
    assert cost.projection_flops == 2 * 11 * attention_params(geometry)
    assert cost.cache_bytes == kv_cache_bytes(geometry, 11)
    assert prefill_flops(geometry, 11) == cost.flops
    assert prefill_cost(V3, 11).core_flops == 81_920 * pairs  # MLA expanded


WINDOWED = Geometry(5, 6, 3, 4, d_model=7, window=4, n_window_layers=3)


def test_windows_cap_what_is_kept_and_seen():
    a_token = 3 * (4 + 4) * 2  # bytes of a layer
    for tokens, kept in ((3, 5 * 3), (4, 5 * 4), (5, 2 * 5 + 3 * 4), (9, 2 * 9 + 3 * 4)):
        assert kv_cache_bytes(WINDOWED, tokens) == kept * a_token
        assert decode_cost(WINDOWED, tokens).core_flops == 2 * 6 * 8 * kept
    pairs = 2 * sum(range(1, 10)) + 3 * sum(min(t, 4) for t in range(1, 10))
    assert prefill_cost(WINDOWED, 9).core_flops == 2 * 6 * 8 * pairs


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("geometry", [WINDOWED, V3, CASES["GQA"][1]])
def test_what_fits_fits_and_one_more_does_not(geometry, batch_size):
    for memory in (1, 5_000, 123_457):
        options = {"batch_size": batch_size, "dtype": "float32"}
        tokens = max_tokens(geometry, memory, **options)
        assert tokens == 0 or kv_cache_bytes(geometry, tokens, **options) <= memory
        assert kv_cache_bytes(geometry, tokens + 1, **options) > memory
        users = max_batch_size(geometry, memory, 11, dtype="float32")
        room = {"dtype": "float32"}
        assert users == 0 or kv_cache_bytes(geometry, 11, batch_size=users, **room) <= memory
        assert kv_cache_bytes(geometry, 11, batch_size=users + 1, **room) > memory


def test_windows_in_all_layers_set_no_limit():
    everywhere = replace(WINDOWED, n_window_layers=5)
    full = kv_cache_bytes(everywhere, 10**6)
    assert max_tokens(everywhere, full) is None
    assert max_tokens(everywhere, full - 1) == 3


def test_the_roofline_takes_the_longer_time():
    rates = {"bytes_per_second": 10.0, "flops_per_second": 100.0}
    assert roofline_seconds(50, 20, **rates) == 2.0  # reading takes longer
    assert roofline_seconds(500, 20, **rates) == 5.0  # arithmetic takes longer


def test_the_floor_adds_the_parts_and_each_waits_for_its_own():
    """Catches a floor in which the reading of weights hides behind the core's arithmetic."""
    rates = {"bytes_per_second": 10.0, "flops_per_second": 100.0}
    core_calculates = Cost(100, 900, 50, 20).floor(**rates)
    assert core_calculates == (5.0, 9.0)
    assert core_calculates.seconds == 14.0 > roofline_seconds(1000, 70, **rates)
    reads = Cost(100, 200, 50, 20)  # where both parts wait for memory, it is the whole step's
    assert reads.floor(**rates).seconds == roofline_seconds(300, 70, **rates) == 7.0


@pytest.mark.parametrize("geometry", [WINDOWED, V3], ids=["windows", "MLA"])
@pytest.mark.parametrize("form", ["absorbed", "naive"])
def test_new_tokens_together_do_the_arithmetic_of_each_and_read_once(geometry, form):
    """Catches a step of several tokens that sees too much, or reads the cache for each."""
    geometry = replace(geometry, d_model=24)
    steps = [decode_cost(geometry, tokens, batch_size=2, form=form) for tokens in (7, 8, 9)]
    together = decode_cost(geometry, 9, batch_size=2, new_tokens=3, form=form)
    assert together.flops == sum(step.flops for step in steps)
    assert together.projection_flops == 3 * steps[-1].projection_flops
    assert (together.weight_bytes, together.cache_bytes) == steps[-1][2:]
    if form == "naive":
        whole = decode_cost(geometry, 9, new_tokens=9, form=form)
        assert whole[:3] == prefill_cost(geometry, 9)[:3]


def test_new_tokens_share_what_is_expanded():
    one, two = (decode_cost(V3, 9, new_tokens=T, form="expanded") for T in (1, 2))
    naive_one, naive_two = (decode_cost(V3, 9, new_tokens=T, form="naive") for T in (1, 2))
    assert two.core_flops - one.core_flops == naive_two.core_flops - naive_one.core_flops


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decode_cost(V3, 3, new_tokens=4), "new_tokens must be at most tokens = 3"),
        (lambda: attention_params(Geometry(1, 2, 2, 4)), "d_model must be an integer"),
        (lambda: decode_cost(V3, 0), "tokens must be an integer of at least 1, got 0"),
        (lambda: prefill_cost(V3, -3), "tokens must be an integer of at least 1, got -3"),
        (lambda: decode_flops(V3, 9, form="flash"), "form must be one of absorbed, expanded,"),
        (lambda: kv_cache_bytes(WINDOWED, 9, expanded=True), "expanded must be False for GQA"),
        (lambda: max_tokens(V3, 0), "memory_bytes must be an integer of at least 1, got 0"),
        (lambda: max_batch_size(V3, 9, 0), "tokens must be an integer of at least 1, got 0"),
        (
            lambda: roofline_seconds(1, 1, bytes_per_second=0, flops_per_second=1),
            "bytes_per_second must be above 0, got 0",
        ),
        (lambda: Geometry(2, 4, 2, 8, q_lora_rank=3), "q_lora_rank must be None without MLA"),
        (lambda: replace(V3, qk_norm=True), "must be False in MLA, got False, False and True"),
        (lambda: Geometry(2, 4, 2, 8, window=3), "together, got 3 and 0"),
        (
            lambda: Geometry(2, 4, 2, 8, window=3, n_window_layers=5),
            "n_window_layers must be from 0 to n_layers = 2, got 5",
        ),
    ],
)
def test_bad_costs(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_imports_the_standard_library_only():
    """Catches a cost model that cannot be used without torch."""
    allowed = {*sys.stdlib_module_names, "attnlib.scalars"}
    for module in (costs, scalars):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.module in allowed or node.module.split(".")[0] in allowed
            elif isinstance(node, ast.Import):
                assert {a.name.split(".")[0] for a in node.names} <= allowed


@pytest.mark.parametrize(
    "count",
    [
        lambda model: kv_cache_bytes(model, 4096),
        lambda model: attention_params(model),
        lambda model: decode_flops(model, 4096),
        lambda model: prefill_flops(model, 4096),
        lambda model: costs.max_tokens(model, 2**30),
        lambda model: costs.max_batch_size(model, 2**30, 4096),
    ],
)
def test_a_model_is_taken_for_its_geometry(count):
    """Catches an AttributeError where a reader passes the model instead of its geometry."""
    model = MODELS["Llama-3 8B"]
    assert count(model) == count(model.geometry)
    with pytest.raises(ValueError, match="geometry must be a Geometry or a model, got 'Llama'"):
        count("Llama")


def test_widths_of_a_latent_need_one():
    """Catches None that travels on into a formula."""
    with pytest.raises(ValueError, match="geometry must have a latent"):
        costs.latent_widths(Geometry(1, 4, 4, 8))


@pytest.mark.parametrize("kind", [np.int32, np.int64, np.uint16, torch.tensor])
def test_sizes_from_numpy_or_torch_are_taken(kind):
    """Catches sizes from a data frame that are refused, and products that overflow."""
    sizes = {"n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "head_dim": 128, "d_model": 4096}
    plain = Geometry(**sizes)
    g = Geometry(**{name: kind(value) for name, value in sizes.items()})
    tokens, users, memory = kind(60_000), kind(5_000), kind(30_000)
    found = [
        kv_cache_bytes(g, tokens, batch_size=users, dtype=kind(6)),
        attention_params(g),
        max_tokens(g, memory, batch_size=kind(1)),
        max_batch_size(g, memory, kind(1)),
        decode_flops(g, tokens),
        prefill_flops(g, tokens),
        *decode_cost(g, tokens, batch_size=users),
        *prefill_cost(g, tokens, batch_size=users),
    ]
    assert found == [
        kv_cache_bytes(plain, 60_000, batch_size=5_000, dtype=6),
        attention_params(plain),
        max_tokens(plain, 30_000, batch_size=1),
        max_batch_size(plain, 30_000, 1),
        decode_flops(plain, 60_000),
        prefill_flops(plain, 60_000),
        *decode_cost(plain, 60_000, batch_size=5_000),
        *prefill_cost(plain, 60_000, batch_size=5_000),
    ]
    assert {type(value) for value in found} == {int}


@pytest.mark.parametrize("kind", [float, np.float64, np.bool_, bool, str])
def test_a_size_of_another_kind_is_refused(kind):
    with pytest.raises(ValueError, match="tokens must be an integer of at least 1"):
        kv_cache_bytes(MODELS["Llama-3 8B"], kind(8))


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("Gemma-3 27B", "SSSSSF"),  # 62 layers: the last repetition is cut
        ("Gemma-2 27B", "SF"),
        ("gpt-oss-120b", "SF"),
        ("Command A (03-2025)", "SSSF"),
        ("Mistral 7B v0.1", "S"),
    ],
)
def test_a_pattern_gives_the_layers_of_published_models(name, pattern):
    """Catches a pattern that is not repeated, or whose last repetition is rounded."""
    geometry = MODELS[name].geometry
    bare = replace(geometry, window=None, n_window_layers=0)
    assert costs.with_windows(bare, pattern, geometry.window) == geometry
    assert costs.with_windows(bare, "F", 5) == bare


@pytest.mark.parametrize(
    ("pattern", "window", "message"),
    [
        ("", 4, "pattern must be letters S and F, such as SSSF, got ''"),
        ("SLF", 4, "got 'SLF'"),
        ("SF", 0, "window must be an integer of at least 1, got 0"),
    ],
)
def test_bad_patterns(pattern, window, message):
    with pytest.raises(ValueError, match=message):
        costs.with_windows(Geometry(4, 6, 3, 4), pattern, window)
