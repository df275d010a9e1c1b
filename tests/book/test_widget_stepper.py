"""The MLA stepper counts what attnlib's own layers do, and turns keys by attnlib's RoPE."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from attnlib import KVCache, MultiHeadLatentAttention, apply_rope, rope_angles
from attnlib.book.widgets import MlaStepper
from attnlib.book.widgets.base import unpack
from attnlib.book.widgets.stepper import DISTANCES, decode_cost
from attnlib.costs import Geometry, kv_cache_bytes

SMALL = {
    "n_heads": 6, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 10,
    "kv_lora_rank": 20,
}  # fmt: skip
V3 = {
    "n_heads": 128, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "kv_lora_rank": 512,
}  # fmt: skip
S = 24


def costs(sizes: dict, tokens: int, **options) -> list[dict]:
    widget = MlaStepper(**sizes, tokens=[tokens], **options)
    return [decode_cost(form, widget.data["sizes"], tokens) for form in widget.data["forms"]]


def counted(form: str, sizes: dict, tokens: int) -> int:
    """Return torch's count while one query attends to that many rows of a cache."""
    H, n, rho, _, r = sizes.values()
    layer = MultiHeadLatentAttention(48, **sizes).requires_grad_(False)
    attend = {"expanded": layer.attend_expanded, "absorbed": layer.attend_absorbed}[form]
    q_nope, q_rope = torch.zeros(1, H, 1, n), torch.zeros(1, H, 1, rho)
    entries, positions = torch.zeros(1, tokens, r + rho), torch.arange(tokens)
    with FlopCounterMode(display=False) as counter:
        attend(q_nope, q_rope, entries, positions[-1:], positions, return_weights=True)
    return counter.get_total_flops()


@pytest.mark.parametrize("sizes", [SMALL, V3], ids=["small", "V3"])
def test_flops_of_a_latent_cache_are_what_torch_counts_in_attnlibs_forms(sizes):
    _, expanded, absorbed = costs(sizes, S)
    assert expanded["flops"] == counted("expanded", sizes, S)
    wasted = 2 * sizes["n_heads"] * S * sizes["qk_rope_head_dim"]  # mixed rotary keys, cut off
    assert absorbed["flops"] == counted("absorbed", sizes, S) - wasted


def test_flops_with_keys_cached_are_the_expanded_ones_but_for_the_old_tokens_expansion():
    kept, expanded, _ = costs(SMALL, S)
    H, n, _, v, r = SMALL.values()
    with FlopCounterMode(display=False) as counter:
        torch.zeros(S - 1, r) @ torch.zeros(r, H * (n + v))
    assert kept["flops"] == expanded["flops"] - counter.get_total_flops()


def test_products_of_the_absorbed_form_add_no_cost_for_old_tokens_outside_the_core():
    """Carrying the query in and out costs the same with 1 cached token and with 1,000."""
    few, many = costs(SMALL, 1)[2]["products"], costs(SMALL, 1000)[2]["products"]
    assert (few[0], few[3]) == (many[0], many[3])
    assert (1000 * few[1], 1000 * few[2]) == (many[1], many[2])


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float8_e4m3fn"])
def test_bytes_are_those_of_attnlibs_caches(dtype):
    with torch.device("meta"):
        layer = MultiHeadLatentAttention(48, **SMALL)
        latent = layer.new_cache(1, S, dtype=getattr(torch, dtype)).nbytes
        keys = KVCache(1, 6, S, 8 + 4, dtype=getattr(torch, dtype)).nbytes
        values = KVCache(1, 6, S, 10, dtype=getattr(torch, dtype)).nbytes
    kept, expanded, absorbed = costs(SMALL, S, dtype=dtype)
    assert kept["bytes"] == keys // 2 + values // 2
    assert expanded["bytes"] == absorbed["bytes"] == latent


def test_bytes_are_those_of_the_cost_model():
    kept, expanded, _ = costs(V3, 8192)
    wide = Geometry(1, 128, 128, 128 + 64, 128)
    latent = Geometry(1, 128, 128, 128, kv_lora_rank=512, qk_rope_head_dim=64)
    assert kept["bytes"] == kv_cache_bytes(wide, 8192)
    assert expanded["bytes"] == kv_cache_bytes(latent, 8192)


def test_deepseek_v3_by_hand():
    """Each further token costs what facts.md, section 13, works out for DeepSeek-V3."""
    one, two = costs(V3, 1000), costs(V3, 1001)
    per_token = [
        (b["flops"] - a["flops"], b["bytes"] - a["bytes"])
        for a, b in zip(one, two, strict=True)
    ]
    assert per_token == [(81_920, 2 * 40_960), (33_636_352, 2 * 576), (278_528, 2 * 576)]
    assert one[2]["flops"] - 1000 * 278_528 == 2 * 128 * 512 * (128 + 128)


