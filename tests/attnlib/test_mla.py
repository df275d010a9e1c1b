"""Multi-head latent attention: its two forms, and what is particular to it."""

import pytest
import torch
from helpers import LATENT, Q_LATENT, B, H, T, close, hidden, left_padding, mla, randomise, turn
from test_variants import in_chunks

from attnlib import MultiHeadLatentAttention, Rope

BUILDS = {
    "plain": lambda: mla(),
    "query latent, interleaved": lambda: mla(**Q_LATENT, rope=Rope(interleaved=True)),
    "values narrower than the rotary key": lambda: mla(v_head_dim=3),
    "latent narrower than a head": lambda: mla(kv_lora_rank=5),
}
EVERY_BUILD = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


def deepseek_v3():
    """DeepSeek-V3's layer without its numbers; sizes from arXiv 2412.19437, section 4.2."""
    with torch.device("meta"):
        return MultiHeadLatentAttention(
            7168, 128, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
            v_head_dim=128, q_lora_rank=1536,
        )  # fmt: skip


@EVERY_BUILD
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [False, True])
def test_absorbed_equals_expanded(build, causal, padded):
    """Catches a scale by the latent's width, W_UK and W_UV swapped, or not per head."""
    layer, x = randomise(build()), hidden()
    options = {"causal": causal, "return_weights": True}
    if padded:
        options["key_mask"] = left_padding([0, 2, 5, 1, 3], T)
    absorbed, absorbed_weights = layer(x, absorb=True, **options)
    expanded, expanded_weights = layer(x, absorb=False, **options)
    close(absorbed, expanded)
    close(absorbed_weights, expanded_weights)
    options["return_weights"] = False
    close(layer(x, absorb=True, **options), expanded)
    close(layer(x, absorb=False, **options), expanded)


@EVERY_BUILD
@pytest.mark.parametrize("absorb", [True, False, None])
def test_cached_equals_one_pass_in_every_form(build, absorb):
    """Catches a form that is right without a cache only; forms may also take turns."""
    layer, x = randomise(build()), hidden()
    expected = layer(x, absorb=False)
    for sizes in ([1] * T, [4, 1, 2], [2, 5]):
        close(in_chunks(layer, x, sizes, absorb=absorb), expected)
    cache = layer.new_cache(B, T)
    mixed = [layer(x[:, t : t + 1], cache, absorb=t % 2 == 0) for t in range(T)]
    close(torch.cat(mixed, dim=1), expected)


@EVERY_BUILD
def test_both_forms_have_the_same_gradients(build):
    """Catches an absorbed form that training could not use."""
    layer, x = randomise(build()), hidden()
    parameters = list(layer.parameters())
    gradients = [
        torch.autograd.grad((layer(x, absorb=absorb) * hidden(seed=3)).sum(), parameters)
        for absorb in (True, False)
    ]
    for a, b in zip(*gradients, strict=True):
        assert (a != 0).all()
        close(a, b, tolerance=1e-10)


def test_a_row_holds_the_normalised_latent_and_the_turned_key():
    """Catches the norm taken over latent and key together, and a key stored unturned."""
    layer, x = randomise(mla()), hidden()
    cache = layer.new_cache(B, T)
    layer(x, cache)
    row = layer.kv_a_proj_with_mqa(x)
    d_c = layer.kv_lora_rank
    latent = row[..., :d_c] / (row[..., :d_c].square().mean(-1, keepdim=True) + 1e-6).sqrt()
    key = turn(layer.rope, row[:, :, None, d_c:])[:, :, 0]
    (stored,) = (value for value in vars(cache).values() if isinstance(value, torch.Tensor))
    close(stored[:, :T], torch.cat([latent * layer.kv_a_layernorm.weight, key], dim=-1))


@pytest.mark.parametrize("absorb", [True, False])
def test_positions_enter_through_the_rotary_key_alone(absorb):
    """Catches a rotation of the latent's part: without the rotary key order is lost."""
    layer, x = randomise(mla()), hidden()
    with torch.no_grad():
        layer.kv_a_proj_with_mqa.weight[layer.kv_lora_rank :] = 0
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    out = layer(x, causal=False, absorb=absorb)
    close(layer(x[:, order], causal=False, absorb=absorb), out[:, order])


def test_absorption_changes_the_order_of_products_only():
    """Catches weights multiplied out: the absorbed form reads kv_b_proj as it is stored."""
    layer, x = randomise(mla()), hidden()
    before = layer(x, absorb=True)
    with torch.no_grad():
        layer.kv_b_proj.weight.mul_(1.5)
    assert (layer(x, absorb=True) - before).abs().max() > 1e-3
    close(layer(x, absorb=True), layer(x, absorb=False))


def test_form_is_chosen_by_cost():
    """Catches decoding that expands the whole cache, and prefilling in the latent's width."""
    layer = deepseek_v3()
    assert layer.choose_form(None, 1, 8192) == layer.attend_absorbed
    assert layer.choose_form(None, 8192, 8192) == layer.attend_expanded
    assert layer.choose_form(True, 8192, 8192) == layer.attend_absorbed
    assert layer.choose_form(False, 1, 8192) == layer.attend_expanded


def test_forms_of_deepseek_v3_cost_the_same_near_170_new_tokens():
    """Catches a wrong FLOP count: they meet at 512 * 256 / (2 * 512 - 256) = 170.67 queries."""
    layer, long = deepseek_v3(), 10**9
    assert layer.choose_form(None, 170, long) == layer.attend_absorbed
    assert layer.choose_form(None, 171, long) == layer.attend_expanded


@pytest.mark.parametrize(("tokens", "cached"), [(1, 6), (7, 0), (3, 4)])
def test_the_form_chosen_is_the_one_that_runs(monkeypatch, tokens, cached):
    """Catches a choice by tokens of this call alone, or one that forward overrules."""
    layer, x = randomise(mla()), hidden()
    cache = layer.new_cache(B, T)
    if cached:
        layer(x[:, :cached], cache)
    asked = []

    def spy(absorb, T, S):
        asked.append((absorb, T, S))
        return layer.attend_absorbed

    monkeypatch.setattr(layer, "choose_form", spy)
    layer(x[:, cached : cached + tokens], cache)
    assert asked == [(None, tokens, cached + tokens)]


def test_deepseek_v3_has_187_million_parameters():
    """Catches a projection too many or too wide: 187,105,280 per layer without the norms."""
    matrices = [p.numel() for p in deepseek_v3().parameters() if p.ndim == 2]
    assert sum(matrices) == 187_105_280


def test_heads_share_one_rotary_key():
    """Catches a rotary key for each head: the projection has room for one."""
    layer = mla()
    rows = LATENT["kv_lora_rank"] + LATENT["qk_rope_head_dim"]
    assert layer.kv_a_proj_with_mqa.weight.shape[0] == rows
    assert layer.q_proj.weight.shape[0] == H * (8 + LATENT["qk_rope_head_dim"])
