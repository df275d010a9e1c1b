"""Positions that callers give: ragged prompts, padding anywhere; and what is checked once."""

import sys

import pytest
import torch
from helpers import CASES, B, T, close, hidden, make

from attnlib import checks

EVERY_CASE = pytest.mark.parametrize("case", CASES)
LENGTHS = torch.tensor([7, 4, 1, 6, 2])
MORE = 3  # tokens that are decoded after the prompts


def ragged_positions(lengths, width):
    """Positions of prompts that are padded on the right; padding has a negative one."""
    slots = torch.arange(width)
    return torch.where(slots < lengths[:, None], slots, -1)  # (B, width)


@EVERY_CASE
def test_ragged_prompts_decode_as_one_by_one(case):
    """Catches padding that is seen, and a new token that stands after the longest prompt."""
    layer, x = make(case), hidden()
    new = hidden(tokens=MORE, seed=6)
    cache = layer.new_cache(B, T + MORE)
    out = layer(x, cache, positions=ragged_positions(LENGTHS, T))
    steps = [
        layer(new[:, i : i + 1], cache, positions=LENGTHS[:, None] + i) for i in range(MORE)
    ]
    for row, length in enumerate(LENGTHS.tolist()):
        alone = torch.cat([x[row : row + 1, :length], new[row : row + 1]], dim=1)
        expected = layer(alone)
        close(out[row : row + 1, :length], expected[:, :length])
        close(torch.cat(steps, dim=1)[row : row + 1], expected[:, length:])


@EVERY_CASE
def test_positions_that_follow_by_themselves_may_be_given(case):
    """Catches positions that change what they should only state."""
    layer, x = make(case), hidden()
    close(layer(x, positions=torch.arange(T)), layer(x))
    cache = layer.new_cache(B, T)
    parts = [layer(x[:, :4], cache, positions=torch.arange(4))]
    parts.append(layer(x[:, 4:], cache, positions=torch.arange(4, T).expand(B, -1)))
    close(torch.cat(parts, dim=1), layer(x))


@EVERY_CASE
def test_tokens_may_come_in_any_order(case):
    """Catches a causal mask by index: a token sees what stands before it, wherever it lies."""
    layer, x = make(case), hidden()
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    close(layer(x[:, order], positions=order), layer(x)[:, order])


@EVERY_CASE
def test_weights_on_padding_are_zero(case):
    """Catches padding that is hidden from the output and counted in the weights."""
    layer, x = make(case), hidden()
    _, weights = layer(x, positions=ragged_positions(LENGTHS, T), return_weights=True)
    for row, length in enumerate(LENGTHS.tolist()):
        assert (weights[row, :, :, length:] == 0).all()
        close(
            weights[row, :, :length].sum(dim=-1), torch.ones_like(weights[row, :, :length, 0])
        )


@EVERY_CASE
def test_once_given_positions_are_needed_at_each_call(case):
    """Catches a ragged batch whose next tokens silently stand at the wrong place."""
    layer, x = make(case), hidden()
    cache = layer.new_cache(B, T)
    layer(x[:, :3], cache, positions=ragged_positions(LENGTHS, 3))
    with pytest.raises(ValueError, match="positions must be given at each call once they were"):
        layer(x[:, 3:4], cache)
    assert cache.seen == 3
    cache.reset()
    close(layer(x, cache), layer(x))


@EVERY_CASE
def test_the_bytes_of_given_positions_count(case):
    """Catches a cache that says less than it takes."""
    layer, x = make(case), hidden()
    cache = layer.new_cache(B, T)
    plain = cache.nbytes
    layer(x, cache, positions=torch.arange(T))
    assert cache.nbytes > plain
    cache.reset()
    assert cache.nbytes == plain


@EVERY_CASE
def test_a_decode_step_is_checked_once(case):
    """Catches inner functions that check again what forward has checked."""
    layer, x = make(case), hidden()
    cache = layer.new_cache(B, T)
    layer(x[:, :4], cache)
    calls = []

    def count(frame, event, argument):
        if event == "call" and frame.f_code.co_filename == checks.__file__:
            calls.append(frame.f_code.co_name)

    sys.setprofile(count)
    try:
        layer(x[:, 4:5], cache)
    finally:
        sys.setprofile(None)
    assert calls == ["check_forward"]
