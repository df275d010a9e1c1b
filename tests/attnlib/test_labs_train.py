"""Training in the laboratories: what is compared is trained on the same text in one order."""

import math
from functools import partial

import pytest
import torch
from helpers import CASES, D_MODEL, build
from torch import nn

from attnlib.labs.model import TinyLM
from attnlib.labs.text import Text
from attnlib.labs.train import held_out_loss, learning_rate, next_byte_loss, step_cost, train

SMALL = {"batch_size": 3, "tokens": 8, "held_out_windows": 4}


class Successor(nn.Module):
    """Is sure that b + 1 follows b."""

    def __init__(self):
        super().__init__()
        self.sure = nn.Parameter(torch.tensor(50.0))

    def forward(self, tokens):
        return self.sure * nn.functional.one_hot((tokens + 1) % 256, 256).float()


def counting(n):
    return (torch.arange(n) % 256).to(torch.uint8)


def make_text():
    torch.manual_seed(1)
    return Text(torch.randint(90, 99, (4000,), dtype=torch.uint8), counting(900), {})


def make(name=CASES[0]):
    torch.manual_seed(0)
    return TinyLM(partial(build, name), d_model=D_MODEL, n_layers=1, d_ff=20)


def read_by(name, seed, **options):
    """The batches that a model reads in training; what it is judged on has other windows."""
    model, read = make(name), []

    def note(module, arguments):
        if torch.is_grad_enabled():
            read.append(arguments[0].clone())

    model.register_forward_pre_hook(note)
    train(model, make_text(), 5, seed=seed, **SMALL, **options)
    return torch.stack(read)


def test_every_variant_reads_the_same_batches():
    """Catches batches that depend on how many random numbers the weights took."""
    batches = [read_by(name, seed=3) for name in CASES]
    assert batches[0].shape == (5, 3, 8)
    assert all(torch.equal(batches[0], other) for other in batches[1:])
    assert not torch.equal(batches[0], read_by(CASES[0], seed=4))
    assert len(batches[0].flatten(1).unique(dim=0)) == 5  # no batch comes twice


def test_looking_changes_nothing():
    """Catches an evaluation that takes random numbers or leaves a gradient behind."""
    text, looked_at, left_alone = make_text(), make(), make()
    losses = train(looked_at, text, 4, seed=2, checkpoints=range(4), **SMALL)
    (end,) = train(left_alone, text, 4, seed=2, **SMALL)
    assert [step for step, _ in losses] == [0, 1, 2, 3, 4]
    assert losses[-1] == end
    for mine, other in zip(looked_at.parameters(), left_alone.parameters(), strict=True):
        assert torch.equal(mine, other)


def test_the_seed_decides_the_result():
    text = make_text()
    ends = [train(make(), text, 4, seed=seed, **SMALL) for seed in (0, 0, 1)]
    assert ends[0] == ends[1] != ends[2]


def test_training_learns_what_there_is_to_learn():
    """Catches a step in the wrong direction and a learning rate that is never set.

    The text has nine kinds of bytes in no order. A model that has learned that much, and
    nothing that is not there, is surprised by ln 9 nats.
    """
    torch.manual_seed(1)
    kinds = torch.randint(90, 99, (4000,), dtype=torch.uint8)
    options = {"batch_size": 8, "tokens": 16, "held_out_windows": 32, "lr": 3e-3}
    text = Text(kinds[:3000], kinds[3000:], {})
    (_, before), (_, after) = train(make(), text, 150, seed=0, checkpoints=[0], **options)
    assert before > 5
    assert math.log(9) - 0.05 < after < math.log(9) + 0.15


def test_the_rate_rises_to_its_peak_and_falls_to_a_tenth():
    rates = [learning_rate(step, 104, 2.0, 4) for step in range(104)]
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[54] == pytest.approx(1.1)  # half way down
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0.2 < rates[-1] < 0.21
    assert learning_rate(0, 1, 2.0, 0) == pytest.approx(2.0)


def test_loss_is_of_the_next_byte():
    """Catches a loss of the byte itself, or of the one after the next."""
    tokens = counting(20)[None].long()
    assert next_byte_loss(Successor(), tokens) < 1e-6
    assert next_byte_loss(lambda x: torch.zeros(*x.shape, 256), tokens).item() == pytest.approx(
        math.log(256)
    )


def test_held_out_loss_reads_the_held_out_part_only():
    text = make_text()  # counts in the held-out part and nowhere else
    assert held_out_loss(Successor(), text, tokens=8, count=5) < 1e-6
    other = Text(text.held_out, text.train, {})
    assert held_out_loss(Successor(), other, tokens=8, count=5) > 1


def test_held_out_loss_does_not_depend_on_how_many_are_read_at_once():
    """Catches a mean of means where the last part is smaller."""
    model, text = make(), make_text()
    whole = held_out_loss(model, text, tokens=8, count=7, at_once=7)
    assert held_out_loss(model, text, tokens=8, count=7, at_once=3) == pytest.approx(whole)


def test_measuring_a_step_leaves_the_weights():
    """Catches a measurement that trains on: what is measured later would be another model."""
    model, text = make(CASES[-1]), make_text()
    before = [parameter.clone() for parameter in model.parameters()]
    cost = step_cost(model, text, batch_size=2, tokens=8, steps=2)
    after = list(model.parameters())
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert all(parameter.grad is None for parameter in after)
    assert cost.cpu_seconds > 0
    twice = step_cost(model, text, batch_size=4, tokens=8, steps=1)
    logits = 2 * 8 * 256 * 4  # bytes of those of the smaller batch
    assert twice.peak_bytes - cost.peak_bytes >= logits


def test_what_does_not_fit_is_refused():
    text = make_text()
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        train(make(), text, 0, seed=0)
    with pytest.raises(ValueError, match=r"0 to steps = 4, got \[4, 5\]"):
        train(make(), text, 4, seed=0, checkpoints=[5])
    with pytest.raises(ValueError, match=r"warmup must be .* at least 0, got -1"):
        train(make(), text, 4, seed=0, warmup=-1)
    with pytest.raises(ValueError, match=r"at_once must be .* got 0"):
        held_out_loss(make(), text, at_once=0)
    with pytest.raises(ValueError, match="bytes, got 900"):
        held_out_loss(make(), text, tokens=899, count=2)
    with pytest.raises(ValueError, match="steps must be an integer of at least 1, got 0"):
        step_cost(make(), text, steps=0)
