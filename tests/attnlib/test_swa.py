"""Sliding windows: against a table of what is seen, against transformers, and in memory."""

from collections import defaultdict

import pytest
import torch
from helpers import relative_error

from attnlib import Rope
from attnlib.core import split_heads
from attnlib.variants import swa
from attnlib.variants.swa import (
    RingCache,
    SlidingWindowAttention,
    attend_with_sinks,
    window_mask,
)

D_MODEL, H, H_KV, D = 20, 6, 3, 4
OPTIONS = [
    {},
    {"first": 1},
    {"first": 3},
    {"chunked": True},
    {"sinks": True},
    {"sinks": True, "first": 2},
]
EVERY_OPTION = pytest.mark.parametrize("options", OPTIONS, ids=str)


def made(window, *, bias=False, **options):
    torch.manual_seed(window)
    layer = SlidingWindowAttention(
        D_MODEL, H, H_KV, window, head_dim=D, bias=bias, rope=Rope(), **options
    ).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer.requires_grad_(False)


def hidden(*shape):
    return torch.randn(*shape, D_MODEL, dtype=torch.float64)


def seen(tokens, window, first=0, chunked=False, **_):
    """What each token sees, from the definition, one pair at a time."""

    def sees(i, j):
        near = i // window == j // window if chunked else i - j < window
        return j <= i and (near or j < first)

    return torch.tensor([[sees(i, j) for j in range(tokens)] for i in range(tokens)])


