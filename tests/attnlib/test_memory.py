"""What is never held: the score matrix, and keys and values repeated for every head."""

import pytest
import torch
from helpers import (
    CASES,
    D_MODEL,
    GEOMETRIES,
    LATENT,
    VARIANTS,
    B,
    D,
    H,
    has_latent,
    hidden,
    make,
)

from attnlib.testing.allocations import AllocationRecorder

LONG, PAST = 96, 32  # T >> D, so that B * H * T * S is far above everything else
FUSED = "_scaled_dot_product_flash_attention_for_cpu"


def fused_kernels(recorder):
    """How many times the CPU's fused kernel ran."""
    return sum(FUSED in name for name in recorder.operators)


def largest_mask(recorder, keys):
    """The most elements of a float tensor whose rows are LONG queries by so many keys."""
    tables = [entry.numel for entry in recorder.allocations if entry.shape[-2:] == (LONG, keys)]
    return max(tables, default=0)


def record(layer, x, cache=None, **options):
    with AllocationRecorder() as recorder:
        layer(x, cache, **options)
    return recorder


def filled(layer, tokens, *, room):
    """A cache that holds so many tokens, with room for some more."""
    cache = layer.new_cache(B, tokens + room)
    layer(hidden(tokens=tokens, dtype=layer.o_proj.weight.dtype, seed=4), cache)
    return cache


# MLA in both of its forms; the others have one.
LATENT_CASES = [case for case in CASES if has_latent(case)]
FORMS = [
    (case, dict(options))
    for case in CASES
    for options in VARIANTS[GEOMETRIES[case].variant].forms.values()
]
FORMS += [(case, {}) for case in LATENT_CASES]  # the form is free
GROUPED = {case: 1 < GEOMETRIES[case].n_kv_heads < H for case in CASES}
EVERY_FORM = pytest.mark.parametrize(("variant", "form"), FORMS, ids=str)
# At decode the expanded form makes keys and values of all that is cached: its nature.
LEAN_FORMS = [(variant, form) for variant, form in FORMS if form.get("absorb") is not False]
FLOATS = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])


@EVERY_FORM
@FLOATS
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("past", [0, PAST], ids=["prefill", "chunk"])
def test_no_score_matrix_is_held(variant, form, dtype, causal, padded, past):
    """Catches SDPA's math fallback and any T x S matrix for each head."""
    layer = make(variant, dtype)
    cache = filled(layer, past, room=LONG) if past else None
    options = {"causal": causal, **form}
    if padded:
        options["key_mask"] = torch.arange(past + LONG).expand(B, -1) > 2
    recorder = record(layer, hidden(tokens=LONG, dtype=dtype), cache, **options)
    scores = B * H * LONG * (past + LONG)
    assert recorder.largest().numel < scores, recorder.largest()
    # A mask for each sequence, never for each head; groups let the sequences take turns.
    assert largest_mask(recorder, past + LONG) <= B * LONG * (past + LONG)
    turns = B if padded and GROUPED[variant] else 1
    assert fused_kernels(recorder) == turns, recorder.operators


@EVERY_FORM
def test_training_holds_no_score_matrix(variant, form):
    """Catches a backward pass that needs the weights."""
    layer, x = make(variant, torch.float32), hidden(tokens=LONG, dtype=torch.float32)
    with AllocationRecorder() as recorder:
        layer(x, **form).sum().backward()
    assert recorder.largest().numel < B * H * LONG * LONG, recorder.largest()


@EVERY_FORM
def test_the_recorder_sees_a_score_matrix(variant, form):
    """Catches a recorder that sees nothing: with weights asked for, the matrix is there."""
    layer, x = make(variant, torch.float32), hidden(tokens=LONG, dtype=torch.float32)
    recorder = record(layer, x, return_weights=True, **form)
    assert recorder.largest().numel >= B * H * LONG * LONG
    assert not any(FUSED in name for name in recorder.operators)


def test_the_recorder_sees_the_math_fallback():
    """Catches a recorder that is blind inside SDPA."""
    q = torch.randn(B, H, LONG, D)
    backend = torch.nn.attention.SDPBackend.MATH
    with torch.nn.attention.sdpa_kernel(backend), AllocationRecorder() as recorder:
        torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True)
    assert recorder.largest().numel >= B * H * LONG * LONG
    assert any("softmax" in name for name in recorder.operators)


@FLOATS
@pytest.mark.parametrize("variant", [case for case in CASES if GEOMETRIES[case].n_kv_heads < H])
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
def test_decode_reads_shared_keys_unrepeated(variant, dtype, padded):
    """Catches repeat_interleave and enable_gqa, which read G times the cache."""
    layer = make(variant, dtype)
    cache = filled(layer, PAST, room=1)
    key_mask = torch.arange(PAST + 1).expand(B, -1) > 2 if padded else None
    recorder = record(layer, hidden(tokens=1, dtype=dtype), cache, key_mask=key_mask)
    assert recorder.largest().numel < B * H * (PAST + 1) * D, recorder.largest()
    products = dtype == torch.float32 and not padded  # which the CPU does faster unfused
    assert fused_kernels(recorder) == (0 if products else 1), recorder.operators


@FLOATS
@pytest.mark.parametrize("variant", LATENT_CASES)
def test_decode_never_expands_the_latents(variant, dtype):
    """Catches re-expansion of the whole cache at each step, also when the form is free."""
    layer = make(variant, dtype)
    past = 256
    cache = filled(layer, past, room=2)
    recorder = record(layer, hidden(tokens=1, dtype=dtype), cache)
    widest_row = LATENT["kv_lora_rank"] + LATENT["qk_rope_head_dim"]
    assert widest_row < H * LATENT["qk_nope_head_dim"]
    of_cache = [
        entry for entry in recorder.allocations if entry.numel > B * (past + 2) * widest_row
    ]
    assert not of_cache, of_cache
    assert fused_kernels(recorder) == (0 if dtype == torch.float32 else 1), recorder.operators
    expanded = record(layer, hidden(tokens=1, dtype=dtype), cache, absorb=False)
    assert expanded.largest().numel >= B * past * H * LATENT["qk_nope_head_dim"]


VIEWS = ("slice", "view", "unsqueeze", "expand", "transpose", "select", "split", "detach",
         "permute", "alias", "aten.t.")  # fmt: skip


@FLOATS
@pytest.mark.parametrize(("variant", "form"), LEAN_FORMS, ids=str)
def test_decode_copies_neither_cache_nor_weights(variant, form, dtype):
    """Catches cat, clone or contiguous of cached tokens, and weights copied for each row."""
    layer = make(variant, dtype)
    cache = filled(layer, PAST, room=1)
    recorder = record(layer, hidden(tokens=1, dtype=dtype), cache, **form)
    new_tokens = B * H * 20  # more than one token of each row needs, less than W_UK
    scores = B * H * (PAST + 1)  # of one query: the size of no cache and of no weight
    copies = [
        entry
        for entry in recorder.allocations
        if entry.numel >= new_tokens
        and entry.numel != scores
        and not any(view in entry.operator for view in VIEWS)
    ]
    assert not copies, copies


def test_sizes_make_the_matrix_stand_out():
    """Catches an edit of the sizes that would let projections outweigh the scores."""
    widest = max(D_MODEL, H * (8 + 15), H * (13 + 4))  # of any row per token
    assert 3 * B * (LONG + PAST) * widest < B * H * LONG * LONG
