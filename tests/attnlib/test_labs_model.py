"""The laboratories' small model, with each attention layer in it."""

from functools import partial

import pytest
import torch
from helpers import CASES, D_MODEL, build, check_steps

from attnlib.labs.model import TinyLM, device_of, n_params
from attnlib.testing import window_of

EVERY = pytest.mark.parametrize("name", CASES)
D_FF, LAYERS = 17, 2


def make(name):
    torch.manual_seed(0)
    return TinyLM(partial(build, name), d_model=D_MODEL, n_layers=LAYERS, d_ff=D_FF).double()


@EVERY
def test_no_later_byte_changes_an_earlier_prediction(name):
    """Catches a model that sees what it has to predict: its loss would be wonderful."""
    model, tokens = make(name), torch.randint(256, (2, 9))
    before = model(tokens)
    for place in (0, 4, 8):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % 256
        moved = (model(changed) - before).abs().amax(dim=(0, 2))  # (9,)
        assert moved[:place].eq(0).all()
        reach = len(model.blocks) * (window_of(model.blocks[0].attention) - 1) + 1
        assert torch.equal(moved[place:] > 1e-9, torch.arange(9 - place) < reach)


@EVERY
def test_prefill_and_decode_equal_one_pass(name):
    """Catches a cache that is shared between layers, and positions that begin again."""
    check_steps(make(name))


@EVERY
def test_gradients_reach_every_parameter(name):
    model = make(name)
    model(torch.randint(256, (2, 6))).square().sum().backward()
    for label, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, label


def test_parameters_are_counted():
    """Catches a layer that is built once and used in every block."""
    model = make(CASES[0])
    attention = n_params(build(CASES[0]))
    blocks = LAYERS * (attention + 2 * D_MODEL * D_FF + 2 * D_MODEL)
    assert n_params(model) == blocks + 2 * 256 * D_MODEL + D_MODEL
    assert model.blocks[0].attention is not model.blocks[1].attention


def test_device_is_that_of_the_weights():
    assert device_of(make(CASES[0]).to("meta")) == torch.device("meta")
