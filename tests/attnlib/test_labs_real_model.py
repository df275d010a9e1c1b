"""The experiment on the real model, with a small one in its place, and what is stored of it."""

import json
from dataclasses import replace

import pytest
import torch
from gguf_files import SMALL

from attnlib.labs import real_model
from attnlib.labs.heads import without_head
from attnlib.labs.llama import Llama
from attnlib.labs.prose import prose
from attnlib.labs.real_model import RealModelFindings, Settings, cut, passage_losses, run

TINY = Settings(
    context=3, tokens=8, passages=3, windows=1, ranks=(4, 2), seeds=(0, 1), looked_at=10,
    period=5, steps=2, trained_tokens=9,
)  # fmt: skip


class Letters:
    """A tokenizer of letters, whose vocabulary fits the small model."""

    def encode(self, text):
        return [ord(letter) % SMALL.vocabulary for letter in text[:2000]]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Llama(SMALL).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def stored(model, tmp_path_factory):
    """A file that the experiment wrote, and what it returned."""
    path = tmp_path_factory.mktemp("real") / "real.json"
    patch = pytest.MonkeyPatch()
    patch.setattr(real_model, "TRAINED_ON", ("GQA", "MQA, mean", "latent 2, activations"))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    found = run(path, model, Letters(), TINY, progress=lambda line: None)
    patch.undo()
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]), f"the experiment changed {name}"
    return path, found


def test_a_file_is_read_as_it_was_written(stored):
    path, found = stored
    assert RealModelFindings.read(json.loads(path.read_text())) == found


def test_exact_conversions_change_no_loss(stored):
    """Catches a conversion that is measured with the layers of another."""
    _, found = stored
    base = found.conversions[0]
    assert found.conversion("MLA, exact").losses == pytest.approx(base.losses, abs=1e-5)
    assert found.times_worse("GQA") == (1.0, 1.0, 1.0)
    names = [made.name for made in found.conversions]
    assert len(names) == len(set(names)) == 1 + 1 + 2 + 2 + 2 * 2
    others = [made for made in found.conversions if made.kind in ("MQA", "latent")]
    assert all(made.losses != pytest.approx(base.losses, abs=1e-5) for made in others)
    assert {made.numbers for made in others if made.kind == "MQA"} == {8}
    with pytest.raises(ValueError, match="name must be one of GQA"):
        found.conversion("MHA")


def test_without_a_head_is_what_a_whole_pass_gives(stored, model):
    """Catches a pass that starts at the wrong block, or counts the random first half."""
    path, found = stored
    text = torch.tensor(Letters().encode(prose("held_out")))
    passage = cut(text, TINY.context + TINY.tokens, TINY.passages)[0]
    for layer, head in ((0, 2), (2, 5)):
        with without_head(model.blocks[layer].attention, head):
            want = model.losses(passage[:, : TINY.looked_at]).mean().item()
        assert found.heads.without[layer][head] == pytest.approx(want, abs=1e-5)
    assert len(found.heads.first) == SMALL.n_layers
    assert len(found.heads.first[0]) == SMALL.n_heads


def test_training_on_helps_and_is_kept_apart(stored):
    _, found = stored
    assert [healed.name for healed in found.healed] == [
        "GQA",
        "MQA, mean",
        "latent 2, activations",
    ]
    for healed in found.healed:
        assert [steps for steps, _ in healed.losses] == [0, 1, 2]
        base = found.conversion(healed.name).losses
        assert healed.losses[0][1] == pytest.approx(base, abs=1e-5)
        assert healed.losses[-1][1] != pytest.approx(base, abs=1e-5)


def test_a_file_of_other_settings_is_refused_and_stays(stored, model):
    path, _ = stored
    before = path.read_bytes()
    with pytest.raises(ValueError, match="json must have the same settings and text"):
        run(path, model, Letters(), replace(TINY, period=6), progress=lambda line: None)
    assert path.read_bytes() == before


def test_a_restart_measures_nothing_again(stored, model, monkeypatch):
    path, found = stored
    monkeypatch.setattr(real_model, "TRAINED_ON", ("GQA",))

    def again(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(real_model, "passage_losses", again)
    assert run(path, model, Letters(), TINY, progress=lambda line: None) == found


def test_losses_count_after_the_context(model):
    tokens = torch.arange(12)[None]
    want = model.losses(tokens)[0, 4:].mean().item()  # the fifth loss is that of token 5
    assert passage_losses(model, [tokens], 5) == [pytest.approx(want, abs=1e-6)]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Settings(passages=0), "passages must be an integer of at least 1"),
        (lambda: Settings(ranks=(4, 0)), "ranks must be an integer of at least 1"),
        (lambda: cut(torch.arange(5), 3, 2), "tokens must be at least 6, got 5"),
        (lambda: prose("other"), "part must be 'held_out' or 'sample', got 'other'"),
    ],
)
def test_what_does_not_fit(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_stored_is_whole_and_of_this_text():
    """Catches a text that was changed after the run, and a run that was stopped."""
    import hashlib

    found = RealModelFindings.load()
    assert found.settings == Settings()
    for part in ("held_out", "sample"):
        digest = hashlib.sha256(prose(part).encode()).hexdigest()
        assert found.text[part]["sha256"] == digest
    assert {healed.name for healed in found.healed} == set(real_model.TRAINED_ON)
    assert found.provenance["torch"]
    base = found.conversions[0]
    assert found.conversion("MLA, exact").losses == pytest.approx(base.losses, abs=1e-4)
    assert (
        found.conversion("latent 128, activations").losses
        < found.conversion("MQA, mean").losses
    )
