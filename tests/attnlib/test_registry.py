"""The registry, and the promise that the next variant is one file and one line.

The sliding-window layer below is defined in this file alone. It keeps a ring of W entries. One
line registers it, and then every generic test, the cost model and the benchmark meet it.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from attnlib import GroupedQueryAttention, Rope, kv_cache_bytes
from attnlib.bench import Rates, measure_decode, measure_prefill, rankings, table
from attnlib.cache import room_for, storage_like
from attnlib.checks import check_forward, check_size
from attnlib.contract import AttentionLayer, Cache
from attnlib.core import attend, merge_heads, new_positions, rotate_new, split_heads
from attnlib.costs import CACHE_NUMBERS, Geometry
from attnlib.testing import check_layer
from attnlib.variants import (
    VARIANTS,
    Sizes,
    Variant,
    build_layer,
    geometries,
    register,
    unregister,
    variant_of,
)

WINDOW = 4
TESTS = Path(__file__).parent


class RingCache:
    """Keys and values of the last W tokens; the token at position p lies in row p mod W."""

    def __init__(self, batch_size, n_kv_heads, capacity, head_dim, dtype, device):
        for name, size in {"batch_size": batch_size, "capacity": capacity}.items():
            check_size(name, size)
        shape = (batch_size, n_kv_heads, min(WINDOW, capacity), head_dim)
        self.k = torch.zeros(shape, dtype=dtype, device=device)  # (B, H_kv, W, D)
        self.v = torch.zeros(shape, dtype=dtype, device=device)  # (B, H_kv, W, D)
        self.given = None  # (B, W), positions of the rows once callers gave some
        self.capacity, self.seen = capacity, 0

    @property
    def kept(self):
        return min(self.seen, self.k.shape[-2])

    @property
    def nbytes(self):
        return sum(x.nbytes for x in (self.k, self.v, self.given) if x is not None)

    def row_positions(self):
        """Position of each filled row, where all sequences stand at the same one."""
        rows = torch.arange(self.kept)
        return rows + (self.seen - 1 - rows) // self.k.shape[-2] * self.k.shape[-2]

    def update(self, k, v, *, positions=None):
        room_for(self, self.k, k, "k")
        room_for(self, self.v, v, "v")
        if positions is not None or self.given is not None:
            return self.update_given(k.detach(), v.detach(), positions)
        W, T = self.k.shape[-2], k.shape[-2]
        new_at = torch.arange(self.seen, self.seen + T)
        old, old_at = self.kept, self.row_positions()
        if T > 1:  # the first queries still see rows that the last keys replace
            all_k = torch.cat([self.k[:, :, :old], k.detach()], dim=-2)
            all_v = torch.cat([self.v[:, :, :old], v.detach()], dim=-2)
        self.k[:, :, new_at[-W:] % W] = k[:, :, -W:].detach()
        self.v[:, :, new_at[-W:] % W] = v[:, :, -W:].detach()
        self.seen += T
        if T > 1:
            return all_k, all_v, torch.cat([old_at, new_at])
        return self.k[:, :, : self.kept], self.v[:, :, : self.kept], self.row_positions()

    def update_given(self, k, v, positions):
        if positions is None:
            raise ValueError("positions must be given at each call once they were, got None")
        (B, _, W, _), T = self.k.shape, k.shape[-2]
        if self.given is None:
            self.given = torch.full((B, W), -1)
            self.given[:, : self.kept] = self.row_positions()
        positions = positions.expand(B, T)
        everything = (
            torch.cat([self.k, k], dim=-2),
            torch.cat([self.v, v], dim=-2),
            torch.cat([self.given, positions], dim=-1),
        )
        for b, t in (positions >= 0).nonzero().tolist():
            row = positions[b, t] % W
            self.k[b, :, row], self.v[b, :, row] = k[b, :, t], v[b, :, t]
            self.given[b, row] = positions[b, t]
        self.seen += T
        return everything

    def reset(self):
        self.seen, self.given = 0, None


class SlidingWindowAttention(GroupedQueryAttention):
    """Grouped-query attention in which a query sees the last W keys, its own included."""

    window = WINDOW

    def forward(self, x: Tensor, cache=None, *, positions=None, causal=True, key_mask=None,
                return_weights=False):  # fmt: skip
        """Mix each token with the last W."""
        check_forward(x, self.q_proj.in_features, cache, RingCache, positions, key_mask)
        q = split_heads(self.q_proj(x), self.n_heads)
        k = split_heads(self.k_proj(x), self.n_kv_heads)
        v = split_heads(self.v_proj(x), self.n_kv_heads)
        at = stored_at = new_positions(x, cache, positions)
        q, k = rotate_new(self.rope, at, cache, q, k)
        if cache is not None:
            k, v, stored_at = cache.update(k, v, positions=positions)
            if key_mask is not None and stored_at.ndim == 1:
                key_mask = key_mask[:, stored_at]  # of the tokens that are kept
        ring = (
            cache is not None and stored_at.ndim == 1 and x.shape[1] == 1
        )  # its rows are the window
        out, weights = attend(q, k, v, at, stored_at, causal=causal, key_mask=key_mask,
                              window=None if ring else self.window,
                              return_weights=return_weights)  # fmt: skip
        out = self.o_proj(merge_heads(out))
        return out if weights is None else (out, weights)

    def new_cache(self, batch_size, capacity, *, dtype=None, device=None):
        """Allocate an empty ring."""
        dtype, device = storage_like(self.k_proj.weight, dtype, device)
        return RingCache(batch_size, self.n_kv_heads, capacity, self.head_dim,
                         dtype, device)  # fmt: skip


def windowed(geometry):
    return geometry.window is not None and geometry.n_window_layers == geometry.n_layers


TOY = Variant(
    name="SWA",
    title="Sliding-window attention",
    layer=SlidingWindowAttention,
    color="#E69F00",
    applies=windowed,
    cache_numbers=((1, ("n_kv_heads", "head_dim")), (1, ("n_kv_heads", "v_head_dim"))),
    geometry=lambda sizes: Geometry(
        1, sizes.n_heads, sizes.n_kv_heads, sizes.head_dim, d_model=sizes.d_model,
        window=WINDOW, n_window_layers=1,
    ),
    from_geometry=lambda g, d_model, rope: SlidingWindowAttention(
        d_model, g.n_heads, g.n_kv_heads, head_dim=g.head_dim, bias=g.o_bias, rope=rope
    ),
)  # fmt: skip


def pytest_configure(config):
    """Register the toy where this file is a plugin: ``pytest -p test_registry``."""
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
    command = [sys.executable, "-m", "pytest", "-q", "-p", "test_registry", "-k", "SWA",
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
    assert geometry.variant == "SWA"
    assert "SWA" in CACHE_NUMBERS
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
    assert sum("SWA" in line for line in text.splitlines()) == 2
    assert "SWA" in rankings([row for row in rows if row.phase == "decode"])[8][0]


def test_a_removed_variant_leaves_nothing_behind(toy):
    """Catches a registry that the next test would see."""
    unregister("SWA")
    geometry = small_geometry()
    assert geometry.variant == "GQA"
    assert "SWA" not in VARIANTS
    assert "SWA" not in CACHE_NUMBERS
    with pytest.raises(ValueError, match="name must be one of MHA, GQA, MQA, MLA, got 'SWA'"):
        unregister("SWA")
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


def test_the_window_of_the_toy_is_a_window():
    """Catches a toy that proves nothing: it must differ from the layer it extends."""
    torch.manual_seed(0)
    toy = SlidingWindowAttention(22, 6, 3, head_dim=4).double()
    full = GroupedQueryAttention(22, 6, 3, head_dim=4).double()
    full.load_state_dict(toy.state_dict())
    x = torch.randn(2, 9, 22, dtype=torch.float64)
    difference = (toy(x) - full(x)).abs().amax(dim=(0, 2))  # (T,)
    assert (difference[:WINDOW] < 1e-12).all()
    assert (difference[WINDOW:] > 1e-3).all()
