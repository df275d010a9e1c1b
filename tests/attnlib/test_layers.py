"""One sentence for every cache: published and logged figures to the printed digit."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from attnlib import MODELS, Geometry, LatentCache, kv_cache_bytes
from attnlib.layers import (
    FORMATS,
    CacheSize,
    Format,
    LayerKind,
    Part,
    cache_size,
    format_of,
    growth_bytes,
    kinds_from,
    layers_of,
    max_cached_tokens,
    step_reads,
)

SERVED = {name: model.stored for name, model in MODELS.items() if model.stored != "bfloat16"}
FULL = LayerKind(n_layers=1, name="full", n_heads=8, n_kv_heads=8, head_dim=64)


def growth(name: str, dtype: str | None = None) -> Fraction:
    model = MODELS[name]
    return growth_bytes(model, dtype=dtype or model.stored)


# Figures that others published or logged. Sources: the makers' reports and repositories, and
# issues of the programs named; each is also in the chapter or its widgets.

LADDER = {  # bytes that a further token adds
    "DeepSeek LLM 67B": 389_120,
    "DeepSeek-V2": 69_120,
    "DeepSeek-V3 / R1": 70_272,
    "DeepSeek-V3.2": 48_068,  # in fp8, with scales and index keys
    "DeepSeek-V4-Flash": 3_514,
    "DeepSeek-V4-Pro": 5_031,
    "DeepSeek-V4.1-Flash": 890,
}


@pytest.mark.parametrize("name", LADDER)
def test_the_ladder_of_deepseek(name):
    assert int(growth(name)) == LADDER[name]


def test_437_times_less_than_the_first():
    times = growth("DeepSeek LLM 67B") / growth("DeepSeek-V4.1-Flash")
    assert round(times) == 437
    assert round(growth("DeepSeek-V4-Flash") / growth("DeepSeek-V4.1-Flash"), 2) == Fraction(
        395, 100
    )


def test_v3_in_the_layout_that_flashmla_reads():
    assert growth("DeepSeek-V3 / R1", "DeepSeek fp8") == 61 * 656 == 40_016


def test_one_layer_of_kimi_k3_with_a_constant_state():
    """tokenspeed, pull request 1152, logs 6,512,640 bytes."""
    linear = next(kind for kind in MODELS["Kimi K3"].layers if kind.state_heads)
    assert cache_size([replace(linear, n_layers=1)], 1).once == 6_512_640
    assert cache_size([replace(linear, n_layers=1)], 10**6).once == 6_512_640


def test_gpt_oss_billed_as_if_it_had_no_windows():
    assert growth_bytes(MODELS["gpt-oss-120b"], windows=False) == 73_728
    assert growth_bytes(MODELS["gpt-oss-120b"]) == 36_864


def test_gemma_4_in_50_gb():
    """vLLM, issue 43308: about 55k tokens where windows are billed as full."""
    gemma = MODELS["Gemma 4 31B"]
    assert growth_bytes(gemma, windows=False) == 901_120
    assert round(max_cached_tokens(gemma, 50 * 10**9, windows=False) / 1e3, 1) == 55.5


def test_gemma_4s_global_layers_in_q5_0():
    """llama.cpp, issue 21394: 1612.19 MiB of keys, and as much of values."""
    full = next(kind for kind in MODELS["Gemma 4 31B"].layers if kind.window is None)
    both = cache_size([full], 120_064, dtype="q5_0").once
    assert round(both / 2 / 2**20, 2) == 1612.19


def test_inkling_small_on_four_devices():
    """vLLM, pull request 54705: 7,168 bytes per token and rank."""
    full = [
        replace(kind, conv_numbers=0)
        for kind in MODELS["Inkling-Small"].layers
        if kind.window is None
    ]
    one, two = (cache_size(full, tokens, devices=4) for tokens in (1, 2))
    assert two.per_device - one.per_device == 7168
    assert one.copies == 1


def test_a_third_and_more_of_gemma_4s_global_cache_could_be_left_out():
    """The rotated quarter of a key differs from the value, the rest only by a gain."""
    full = next(kind for kind in MODELS["Gemma 4 31B"].layers if kind.window is None)
    stored = full.head_dim * 2
    assert 100 * (1 - (full.head_dim + full.head_dim // 4) / stored) == 37.5


@pytest.mark.parametrize(
    ("name", "gb", "times"),
    [("gpt-oss-120b", 4.84, 2.00), ("Gemma-3 27B", 11.17, 5.96), ("Llama 4 Scout", 7.65, 3.37),
     ("Step-3.5-Flash", 6.51, 3.71), ("MiMo-V2-Flash", 3.05, 9.59)],
)  # fmt: skip
def test_windows_at_131072_tokens(name, gb, times):
    kept = cache_size(MODELS[name], 131_072).once
    assert round(kept / 1e9, 2) == gb
    assert round(cache_size(MODELS[name], 131_072, windows=False).once / kept, 2) == times


@pytest.mark.parametrize(
    ("name", "gb"), [("Gemma 4 E2B", 0.812), ("Gemma 4 E4B", 2.168), ("Gemma 4 31B", 11.576)]
)
def test_layers_that_borrow_keep_nothing(name, gb):
    model = MODELS[name]
    assert round(cache_size(model, 131_072).once / 1e9, 3) == gb
    owning = [replace(kind, borrows=None) for kind in model.layers]
    times = cache_size(owning, 131_072).once / cache_size(model, 131_072).once
    assert times > 1.7 if "shared between layers" in model.traits else times == 1


@pytest.mark.parametrize(
    ("kv_heads", "copies"),
    [(8, (1, 1, 1, 2)), (4, (1, 1, 2, 4)), (2, (1, 2, 4, 8)), (1, (2, 4, 8, 16))],
)  # fmt: skip
def test_copies_on_devices(kv_heads, copies):
    kind = replace(FULL, n_kv_heads=kv_heads)
    assert tuple(cache_size([kind], 64, devices=n).copies for n in (2, 4, 8, 16)) == copies


def test_mla_on_eight_devices():
    v3 = MODELS["DeepSeek-V3 / R1"]
    alone = cache_size(v3, 4096, batch_size=8)
    by = {how: cache_size(v3, 4096, batch_size=8, devices=8, split=how)
          for how in ("heads", "positions", "sequences")}  # fmt: skip
    assert by["heads"].per_device == alone.once and by["heads"].copies == 8
    assert by["positions"].per_device == by["sequences"].per_device == alone.once // 8
    assert by["positions"].copies == by["sequences"].copies == 1


def test_positions_are_split_and_constant_state_is_copied():
    linear = LayerKind(n_layers=2, state_heads=4, state_numbers=8)
    full = LayerKind(n_layers=1, name="full", n_kv_heads=1, head_dim=2)
    found = cache_size([linear, full], 10, devices=4, split="positions")
    assert found == CacheSize(2 * 4 * 8 * 4 + 10 * 8, 2 * 4 * 8 * 4 + 3 * 8, 4)


# What one sentence means


def test_entries_of_each_rule():
    seen = {rule: [Part("kv", 1, 1, rule, 3).entries(n) for n in range(1, 8)]
            for rule in ("all", "window", "chunk", "stride", "constant")}  # fmt: skip
    assert seen == {
        "all": [1, 2, 3, 4, 5, 6, 7],
        "window": [1, 2, 3, 3, 3, 3, 3],
        "chunk": [1, 2, 3, 3, 3, 3, 3],
        "stride": [0, 0, 1, 1, 1, 2, 2],
        "constant": [1] * 7,
    }


def test_pages_hold_every_entry_and_little_more():
    """Counts the pages that the kept positions really lie on."""
    for rule in ("all", "window", "chunk", "stride"):
        for tokens in range(1, 40):
            for page in (1, 4, 16):
                part = Part("kv", 1, 1, rule, 6)
                least = part.entries(tokens)
                first = tokens - least if rule == "window" else 0
                pages = {position // page for position in range(first, first + least)}
                assert part.entries(tokens, page) == page * len(pages)


def test_like_layers_count_as_before():
    for model in MODELS.values():
        if model.geometry is None or model.kind == "encoder":
            continue
        for tokens, batch_size, dtype in ((1, 1, "bfloat16"), (5000, 3, "float32"), (77, 2, 6)):
            old = kv_cache_bytes(model, tokens, batch_size=batch_size, dtype=dtype)
            found = cache_size(model, tokens, batch_size=batch_size, dtype=dtype)
            assert found == CacheSize(old, old)


@pytest.mark.parametrize("name", [n for n, m in MODELS.items() if m.geometry is None])
def test_the_count_is_what_tensors_take(name):
    """Builds every layer's cache out of attnlib's own caches, or plain tensors."""
    B, tokens, measured = 2, 300, 0
    for kind in MODELS[name].layers:
        kept = next((p.entries(tokens) for p in kind.parts if p.keeps != "constant"), 0)
        half = {"dtype": torch.bfloat16}
        if kind.n_kv_heads and not kind.borrows:
            for width in (kind.head_dim, kind.v_head_dim or kind.head_dim):
                measured += (
                    kind.n_layers * torch.empty(B, kind.n_kv_heads, kept, width, **half).nbytes
                )
        width = kind.kv_lora_rank or kind.shared_kv_dim - kind.qk_rope_head_dim
        for n in (0 if kind.borrows else kept, min(tokens, kind.recent)):
            if width > 0 and n:
                cache = LatentCache(B, n, width, kind.qk_rope_head_dim, **half)
                measured += kind.n_layers * cache.nbytes
        if kind.index_dim and not kind.borrows:
            measured += kind.n_layers * B * kept * kind.index_dim * 2
        state = torch.zeros(B, kind.state_heads, kind.state_numbers)
        convolution = torch.zeros(B, kind.conv_numbers, dtype=torch.bfloat16)
        measured += kind.n_layers * (state.nbytes + convolution.nbytes)
    assert cache_size(MODELS[name], tokens, batch_size=B).once == measured


@pytest.mark.parametrize(
    ("dtype", "width", "bits"),
    [("q8_0", 64, 2 * 34 * 8), ("q5_0", 32, 22 * 8), ("q4_0", 33, 33 * 4 + 32),
     ("bfloat16", 7, 112),
     (torch.float8_e4m3fn, 8, 64), (6, 3, 18), ("nvfp4", 512, 288 * 8), ("mxfp4", 128, 68 * 8)],
)  # fmt: skip
def test_formats_with_their_scales(dtype, width, bits):
    assert format_of(dtype, "kv").row_bits(width) == bits


def test_layouts():
    row = {part: format_of("DeepSeek fp8", part).row_bits(n) // 8
           for part, n in (("latent", 512), ("rotary", 64), ("index", 128))}  # fmt: skip
    assert row == {"latent": 528, "rotary": 128, "index": 132}
    v4 = [
        format_of("DeepSeek-V4", part).row_bits(n)
        for part, n in (("shared", 448), ("rotary", 64))
    ]
    assert sum(v4) == 584 * 8
    assert format_of("int8", "state") == Format(32)
    assert set(SERVED.values()) <= set(FORMATS)


def test_what_fits_is_the_most_that_fits():
    for name in ("gpt-oss-120b", "Kimi K3", "DeepSeek-V4-Flash", "Gemma 4 E4B"):
        for memory in (2 * 10**9, 80 * 10**9):
            tokens = max_cached_tokens(MODELS[name], memory, batch_size=3)
            assert cache_size(MODELS[name], tokens, batch_size=3).per_device <= memory
            assert cache_size(MODELS[name], tokens + 1, batch_size=3).per_device > memory
    assert max_cached_tokens([FULL], 1) == 0
    assert max_cached_tokens([replace(FULL, window=4)], 4 * 2048) is None


# What a step reads


def test_a_step_reads_what_is_kept_where_nothing_is_chosen():
    for name in ("gpt-oss-120b", "Gemma-3 27B", "Llama-3 8B", "DeepSeek-V3 / R1"):
        model = MODELS[name]
        assert step_reads(model, 4096).bytes == cache_size(model, 4096).once


def test_flops_are_those_of_the_cost_model():
    from attnlib.costs import decode_cost

    for name in ("gpt-oss-120b", "Llama-3 8B", "DeepSeek-V3 / R1", "PaLM 8B"):
        expected = decode_cost(MODELS[name].geometry, 4096).core_flops
        assert step_reads(MODELS[name], 4096).flops == expected


@pytest.mark.parametrize(
    ("tokens", "less"),
    [(2048, 0.83), (4096, 1.43), (8192, 2.22), (32_768, 3.79), (131_072, 4.61)],
)
def test_an_indexer_saves_reading_and_not_keeping(tokens, less):
    """DeepSeek-V3.2 in its fp8 layout, against the same without an indexer."""
    sparse = MODELS["DeepSeek-V3.2"]
    dense = [replace(kind, index_dim=0, index_heads=0, top_k=None) for kind in sparse.layers]
    reads = [step_reads(m, tokens, dtype="DeepSeek fp8").bytes for m in (dense, sparse)]
    assert round(reads[0] / reads[1], 2) == less
    assert cache_size(sparse, tokens, dtype="DeepSeek fp8").once * 40_016 == (
        cache_size(dense, tokens, dtype="DeepSeek fp8").once * 48_068
    )


def test_a_chunk_that_has_just_begun_is_read_in_part():
    chunk = replace(FULL, chunk=8)
    assert [step_reads([chunk], n).bytes // 2048 for n in (7, 8, 9, 16)] == [7, 8, 1, 8]
    assert [cache_size([chunk], n).once // 2048 for n in (7, 8, 9, 16)] == [7, 8, 8, 8]


def test_layers_that_borrow_read_all_the_same():
    shared = [FULL, replace(FULL, n_layers=3, name="", borrows="full")]
    assert step_reads(shared, 10).bytes == 4 * cache_size(shared, 10).once


# What is refused


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"n_layers": 0}, "n_layers must be an integer of at least 1, got 0"),
        ({"window": 0}, "window must be an integer of at least 1, got 0"),
        ({"chunk": -1}, "chunk must be an integer of at least 1, got -1"),
        ({"stride": 0}, "stride must be an integer of at least 1, got 0"),
        ({"head_dim": -2}, "head_dim must be an integer of at least 0, got -2"),
        ({"top_k": 0}, "top_k must be an integer of at least 1, got 0"),
        ({"window": 4, "chunk": 8}, "one of window, chunk and stride may be given"),
    ],
)
def test_bad_kinds(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        replace(FULL, **changes)


def test_borrowing_from_a_later_layer():
    with pytest.raises(ValueError, match=r"borrows must name an earlier kind .*got 'full'"):
        layers_of([replace(FULL, name="", borrows="full"), FULL])
    with pytest.raises(ValueError, match="borrows must name an earlier kind"):
        kinds_from([{"n_layers": 1, "borrows": "x"}])
    with pytest.raises(ValueError, match="borrows must name an earlier kind"):
        layers_of([replace(FULL, name=""), replace(FULL, borrows="")])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"tokens": 0}, "tokens must be an integer of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be"),
        ({"page": 0}, "page must be"),
        ({"devices": 0}, "devices must be"),
        ({"devices": 3}, "devices must divide the 8 heads of a layer or be a multiple .*got 3"),
        ({"split": "layers"}, "split must be one of heads, positions, sequences, got 'layers'"),
        ({"dtype": "fp7"}, "dtype must be one of .*DeepSeek-V4.*got 'fp7'"),
        ({"dtype": "DeepSeek-V4"}, "dtype DeepSeek-V4 stores shared, rotary, index and no kv"),
        ({"model": []}, "model must be a model, a Geometry or LayerKinds, got"),
        ({"model": "Llama-3 8B"}, "model must be a model, a Geometry or LayerKinds, got"),
    ],
)
def test_bad_counts(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        cache_size(**{"model": [FULL], "tokens": 8, **options})


def test_other_bad_input():
    with pytest.raises(ValueError, match="memory_bytes must be"):
        max_cached_tokens([FULL], 0)
    with pytest.raises(ValueError, match="n_heads must be"):
        step_reads([replace(FULL, n_heads=None)], 8)
    with pytest.raises(ValueError, match="Kimi K3, whose layers differ"):
        kv_cache_bytes(MODELS["Kimi K3"], 8)


def test_a_geometry_with_windows_has_two_kinds():
    kinds = layers_of(Geometry(5, 8, 2, 64, window=16, n_window_layers=3))
    assert [(kind.name, kind.n_layers, kind.window) for kind in kinds] == [
        ("window", 3, 16), ("full", 2, None)]  # fmt: skip


def test_the_module_needs_the_standard_library_alone():
    code = "import sys; sys.modules['torch'] = None; import importlib.util as u\n"
    code += "import types; a = types.ModuleType('attnlib'); a.__path__ = [sys.argv[1]]\n"
    code += "sys.modules['attnlib'] = a; import attnlib.layers; print('fine')"
    folder = __import__("attnlib").__path__[0]
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True)
    assert done.stdout == "fine\n", done.stderr
