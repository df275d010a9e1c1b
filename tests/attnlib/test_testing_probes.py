"""What checks are made of: layers of other code bases, and layers with a past.

Catches a right layer that fails because its attributes have other names, and a verdict that
depends on where the layer lives, whether it is compiled, or what it was used for before.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import D_MODEL, D, H, gqa, mha, mla
from torch import nn

import attnlib
from attnlib.testing import CHECKS, FAILS, HOLDS, NOT_ASKED, TOLERANCE, check_layer
from attnlib.testing.probes import (
    d_model_of,
    fresh,
    head_width_of,
    key_width_of,
    kv_projections_of,
    n_heads_of,
    n_kv_heads_of,
    order_matters_to,
    prepared,
    stored_bytes,
    tensors,
    window_of,
)


def silent(reports):
    """Reasons of the checks that were not asked, by name."""
    return {report.check: report.found for report in reports if report.verdict == NOT_ASKED}


# Layers as other code bases write them.


class FusedAttention(nn.Module):
    """One projection for queries, keys and values, and a mask in a buffer, as in nanoGPT."""

    def __init__(self, n_embd, n_head, block_size=16, fused=True):
        super().__init__()
        self.c_attn = nn.Linear(n_embd, 3 * n_embd)
        self.c_proj = nn.Linear(n_embd, n_embd)
        self.resid_dropout = nn.Dropout(0.1)
        self.n_head, self.n_embd, self.fused = n_head, n_embd, fused
        self.register_buffer("bias", torch.ones(block_size, block_size).tril()[None, None])

    def heads(self, x):
        return x.view(*x.shape[:2], self.n_head, -1).transpose(1, 2)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = map(self.heads, self.c_attn(x).split(self.n_embd, dim=2))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            scores = q @ k.transpose(-2, -1) / k.shape[-1] ** 0.5
            scores = scores.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
            y = scores.softmax(dim=-1) @ v
        return self.resid_dropout(self.c_proj(y.transpose(1, 2).reshape(B, T, C)))


class ViewedHeads(FusedAttention):
    """The same with the classic mistake: heads are split without a transpose."""

    def heads(self, x):
        return x.reshape(x.shape[0], self.n_head, x.shape[1], -1)


@pytest.mark.parametrize("fused", [True, False])
def test_fused_projections_pass(fused):
    """Catches a check that needs the names of attnlib."""
    layer = FusedAttention(24, 4, fused=fused)
    reports = check_layer(layer)
    assert reports.hold, reports
    assert silent(reports) == {
        "equals the reference": "there is no reference to compare with",
        "rows sum to one": "forward takes no return_weights",
        "cached = uncached": "the layer has no cache",
        "head grouping": "the layer has no k_proj and v_proj, and no kv_projections",
        "scale": "there is no reference to compare with",
        "padding": "forward takes no key_mask",
        "rows without keys": "forward takes no key_mask",
        "cache bytes": "there is no reference to compare with",
    }
    assert check_layer(layer, FusedAttention(24, 4)).hold


def test_fused_projections_with_a_bug_fail():
    assert check_layer(ViewedHeads(24, 4)).failed == ["no future leak", "permutation"]
    assert CHECKS["equals the reference"](ViewedHeads(24, 4), FusedAttention(24, 4)).hint


class MaskedTooLate(nn.Module):
    """Attention as one writes it by hand, with the mask after the softmax."""

    def __init__(self, d_model, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.q_proj = nn.Linear(d_model, d_model)
        self.k_proj = nn.Linear(d_model, d_model)
        self.v_proj = nn.Linear(d_model, d_model)
        self.o_proj = nn.Linear(d_model, d_model)

    def heads(self, x):
        return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)

    def forward(self, x):
        q, k, v = (self.heads(p(x)) for p in (self.q_proj, self.k_proj, self.v_proj))
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1)
        weights = weights.tril()
        return self.o_proj((weights @ v).transpose(1, 2).flatten(2))


def test_a_layer_needs_nothing_but_a_width_and_its_heads():
    """Catches a first report full of errors and of checks that do not apply."""
    reports = check_layer(MaskedTooLate(d_model=32, n_heads=4))
    assert reports.failed == ["no future leak"]
    assert len(silent(reports)) == 7
    assert repr(reports).splitlines()[-1] == "13 checks: 5 hold, 1 fail, 7 not asked"


class NamedHeads(nn.Module):
    """Attributes as in torchtune, and projections whose names are given."""

    def __init__(self, names, *, bias=False, width_in=D_MODEL, wide=D_MODEL):
        super().__init__()
        self.num_heads, self.num_kv_heads, self.head_dim = 6, 3, 4
        q, k, v, o = names
        self.names = names
        self.add_module(q, nn.Linear(width_in, 24, bias=bias))
        self.add_module(k, nn.Linear(width_in, 12, bias=bias))
        self.add_module(v, nn.Linear(width_in, 12, bias=bias))
        self.add_module(o, nn.Linear(24, wide, bias=bias))

    def forward(self, x):
        q, k, v = (
            self.get_submodule(name)(x).unflatten(-1, (-1, 4)).transpose(1, 2)
            for name in self.names[:3]
        )
        k, v = (y.repeat_interleave(2, dim=1) for y in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.get_submodule(self.names[3])(y.transpose(1, 2).flatten(2))


NAMES = [
    ("q_proj", "k_proj", "v_proj", "output_proj"),
    ("W_query", "W_key", "W_value", "out_proj"),
    ("query", "key", "value", "proj"),
    ("wq", "wk", "wv", "wo"),
]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
def test_common_names_are_found(names):
    """Catches a name that is known for keys and not for values, or for some heads alone."""
    reports = check_layer(NamedHeads(names, bias=True))
    assert reports.hold, reports
    found = {report.check: report.found for report in reports}
    assert found["head grouping"] == "each of 3 KV heads serves its 2 query heads"
    assert found["gradients"] == "all 7 tensors of weights"  # a bias of keys has no effect


def test_unknown_names_are_not_asked():
    """Catches an error in a check where the layer declares nothing at all."""
    layer = NamedHeads(("a", "b", "c", "d"))
    reports = check_layer(layer)
    assert reports.hold, reports
    assert silent(reports)["head grouping"] == "the layer has no o_proj"
    layer.o_proj, layer.names = layer.d, ("a", "b", "c", "o_proj")
    found = CHECKS["head grouping"](layer).found
    assert found == "the layer has no k_proj and v_proj, and no kv_projections"
    layer.kv_projections = ("b", "c")
    assert CHECKS["head grouping"](layer).verdict == HOLDS
    del layer.num_heads, layer.num_kv_heads, layer.head_dim
    assert check_layer(layer).hold
    assert CHECKS["head grouping"](layer).found == "the layer has no attribute n_heads"


def test_an_output_projection_that_is_not_called_is_no_failure_elsewhere():
    class Functional(NamedHeads):
        def forward(self, x):
            out, self.out_proj = self.out_proj, nn.Identity()
            try:
                return F.linear(super().forward(x), out.weight)
            finally:
                self.out_proj = out

    report = CHECKS["head grouping"](Functional(NAMES[1]))
    assert report.found == "out_proj is not called as a module, so its input is not seen"
    own = CHECKS["head grouping"](Unprojected(D_MODEL, H, head_dim=D))
    assert (own.verdict, own.found) == (FAILS, "o_proj was not called")


class Unprojected(attnlib.MultiHeadAttention):
    """Returns its input, and forgets its output projection."""

    def forward(self, x, **options):
        return x + 0 * self.k_proj(x).sum()


def test_the_width_is_found_or_given():
    assert d_model_of(mha()) == D_MODEL
    assert d_model_of(FusedAttention(24, 4)) == 24
    assert d_model_of(NamedHeads(("a", "b", "c", "d"))) == D_MODEL
    bare = nn.Identity()
    report = CHECKS["no future leak"](bare)
    assert (report.verdict, report.found) == (
        NOT_ASKED,
        "the width of the hidden states is not known: pass d_model=...",
    )
    assert check_layer(bare, checks=["no future leak"], d_model=6).hold


def test_a_configuration_declares_sizes_too():
    layer = NamedHeads(NAMES[0])
    del layer.num_heads, layer.num_kv_heads
    layer.config = type("Config", (), {"num_attention_heads": 6, "num_key_value_heads": 3})()
    assert (n_heads_of(layer), n_kv_heads_of(layer)) == (6, 3)
    assert CHECKS["head grouping"](layer).verdict == HOLDS


@pytest.mark.parametrize(
    ("layer", "n_kv_heads", "head", "key", "projections"),
    [
        (mha(), 6, 4, 4, ("k_proj", "v_proj")),
        (gqa(), 3, 4, 4, ("k_proj", "v_proj")),
        (mla(), 6, None, 12, ("kv_b_proj",)),
        (NamedHeads(NAMES[3]), 3, 4, 4, ("wk", "wv")),
        (FusedAttention(24, 4), None, 6, 6, None),
    ],
    ids=["mha", "gqa", "mla", "names", "fused"],
)
def test_sizes_are_read_as_declared(layer, n_kv_heads, head, key, projections):
    """Catches a width that is read from another place than the layer's own."""
    assert key_width_of(layer) == key
    if n_kv_heads is not None:
        assert n_kv_heads_of(layer) == n_kv_heads
    if head is not None:
        assert head_width_of(layer) == head
    if projections is not None:
        assert kv_projections_of(layer) == projections
    assert window_of(layer) == 7


