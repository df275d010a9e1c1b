"""How fast a whole model decodes: what is counted, and that both decode the same token."""

import json

import pytest
import torch
from gguf_files import SMALL

from attnlib.labs import pace
from attnlib.labs.llama import Llama

pytest.importorskip("transformers", reason="transformers is missing: pip install transformers")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(pace, "SIZES", SMALL)
    monkeypatch.setattr(pace, "machine_rates", lambda **_: RATES)
    return pace.random_model("cpu", torch.float32)


class RATES:
    bytes_per_second = 1e9


def test_bytes_are_those_of_weights_and_caches(small):
    """Catches an embedding counted twice, and a cache of query heads."""
    weights = sum(weight.numel() for weight in small.parameters())
    cached = 5 * 7 * SMALL.n_layers * 2 * SMALL.n_kv_heads * SMALL.head_dim
    assert pace.step_bytes(small, small.new_caches(5, 7)) == 4 * (weights + cached)


def test_a_pace_has_both_and_a_floor(small):
    text = torch.arange(12).view(2, 6)
    found = pace.decode_pace(small, text, rounds=3)
    assert list(found.seconds) == ["attnlib", "transformers"]
    assert found.floor_seconds == pace.step_bytes(small, small.new_caches(2, 6)) / 1e9
    for middle, low, high in found.seconds.values():
        assert 0 < low <= middle <= high
    assert found.describe().count("\n") == 3


def test_every_step_decodes_the_same_token(small, monkeypatch):
    """Catches a cache that grows from step to step, on either side."""
    seen = []
    monkeypatch.setattr(Llama, "forward", watched(Llama.forward, seen))
    pace.decode_pace(small, torch.arange(12).view(2, 6), rounds=4)
    assert len(seen) == 1 + 5
    assert all(torch.equal(logits, seen[1]) for logits in seen[1:])


def watched(forward, seen):
    def call(*arguments, **options):
        seen.append(forward(*arguments, **options))
        return seen[-1]

    return call


def test_the_command_line_stores_what_it_prints(small, tmp_path, capsys, one_thread):
    path = tmp_path / "pace.json"
    options = ["--batch-sizes", "1", "2", "--tokens", "4", "--rounds", "1", "--json", str(path)]
    assert pace.main(options) == 0
    report = json.loads(path.read_text())
    assert [row["batch_size"] for row in report["paces"]] == [1, 2]
    assert report["provenance"]["device"] == "cpu"
    assert "batch of 2, 4 tokens each" in capsys.readouterr().out


@pytest.mark.parametrize(("shape", "rounds"), [((1, 1), 2), ((1, 4), 0)])
def test_what_cannot_be_timed(small, shape, rounds):
    with pytest.raises(ValueError, match="must be an integer of at least"):
        pace.decode_pace(small, torch.zeros(shape, dtype=torch.long), rounds=rounds)
