"""Windows and sinks in a model of the real one's kind, and what is stored of the real one."""

import json
from dataclasses import replace

import pytest
import torch
from gguf_files import SMALL

from attnlib.core import split_heads
from attnlib.labs.heads import with_attention
from attnlib.labs.llama import Llama
from attnlib.labs.stats import paired_difference
from attnlib.labs.windows import (
    CONTROL,
    FULL,
    SINKS,
    Looks,
    WindowFindings,
    WindowSettings,
    first_logits,
    kind_of,
    look,
    run,
    shares,
    trials,
    windowed,
)

TINY = WindowSettings(
    context=20, tokens=8, passages=2, windows=(2, 5), window=3, period=6, draws=1, steps=3,
    trained_tokens=9,
)  # fmt: skip


class Letters:
    """A tokenizer of letters, whose vocabulary fits the small model."""

    def encode(self, text):
        return [ord(letter) % SMALL.vocabulary for letter in text[:2000]]

    def pieces(self, ids):
        return [str(i) for i in ids]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Llama(SMALL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def stored(model, tmp_path_factory):
    """A file that the experiment wrote, and what it returned."""
    path = tmp_path_factory.mktemp("windows") / "windows.json"
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    found = run(path, model, Letters(), TINY, progress=lambda line: None)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), f"the experiment changed {name}"
    return path, found


def test_a_file_is_read_as_it_was_written_and_continued(stored, model):
    path, found = stored
    assert WindowFindings.read(json.loads(path.read_text())) == found
    assert [one.kind for one in found.runs] == list(trials(TINY))
    lines = []
    assert run(path, model, Letters(), TINY, progress=lines.append) == found
    assert not lines
    with pytest.raises(ValueError, match="settings must be those of the runs"):
        run(path, model, Letters(), replace(TINY, window=4), progress=lines.append)


def test_a_window_of_the_whole_text_changes_nothing(model):
    """Catches weights that are not copied, and positions that a window moves."""
    tokens = torch.arange(12)[None] % SMALL.vocabulary
    expected = model.losses(tokens)
    for kind in ({"window": 12}, {"window": 1, "first": 11}, {"window": 1, "pattern": "F"}):
        with with_attention(model, windowed(model.attentions(), **kind)):
            torch.testing.assert_close(model.losses(tokens), expected)
    with with_attention(model, windowed(model.attentions(), 2)):
        assert not torch.allclose(model.losses(tokens), expected)


def test_a_pattern_leaves_the_full_layers(model):
    """Catches a pattern that is read from the wrong end, or not repeated."""
    plain = model.attentions()
    layers = windowed(plain, 3, pattern="SF")
    kept = [new is old for new, old in zip(layers, plain, strict=True)]
    assert kept == [i % 2 == 1 for i in range(len(plain))]


def test_only_sinks_are_trained_and_they_help(stored):
    """Catches a training that changes other weights, or none."""
    _, found = stored
    history = found.run(SINKS).history
    assert [steps for steps, _ in history] == [0, 1, 2, 3]
    assert len({perplexity for _, perplexity in history}) > 1
    assert found.run(SINKS).perplexity == pytest.approx(history[-1][1])
    assert not found.run(FULL).history
    assert found.run(CONTROL).history[0][1] == pytest.approx(
        found.run(FULL).perplexity, rel=0.2
    )


def test_first_logits_are_scores(model):
    """Catches another scale, an unrotated key, or another KV head's."""
    tokens = torch.arange(10)[None] % SMALL.vocabulary
    block, x = model.blocks[0], model.embed(torch.arange(10)[None] % SMALL.vocabulary)
    layer, h = block.attention, block.attention_norm(x)
    _, weights = layer(h, return_weights=True)  # softmax of the scores
    q, k = (
        split_heads(layer.q_proj(h), SMALL.n_heads),
        split_heads(layer.k_proj(h), layer.n_kv_heads),
    )
    q, k = layer.rope.rotate(q, k, length=10)
    k = k.repeat_interleave(SMALL.n_heads // layer.n_kv_heads, dim=1)
    scores = (q @ k.mT)[0] * layer.head_dim**-0.5  # (H, T, T)
    expected = (
        weights[0, :, 5:, 0].log()
        + scores.masked_fill(torch.ones(10, 10).triu(1).bool(), -torch.inf).logsumexp(dim=-1)[
            :, 5:
        ]
    ).mean(dim=1)
    torch.testing.assert_close(first_logits(model, tokens)[0], expected)


def test_shares_are_of_the_weights(model):
    """Catches a share of other queries or places."""
    tokens = torch.arange(30)[None] % SMALL.vocabulary
    first, own, near = shares(model, tokens, 20)
    weights = model.weights(tokens)[:, 0, :, 20:]
    assert first == pytest.approx(weights[..., 0].mean().item(), rel=1e-5)
    assert own == pytest.approx(weights.diagonal(20, -2, -1).mean().item(), rel=1e-5)
    before = sum(weights.diagonal(20 - j, -2, -1).mean().item() for j in range(1, 17))
    assert near == pytest.approx(before, rel=1e-4)


def test_looks_are_stored_in_thousandths(model, monkeypatch):
    """Catches numbers in another order than they are read."""
    monkeypatch.setattr("attnlib.labs.windows.SHORT_LAYERS", (0, 2))
    found = look(model, Letters())
    for kind, window in ((FULL, None), ("the last 5", 5)):
        weights = found.of(kind)
        assert weights.shape[:2] == (2, SMALL.n_heads)
        torch.testing.assert_close(weights.sum(dim=-1), torch.ones_like(weights[..., 0]))
        if window:
            assert weights[:, :, 9, :5].eq(0).all()
    expected = model.weights(torch.tensor([Letters().encode("The keys")]))[2, 0, :, 7]
    stored = found.of(FULL)[1, :, 7, :8]
    torch.testing.assert_close(stored, expected, atol=2e-3, rtol=0)
    with pytest.raises(ValueError, match="kind must be one of"):
        found.of("nothing")


# What is stored of the real model


def test_what_is_stored_is_what_the_code_would_do():
    found = WindowFindings.load()
    assert found.settings == WindowSettings()
    assert [one.kind for one in found.runs] == list(trials(found.settings))
    assert list(Looks.load().weights) == [FULL, "the last 5", "the last 5 and the first"]
    with pytest.raises(ValueError, match="kind must be one of everything, 64"):
        found.run("5")


def test_the_chapters_claims_hold():
    """Catches prose that outlives a run."""
    found = WindowFindings.load()
    perplexity = {one.kind: one.perplexity for one in found.runs}
    for W in (64, 128, 256):
        assert perplexity[kind_of(W, 1)] < perplexity[kind_of(2 * W)]
    assert perplexity[kind_of(64, 1)] < perplexity[kind_of(512)]
    assert perplexity[kind_of(256, 4)] == pytest.approx(perplexity[kind_of(256, 1)], rel=0.01)
    assert perplexity[SINKS] < perplexity[kind_of(256, 1)]
    assert perplexity[CONTROL] > perplexity[FULL]  # so sinks do not just learn the text
    losses = {one.kind: one.losses for one in found.runs}
    assert paired_difference(losses[kind_of(256)], losses[FULL]).low > 0
    assert paired_difference(losses[kind_of(256)], losses[kind_of(256, 1)]).low > 0