def test_kv_heads_follow_from_the_width_of_the_keys():
    layer = NamedHeads(NAMES[0])
    del layer.num_kv_heads
    assert n_kv_heads_of(layer) == 3
    del layer.head_dim
    assert key_width_of(layer) == 4  # 24 queries wide, 6 heads
    assert head_width_of(layer) == D_MODEL // 6


def test_multi_head_attention_of_torch_passes():
    """Catches a layer that cannot be checked because it is called in another way."""
    layer = nn.MultiheadAttention(24, 4, batch_first=True)
    report = CHECKS["reach"](layer)
    assert (report.verdict, "forward() missing" in report.found) == (FAILS, True)

    def call(layer, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1], dtype=x.dtype)
        return layer(x, x, x, attn_mask=mask, need_weights=False)

    reports = check_layer(layer, call=call)
    assert reports.hold, reports
    assert silent(reports)["padding"] == "forward takes no key_mask"
    leaky = check_layer(layer, call=lambda layer, x: layer(x, x, x))
    assert leaky.failed == ["no future leak"]


def test_a_function_that_calls_the_layer_can_pass_options_on():
    class Reversed(attnlib.MultiHeadAttention):
        """Takes the opposite mask, True = padding, under another name."""

        def forward(self, x, padding=None):
            return super().forward(x, key_mask=None if padding is None else ~padding)

    def call(layer, x, key_mask=None):
        return layer(x, padding=None if key_mask is None else ~key_mask)

    layer = Reversed(D_MODEL, H, head_dim=D)
    assert silent(check_layer(layer))["padding"] == "forward takes no key_mask"
    assert CHECKS["padding"].check_name not in silent(check_layer(layer, call=call))
    assert check_layer(layer, call=call).hold