def by_table(layer, x, visible):
    """Every key kept, a table of what is visible, and a softmax with one logit more."""
    B, T, _ = x.shape
    q = split_heads(layer.q_proj(x), H)
    k, v = (split_heads(project(x), H_KV) for project in (layer.k_proj, layer.v_proj))
    q, k = layer.rope.rotate(q, k, length=T)
    k, v = (each.repeat_interleave(H // H_KV, dim=1) for each in (k, v))
    scores = (q @ k.mT * D**-0.5).masked_fill(~visible, -torch.inf)
    if layer.sinks is not None:
        sink = layer.sinks[None, :, None, None].expand(B, -1, T, 1)
        scores = torch.cat([scores, sink], dim=-1)
    weights = scores.softmax(dim=-1)[..., :T]
    return layer.o_proj((weights @ v).transpose(1, 2).flatten(2)), weights


def cuts(tokens, seed):
    """A text in parts of 1 to 8 tokens."""
    torch.manual_seed(seed)
    parts = []
    while sum(parts) < tokens:
        parts.append(min(int(torch.randint(1, 9, (1,))), tokens - sum(parts)))
    return parts


@EVERY_OPTION
@pytest.mark.parametrize("window", [1, 5, 13, 64])
def test_prefill_decode_and_chunks_equal_the_table(options, window):
    """Catches W + 1 keys, a ring that turns too early, and a window lost between chunks."""
    layer = made(window, **options)
    for tokens in (7, 64):
        x = hidden(2, tokens)
        expected, weights = by_table(layer, x, seen(tokens, window, **options))
        out, got = layer(x, return_weights=True)
        assert (layer(x) - expected).abs().max() < 1e-12
        assert (out - expected).abs().max() < 1e-12
        assert (got - weights).abs().max() < 1e-12
        for sizes in ([1] * tokens, cuts(tokens, window), [tokens]):
            cache = layer.new_cache(2, tokens)
            parts = [layer(part, cache) for part in x.split(sizes, dim=1)]
            assert (torch.cat(parts, dim=1) - expected).abs().max() < 1e-12, sizes
            rows = min(tokens, window + options.get("first", 0))
            assert cache.nbytes == 2 * 2 * H_KV * rows * D * 8
            assert cache.kept == rows


@EVERY_OPTION
@pytest.mark.parametrize("window", [1, 3, 6, 20])
def test_prompts_of_different_length_share_a_batch(options, window):
    """Catches a row that one sequence takes for all, and padding that takes a place."""
    layer, lengths, more = made(window, **options), (9, 3, 14), 6
    prompt = max(lengths)
    x = hidden(3, prompt + more)
    positions = torch.tensor(
        [
            [t if t < length else -1 for t in range(prompt)] + [length + t for t in range(more)]
            for length in lengths
        ]
    )
    cache, parts, start = layer.new_cache(3, prompt + more), [], 0
    for size in (5, prompt - 5, *[1] * more):
        part = slice(start, start + size)
        parts.append(layer(x[:, part], cache, positions=positions[:, part]))
        start += size
    for got in (torch.cat(parts, dim=1), layer(x, positions=positions)):
        for b, length in enumerate(lengths):
            real, tokens = positions[b] >= 0, length + more
            expected, _ = by_table(layer, x[b : b + 1, real], seen(tokens, window, **options))
            assert (got[b : b + 1, real] - expected).abs().max() < 1e-12


@EVERY_OPTION
def test_padding_on_the_left_is_hidden_in_the_ring_too(options):
    layer, x = made(4, **options), hidden(2, 12)
    real = torch.ones(2, 12, dtype=torch.bool)
    real[1, :5] = False
    cache = layer.new_cache(2, 12)
    parts = [
        layer(x[:, a:b], cache, key_mask=real[:, :b]) for a, b in ((0, 7), (7, 8), (8, 12))
    ]
    assert (torch.cat(parts, dim=1) - layer(x, key_mask=real))[real].abs().max() < 1e-12


def test_three_forms_of_a_sink_are_equal():
    """A logit without a value, a key with value zero, the output times sigmoid(lse - s)."""
    torch.manual_seed(0)
    q = torch.randn(2, H, 5, D, dtype=torch.float64)
    k, v = torch.randn(2, 2, H_KV, 7, D, dtype=torch.float64)
    sinks, mask = torch.randn(H, dtype=torch.float64), torch.rand(5, 7) > 0.3
    mask[:, 0] = True
    as_key, _ = attend_with_sinks(q, k, v, mask, sinks)
    k, v = (each.repeat_interleave(H // H_KV, dim=1) for each in (k, v))
    scores, s = (q @ k.mT * D**-0.5).masked_fill(~mask, -torch.inf), sinks[:, None, None]
    total = scores.exp().sum(dim=-1, keepdim=True) + s.exp()
    as_logit = (scores.exp() / total) @ v
    lse = scores.logsumexp(dim=-1, keepdim=True)
    as_gate = (scores.softmax(dim=-1) @ v) * torch.sigmoid(lse - s)
    assert (as_key - as_logit).abs().max() < 1e-14
    assert (as_key - as_gate).abs().max() < 1e-14


def test_reach_grows_by_a_window_per_layer():
    """L layers see L (W - 1) + 1 tokens: a window counts the query's own."""
    for window in (2, 3, 5):
        for n_layers in (1, 2, 3):
            x = hidden(1, 24).requires_grad_(True)
            out = x
            for layer in [made(window) for _ in range(n_layers)]:
                out = out + layer(out)
            out[0, -1].sum().backward()
            reached = (x.grad[0].abs().sum(dim=-1) > 0).sum()
            assert reached == n_layers * (window - 1) + 1


# transformers as the oracle


def additive(visible):
    mask = torch.zeros(visible.shape, dtype=torch.float64)
    return mask.masked_fill(~visible, -torch.inf)[None, None]


def assert_equal_to(theirs, layer, window, tokens=17):
    """Prefill, and decoding far past the window, against an eager layer with a mask."""
    x = hidden(2, tokens)
    cos, sin = (
        torch.cat([a, a], dim=-1).double()[None]
        for a in layer.rope.angles(torch.arange(tokens), D, tokens)
    )
    if type(theirs).__name__ == "GptOssAttention":  # takes each angle once
        cos, sin = cos[..., : D // 2], sin[..., : D // 2]
    expected = theirs(x, (cos, sin), additive(seen(tokens, window)))[0]
    assert relative_error(layer(x), expected) < 1e-6  # it computes weights in float32
    cache = layer.new_cache(2, tokens)
    parts = [layer(part, cache) for part in x.split([7, 1, 1, 3, *[1] * (tokens - 12)], dim=1)]
    assert relative_error(torch.cat(parts, dim=1), expected) < 1e-6


def test_gpt_oss_with_its_sinks():
    transformers = pytest.importorskip("transformers")
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssAttention

    config = transformers.GptOssConfig(
        hidden_size=D_MODEL, num_attention_heads=H, num_key_value_heads=H_KV, head_dim=D,
        sliding_window=5, layer_types=["sliding_attention"], num_hidden_layers=1,
        attn_implementation="eager", attention_bias=True,
    )  # fmt: skip
    layer = made(5, bias=True, sinks=True)
    theirs = GptOssAttention(config, 0).double().eval()
    theirs.load_state_dict(layer.state_dict())
    assert_equal_to(theirs, layer, 5)


def test_mistral_with_its_window():
    transformers = pytest.importorskip("transformers")
    from transformers.models.mistral.modeling_mistral import MistralAttention

    config = transformers.MistralConfig(
        hidden_size=D_MODEL, num_attention_heads=H, num_key_value_heads=H_KV, head_dim=D,
        sliding_window=5, num_hidden_layers=1, attn_implementation="eager",
    )  # fmt: skip
    layer = made(5)
    theirs = MistralAttention(config, 0).double().eval()
    theirs.load_state_dict(layer.state_dict())
    assert_equal_to(theirs, layer, 5)


class NormedHeads(torch.nn.Module):
    """A projection whose heads are normed afterwards, as Gemma 3 does with q and k."""

    def __init__(self, projection, norm):
        super().__init__()
        self.projection, self.norm = projection, norm
        self.in_features, self.weight = projection.in_features, projection.weight

    def forward(self, x):
        heads = self.projection(x).unflatten(-1, (-1, D))
        return self.norm(heads).flatten(-2)


def test_gemma_3_with_its_window_and_norms():
    transformers = pytest.importorskip("transformers")
    from transformers.models.gemma3.modeling_gemma3 import Gemma3Attention

    config = transformers.Gemma3TextConfig(
        hidden_size=24, num_attention_heads=H, num_key_value_heads=H_KV, head_dim=D,
        sliding_window=5, layer_types=["sliding_attention"], num_hidden_layers=1,
        attn_implementation="eager", query_pre_attn_scalar=D,
    )  # fmt: skip
    config.hidden_size = D_MODEL  # which it would refuse, since 6 does not divide it
    layer = made(5)
    theirs = Gemma3Attention(config, 0).double().eval()
    theirs.load_state_dict(layer.state_dict(), strict=False)
    for name in ("q", "k"):
        norm = getattr(theirs, f"{name}_norm")
        torch.nn.init.normal_(norm.weight, std=0.5)
        projection = getattr(layer, f"{name}_proj")
        setattr(layer, f"{name}_proj", NormedHeads(projection, norm))
    assert_equal_to(theirs, layer, 5)


@pytest.mark.parametrize("window", [1, 4, 9])
def test_transformers_counts_the_querys_own_token(window):
    """Catches a page that says so of a library that has changed."""
    pytest.importorskip("transformers")
    from transformers.masking_utils import chunked_overlay, sliding_window_overlay
    from transformers.modeling_flash_attention_utils import _process_flash_attention_kwargs

    at, none = torch.arange(9), torch.zeros(1, dtype=torch.long)
    i, j = at[:, None], at
    near = sliding_window_overlay(window)(0, 0, i, j) & (j <= i)
    assert torch.equal(window_mask(at, at, window), near)
    same = chunked_overlay(window, none)(0, 0, i, j) & (j <= i)
    assert torch.equal(window_mask(at, at, window, chunked=True), same)
    has = dict.fromkeys(("dropout_p", "window_size", "deterministic", "softcap"), True)
    options = _process_flash_attention_kwargs(
        9, 99, True, sliding_window=window, supports_mapping=defaultdict(bool, has)
    )
    assert options["window_size"][0] == window - 1  # FlashAttention counts earlier tokens


def test_mimo_counts_tokens_before_the_querys_own():
    """Its checkpoint says 128, which its makers' engine and transformers read as 129."""
    transformers = pytest.importorskip("transformers")
    if not hasattr(transformers, "MiMoV2FlashConfig"):
        pytest.skip("this transformers does not have the model")
    assert transformers.MiMoV2FlashConfig().sliding_window == 129
    assert transformers.MiMoV2FlashConfig(sliding_window_size=128).sliding_window == 129


@EVERY_OPTION
@pytest.mark.parametrize("cached", [False, True])
def test_a_long_prompt_goes_block_by_block(options, cached, monkeypatch):
    """Catches a block that misses old keys, first tokens or the edge of a chunk."""
    monkeypatch.setattr(swa, "BLOCK", 6)
    layer, x = made(4, **options), hidden(2, 31)
    real = torch.ones(2, 31, dtype=torch.bool)
    real[1, 3:5] = False
    for key_mask in (None, real):
        visible = seen(31, 4, **options)
        if key_mask is not None:
            visible = visible & key_mask[:, None, None]
        expected, _ = by_table(layer, x, visible)
        cache = layer.new_cache(2, 31) if cached else None
        sizes, parts, start = ([5, 20, 6] if cached else [31]), [], 0
        for part in x.split(sizes, dim=1):
            start += part.shape[1]
            mask = None if key_mask is None else key_mask[:, :start]
            parts.append(layer(part, cache, key_mask=mask))
        assert (torch.cat(parts, dim=1) - expected)[real].abs().max() < 1e-12


def test_gradients_flow_through_the_blocks(monkeypatch):
    layer, x = made(4, sinks=True), hidden(1, 31)
    layer.requires_grad_(True)
    whole = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    monkeypatch.setattr(swa, "BLOCK", 5)
    parts = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
    for got, expected in zip(parts, whole, strict=True):
        torch.testing.assert_close(got, expected)


# What is refused


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"window": 0}, "window must be an integer of at least 1, got 0"),
        ({"window": 4, "first": -1}, "first must be an integer of at least 0, got -1"),
        ({"window": 4, "first": 1, "chunked": True}, "first must be 0 with chunks, got 1"),
    ],
)
def test_bad_layers(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        SlidingWindowAttention(D_MODEL, H, H_KV, head_dim=D, **options)


def test_bad_entries_leave_the_ring_as_it_was():
    cache = RingCache(1, H_KV, 8, D, 4)
    k = torch.ones(1, H_KV, 3, D)
    cache.update(k, k)
    before = cache._k.clone()
    for bad, complaint in (
        ((k, k[:, :, :2]), "v must have k's shape"),
        ((k[:, :2], k[:, :2]), "k must have shape"),
        ((torch.ones(1, H_KV, 6, D),) * 2, "cache overflow"),
    ):
        with pytest.raises(ValueError, match=complaint):
            cache.update(*bad)
    with pytest.raises(ValueError, match="positions must have shape"):
        cache.update(k, k, positions=torch.arange(2))
    assert cache.seen == 3 and torch.equal(cache._k, before)
