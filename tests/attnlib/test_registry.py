"""The registry, and the promise that the next variant is one file and one line.

A toy is registered here and nowhere else: a window so short that the generic tests leave it.
Then every generic test, the cost model and the benchmark meet it.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attnlib import Rope, kv_cache_bytes
from attnlib.bench import Rates, measure_decode, measure_prefill, rankings, table
from attnlib.contract import AttentionLayer, Cache
from attnlib.costs import CACHE_NUMBERS
from attnlib.testing import check_layer
from attnlib.variants import (
    VARIANTS,
    Sizes,
    build_layer,
    geometries,
    register,
    swa,
    unregister,
    variant_of,
)

TESTS = Path(__file__).parent
WINDOW = 3


class ToyAttention(swa.SlidingWindowAttention):
    """The toy's layer."""


TOY = replace(
    swa.VARIANT,
    name="TOY",
    title="Toy attention",
    layer=ToyAttention,
    color="#888888",
    applies=lambda geometry: geometry.window == WINDOW,
    geometry=lambda sizes: swa.VARIANT.geometry(replace(sizes, window=WINDOW)),
    from_geometry=lambda g, d_model, rope: ToyAttention(
        d_model, g.n_heads, g.n_kv_heads, g.window, head_dim=g.head_dim, bias=g.o_bias,
        rope=rope,
    ),
)  # fmt: skip


def pytest_configure(config):
    """Register it where this file is a plugin: ``pytest -p test_registry``."""
    register(TOY)


@pytest.fixture
def toy():
    """The toy, registered for one test."""
    register(TOY)
    yield TOY
    unregister(TOY.name)


GENERIC = [
    "test_cache.py",
    "test_dtypes.py",
    "test_errors.py",
    "test_memory.py",
    "test_package.py",
    "test_positions.py",
    "test_variants.py",
]


def test_a_variant_of_one_file_passes_every_generic_test():
    """Catches a test, a helper or a core that knows the variants of today by name."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "test_registry", "-k", "TOY",
               "-p", "no:cacheprovider", *(str(TESTS / name) for name in GENERIC)]  # fmt: skip
    run = subprocess.run(command, cwd=TESTS, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
    assert " skipped" not in run.stdout


def test_a_registered_variant_has_its_properties(toy):
    """Catches checks that assume every attention sees everything."""
    reports = check_layer(build_layer(small_geometry(), rope=Rope()))
    assert reports.hold, repr(reports)


def small_geometry():
    return TOY.geometry(Sizes(24, 6, 3, kv_lora_rank=13, qk_rope_head_dim=4))


def test_a_registered_variant_is_in_the_cost_model(toy):
    """Catches a formula that is registered and not used."""
    geometry = small_geometry()
    assert geometry.variant == "TOY"
    assert "TOY" in CACHE_NUMBERS
    assert kv_cache_bytes(geometry, 1000) == WINDOW * 2 * 3 * 4 * 2
    cache = build_layer(geometry).new_cache(1, 1000, dtype=torch.bfloat16)
    assert cache.nbytes == kv_cache_bytes(geometry, 1000)


def test_a_registered_variant_is_measured(toy):
    """Catches a benchmark with a list of its own."""
    layers = geometries(Sizes(24, 6, 3, kv_lora_rank=13, qk_rope_head_dim=4))
    rates = Rates(1e9, 1e9, "cpu", "float32", 1, 1, 1)
    rows = measure_decode(layers, [8], rates=rates, steps=2)
    rows += measure_prefill(layers, [6], rates=rates, steps=2)
    text = table(rows)
    assert sum("TOY" in line for line in text.splitlines()) == 2
    assert "TOY" in rankings([row for row in rows if row.phase == "decode"])[8][0]


def test_a_removed_variant_leaves_nothing_behind(toy):
    """Catches a registry that the next test would see."""
    unregister("TOY")
    geometry = small_geometry()
    assert geometry.variant == "SWA"
    assert "TOY" not in VARIANTS
    assert "TOY" not in CACHE_NUMBERS
    with pytest.raises(ValueError, match="SWA, got 'TOY'"):
        unregister("TOY")
    register(TOY)  # the fixture removes it


def test_names_are_registered_once():
    """Catches a second variant that silently replaces the first."""
    with pytest.raises(ValueError, match="name must be new, got 'MHA'"):
        register(VARIANTS["MHA"])


@pytest.mark.parametrize("name", VARIANTS)
def test_entries_belong_together(name):
    """Catches an entry whose layer, sizes and formula are of different variants."""
    variant = VARIANTS[name]
    geometry = geometries()[name]
    layer = build_layer(geometry, device="meta")
    assert geometry.variant == name
    assert variant_of(geometry) is variant
    assert variant_of(layer) is variant
    assert isinstance(layer, variant.layer)
    assert isinstance(layer.new_cache(1, 2), Cache)
    for attribute in AttentionLayer.__annotations__:
        assert hasattr(layer, attribute), attribute


def test_colours_and_titles_differ():
    """Catches a copied entry."""
    entries = VARIANTS.values()
    assert len({entry.color for entry in entries}) == len(entries)
    assert len({entry.title for entry in entries}) == len(entries)


def test_a_layer_of_no_variant_is_refused():
    """Catches a stranger that is taken for a variant."""
    with pytest.raises(ValueError, match="thing must be a layer of a registered variant"):
        variant_of(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_heads": 0}, "n_heads must be an integer of at least 1, got 0"),
        ({"d_model": 25}, "d_model must be a multiple of n_heads = 16, got 25"),
        ({"n_kv_heads": 1}, "n_kv_heads must lie between 1 and n_heads = 16, got 1"),
        ({"n_kv_heads": 16}, "got 16"),
    ],
)
def test_sizes_of_a_comparison_fit_together(changes, message):
    """Catches a comparison of a variant with itself."""
    with pytest.raises(ValueError, match=message):
        Sizes(**changes)