def test_llama_of_transformers_passes():
    """Catches a check that a layer of the most used library cannot take."""
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    config = llama.LlamaConfig(
        hidden_size=24, num_attention_heads=6, num_key_value_heads=3, head_dim=4
    )
    config._attn_implementation = "eager"
    rotary = llama.LlamaRotaryEmbedding(config)

    def call(layer, x):
        T = x.shape[1]
        angles = rotary(x, torch.arange(T)[None])
        mask = torch.full((T, T), -torch.inf, dtype=x.dtype).triu(1)[None, None]
        return layer(x, position_embeddings=angles, attention_mask=mask)

    reports = check_layer(llama.LlamaAttention(config, 0), call=call, order_matters=True)
    assert reports.hold, reports
    found = {report.check: report.found for report in reports}
    assert found["head grouping"] == "each of 3 KV heads serves its 2 query heads"
    assert found["permutation"].startswith("earlier tokens in another order move the last")


def test_whether_order_matters_is_declared_or_given():
    """Catches a layer with positions of its own that fails because they have another name."""

    class Placed(FusedAttention):
        def forward(self, x):
            return super().forward(x + torch.linspace(0, 1, x.shape[1])[:, None])

    layer = Placed(24, 4)
    report = CHECKS["permutation"](layer)
    assert report.verdict == FAILS
    assert "pass order_matters=True" in report.hint
    assert check_layer(layer, order_matters=True).hold
    layer.pos_emb = nn.Identity()
    assert order_matters_to(layer)
    assert not order_matters_to(mha())
    assert order_matters_to(mha(rope=attnlib.Rope()))
    assert check_layer(mha(), checks=["permutation"], order_matters=True).failed


