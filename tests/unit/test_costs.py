"""The cost model against the tensors of real caches, and against published numbers."""

import ast
import re
import sys
from pathlib import Path

import pytest
import torch

from attnlib import (
    GroupedQueryAttention,
    MultiHeadAttention,
    MultiHeadLatentAttention,
    MultiQueryAttention,
    costs,
)
from attnlib.costs import CACHE_NUMBERS, DTYPE_BITS, Geometry, bits_of, evaluate, kv_cache_bytes

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


PUBLISHED = {  # bytes a token in bfloat16; the sources are in shared/facts/models.json
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
    odd = Geometry(1, 1, 1, 1, 1, 2, 1)  # three numbers a token
    assert [kv_cache_bytes(odd, tokens, dtype="int4") for tokens in (1, 2, 3)] == [2, 3, 5]


def test_results_are_exact_beyond_double_precision():
    huge = Geometry(999, 1023, 1023, 1023)
    expected = 999 * 2 * 1023 * 1023 * 2 * (10**9 + 1) * 65_537
    assert kv_cache_bytes(huge, 10**9 + 1, batch_size=65_537) == expected
    assert expected > 2**53


def test_data_holds_each_variant_and_names_sizes_that_exist():
    sizes = CASES["MLA"][1].sizes()
    assert set(CACHE_NUMBERS) == {"MHA", "GQA", "MQA", "MLA"}
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


def test_imports_the_standard_library_only():
    tree = ast.parse(Path(costs.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module.split(".")[0] in sys.stdlib_module_names
        elif isinstance(node, ast.Import):
            assert {a.name.split(".")[0] for a in node.names} <= set(sys.stdlib_module_names)
