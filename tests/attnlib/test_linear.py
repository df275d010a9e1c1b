"""The linear layer that a CPU's threads share: nn.Linear, at every shape and in every dtype."""

import pytest
import torch
from torch import nn

from attnlib.linear import Linear
from attnlib.testing.allocations import AllocationRecorder


@pytest.fixture(autouse=True)
def two_threads():
    """The test runner gives each process one thread, and with one nothing is cut."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def pair(inputs, outputs, bias, dtype=torch.float64):
    """Ours and nn.Linear with the same weights."""
    torch.manual_seed(0)
    theirs = nn.Linear(inputs, outputs, bias=bias, dtype=dtype)
    ours = Linear(inputs, outputs, bias=bias, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize(
    "shape", [(7,), (1, 7), (1, 1, 7), (3, 7), (1, 3, 7), (2, 1, 7)], ids=str
)
@pytest.mark.parametrize("outputs", [1, 5, 12, 32, 48])
@pytest.mark.parametrize("bias", [False, True])
def test_equals_nn_linear(shape, outputs, bias):
    """Catches parts in the wrong order, a lost bias and a lost axis; also in gradients."""
    ours, theirs = pair(7, outputs, bias)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    expected, out = theirs(x), ours(x)
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    target = torch.randn_like(expected)
    for layer, result in ((ours, out), (theirs, expected)):
        layer.input_gradient = torch.autograd.grad(
            (result * target).sum(), [x, *layer.parameters()]
        )
    for a, b in zip(ours.input_gradient, theirs.input_gradient, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def operators(layer, x):
    with AllocationRecorder() as recorder:
        layer(x)
    return recorder.operators


def test_one_row_is_cut_into_parts_and_more_rows_are_not():
    """Catches the fast way that never runs, and one that runs where it is slower."""
    ours, _ = pair(7, 32, False, torch.float32)
    assert any("bmm" in name for name in operators(ours, torch.randn(1, 1, 7)))
    assert not any("bmm" in name for name in operators(ours, torch.randn(1, 2, 7)))
    torch.set_num_threads(1)
    assert not any("bmm" in name for name in operators(ours, torch.randn(1, 1, 7)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_left_to_nn_linear(dtype):
    """Catches the fast way where it is no faster."""
    ours, theirs = pair(7, 32, True, dtype)
    x = torch.randn(1, 7, dtype=dtype)
    assert torch.equal(ours(x), theirs(x))
    assert not any("bmm" in name for name in operators(ours, x))