# Layers with a past.


def verdicts(layer):
    return [(report.check, report.verdict, report.found) for report in check_layer(layer)]


def test_a_layer_that_keeps_what_a_hook_saw():
    """Catches a copy that fails because the layer holds a tensor with a history."""
    layer = mha()
    expected = verdicts(layer)
    layer.register_forward_hook(lambda module, _, out: setattr(module, "last", out))
    layer(torch.randn(2, 3, D_MODEL))
    with pytest.raises(RuntimeError):
        copy.deepcopy(layer)
    last = layer.last
    assert verdicts(layer) == expected
    assert layer.last is last


def test_a_layer_that_was_trained_or_frozen():
    """Catches gradients of an earlier step that count as reached, and frozen ones as lost."""

    class Detached(attnlib.MultiHeadAttention):
        def forward(self, x, **options):
            project = self.k_proj.forward
            self.k_proj.forward = lambda x: project(x).detach()
            try:
                return super().forward(x, **options)
            finally:
                self.k_proj.forward = project

    layer = Detached(D_MODEL, H, head_dim=D)
    layer.k_proj.weight.grad = torch.ones_like(layer.k_proj.weight)
    assert "none reaches k_proj.weight" in CHECKS["gradients"](layer).found
    frozen = mha().requires_grad_(False)
    assert verdicts(frozen) == verdicts(mha())
    assert not frozen.k_proj.weight.requires_grad


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_checks_record_gradients_where_the_caller_does_not(mode):
    layer = mha()
    with mode():
        assert CHECKS["gradients"](layer).verdict == HOLDS


def refuse(graph, inputs):
    """A compiler that must not be called."""
    raise AssertionError("the compiled layer was called")


def test_a_compiled_layer_is_checked_as_what_it_was_compiled_from():
    """Catches a check that compiles again for every shape, or that misses the layer's names."""
    expected = verdicts(mha())
    assert verdicts(torch.compile(mha(), backend=refuse)) == expected
    in_place = mha()
    in_place.compile(backend=refuse)
    assert verdicts(in_place) == expected
    within = mha()
    within.o_proj = torch.compile(within.o_proj, backend=refuse)
    method = mha()
    method.forward = torch.compile(method.forward, backend=refuse)
    assert verdicts(method) == expected
    assert verdicts(within) == expected


def test_the_default_device_does_not_matter():
    expected = verdicts(mha())
    layer = mha()
    torch.set_default_device("meta")
    try:
        assert verdicts(layer) == expected
    finally:
        torch.set_default_device(None)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_layer_on_another_device():
    layer = mha().to("cuda")
    layer.unregistered = torch.ones(3, device="cuda")
    assert verdicts(layer) == verdicts(mha())
    assert layer.unregistered.device.type == "cuda"


def test_a_copy_is_independent():
    layer = mha()
    layer.kept = {"a": [torch.ones(2, requires_grad=True) * 2]}
    copied = fresh(layer)
    assert copied.kept["a"][0].grad_fn is None
    assert torch.equal(copied.kept["a"][0], layer.kept["a"][0])
    with torch.no_grad():
        copied.k_proj.weight.zero_()
    assert layer.k_proj.weight.abs().max() > 0


def test_numbers_that_are_drawn_do_not_depend_on_the_layer():
    """Catches weights so small that attention is uniform, and a layer that chooses its own."""
    layer = mha()
    layer.temperature = nn.Parameter(torch.zeros(()))
    first, second = prepared(layer), prepared(prepared(layer))
    for name, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(name))
        assert parameter.dtype == torch.float64
    assert first.temperature.abs() > TOLERANCE
    assert first.k_proj.weight.std() > 0.2


# Memory.


def test_every_tensor_is_found_once():
    """Catches a circle that never ends, a tensor that is missed, and memory counted twice."""

    class Cache:
        pass

    cache, base = Cache(), torch.zeros(10, dtype=torch.float64)
    cache.itself, cache.module, cache.kind = cache, torch, Cache
    cache.rows = [base[:5], {"view": base[5:], "more": (torch.zeros(3),)}]
    assert len(list(tensors(cache))) == 3
    assert stored_bytes(cache) == 10 * 8 + 3 * 4