def test_factors_fit_each_other_and_their_flops():
    """A drawn product m x k times k x n counts 2 m k n FLOPs for each head."""
    for form in MlaStepper(**SMALL, tokens=[S]).data["forms"]:
        counts = decode_cost(form, {**SMALL, "itemsize": 2}, S)["products"]
        for product, count in zip(form["products"], counts, strict=True):
            sides = [
                [S if side == "S" else side for side in (m["rows"], m["columns"])]
                for m in product["matrices"]
            ]
            (m, k), (k2, n), result = sides
            assert k == k2 and result == [m, n], product["name"]
            assert count == 2 * SMALL["n_heads"] * m * k * n, product["name"]


def test_parts_of_a_matrix_add_up_to_its_side():
    for form in MlaStepper(**SMALL).data["forms"]:
        for product in form["products"]:
            for drawn in product["matrices"]:
                total = sum(length for length, _ in drawn["parts"] if length != "S")
                sides = {drawn["rows"], drawn["columns"]}
                assert total in sides or sides == {1, "S"}, drawn["name"]


def numbers(packed: dict) -> torch.Tensor:
    shares = torch.tensor(unpack(packed["packed"]), dtype=torch.float64)
    return (2 * shares - 1) * packed["limit"]


def test_the_rotation_between_gives_the_scores_of_turned_queries_and_keys():
    """A transposed rotation, or one by the wrong distance, gives other scores."""
    rotation = MlaStepper().data["rotation"]
    d_model, D, d_c = rotation["shape"]
    w_q, w_uk = (
        numbers(rotation["w_q"]).view(d_model, D),
        numbers(rotation["w_uk"]).view(D, d_c),
    )
    products = numbers(rotation["products"]).view(-1, d_model, d_c)
    between = numbers(rotation["rotations"]).view(-1, D, D)
    torch.manual_seed(0)
    h, c = (
        torch.randn(1, d_model, dtype=torch.float64),
        torch.randn(1, d_c, dtype=torch.float64),
    )
    for distance in DISTANCES:
        cos, sin = rope_angles(torch.tensor([7 + distance, 7]), D)
        q = apply_rope(h @ w_q, cos[:1], sin[:1])
        k = apply_rope(c @ w_uk.T, cos[1:], sin[1:])
        for middle in (products[distance], w_q @ between[distance] @ w_uk):
            assert torch.allclose(h @ middle @ c.T, q @ k.T, atol=5e-3)
        change = (products[distance] - products[0]).abs().max().item()
        assert rotation["changes"][distance] == pytest.approx(change, abs=0.006)
    assert rotation["changes"][0] == 0 and min(rotation["changes"][1:]) > 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 0}, "n_heads .* got 0"),
        ({"qk_nope_head_dim": -1}, "qk_nope_head_dim .* got -1"),
        ({"qk_rope_head_dim": 63}, "qk_rope_head_dim .* got 63"),
        ({"v_head_dim": 1.5}, "v_head_dim .* got 1.5"),
        ({"kv_lora_rank": 0}, "kv_lora_rank .* got 0"),
        ({"tokens": []}, "tokens .* got none"),
        ({"tokens": [8, 0]}, "tokens .* got 0"),
        ({"dtype": "bfloat61"}, "dtype .* got 'bfloat61'"),
        ({"dtype": "int4"}, "dtype .* got 'int4'"),
        ({"cached": 5000}, "cached .* got 5000"),
        ({"step": 4}, "step .* got 4"),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        MlaStepper(**options)


def test_a_state_that_cannot_be_shown_is_refused_and_the_old_one_stays():
    widget = MlaStepper(cached=8192, step=1)
    for name, value in (("step", -1), ("cached", 100), ("distance", 33)):
        with pytest.raises(ValueError, match=name):
            setattr(widget, name, value)
    assert widget.state() == {"step": 1, "cached": 8192, "distance": 3}


def test_fallback_holds_the_numbers_of_all_steps():
    widget = MlaStepper(cached=8192)
    text = widget.fallback()
    for cost in costs(V3, 8192):
        for number in (cost["bytes"], cost["flops"], *cost["products"]):
            assert f"<td>{number:,}</td>" in text
    assert "<td>1.1</td>" in text and "<td>29,198.2</td>" in text and "<td>245.3</td>" in text
    assert f"<td>{widget.data['rotation']['changes'][32]:.2f}</td>" in text


def test_equal_widgets_give_equal_html():
    assert MlaStepper().html() == MlaStepper().html()
    assert MlaStepper().html() != MlaStepper(step=1).html()
