"""Masks as tables: row = query asks, column = key answers, 1 = may attend."""

import pytest
import torch

from attnlib import causal_mask


def table(*rows):
    """A mask from rows of 0 and 1, as in ``"1100"``."""
    return torch.tensor([[cell == "1" for cell in row] for row in rows])


def test_causal_mask_of_a_whole_sequence():
    """Catches an off-by-one: a token sees itself, and nothing later."""
    mask = causal_mask(torch.arange(4), torch.arange(4))
    assert mask.dtype == torch.bool
    assert torch.equal(mask, table("1000", "1100", "1110", "1111"))


def test_causal_mask_of_new_tokens_behind_cached_ones():
    """Catches a mask aligned to the top left, which hides the cache from new tokens."""
    mask = causal_mask(torch.arange(3, 5), torch.arange(5))
    assert torch.equal(mask, table("11110", "11111"))


def test_one_new_token_sees_everything_stored():
    """Catches a decode step that sees only the first key."""
    assert torch.equal(causal_mask(torch.tensor([4]), torch.arange(5)), table("11111"))


WINDOWS = {
    1: table("10000", "01000", "00100", "00010", "00001"),
    2: table("10000", "11000", "01100", "00110", "00011"),
    3: table("10000", "11000", "11100", "01110", "00111"),
}


@pytest.mark.parametrize("window", WINDOWS)
def test_window_counts_the_query_itself(window):
    """Catches window = W - 1 and W + 1: a window of 1 sees only itself."""
    mask = causal_mask(torch.arange(5), torch.arange(5), window=window)
    assert torch.equal(mask, WINDOWS[window])


@pytest.mark.parametrize("window", [5, 6, 100])
def test_a_window_as_long_as_the_keys_is_full_attention(window):
    """Catches a window that cuts one key too many."""
    positions = torch.arange(5)
    full = causal_mask(positions, positions)
    assert torch.equal(causal_mask(positions, positions, window=window), full)


def test_positions_in_any_order():
    """Catches masks made from buffer indices instead of positions (a ring buffer's order)."""
    mask = causal_mask(torch.tensor([5, 2]), torch.tensor([4, 5, 0, 1, 2, 3]))
    assert torch.equal(mask, table("111111", "001110"))
    mask = causal_mask(torch.tensor([5, 2]), torch.tensor([4, 5, 0, 1, 2, 3]), window=2)
    assert torch.equal(mask, table("110000", "000110"))


def test_gaps_between_positions_count():
    """Catches a window measured in buffer slots instead of tokens."""
    mask = causal_mask(torch.tensor([10, 20]), torch.tensor([0, 9, 10, 15, 20]), window=6)
    assert torch.equal(mask, table("01100", "00011"))


def test_a_query_before_all_keys_sees_none():
    """Catches a mask that always leaves a key visible; attention then returns zeros."""
    mask = causal_mask(torch.tensor([0, 3]), torch.tensor([2, 3]))
    assert torch.equal(mask, table("00", "11"))


def test_int32_positions_work():
    """Catches a check that takes int64 alone."""
    mask = causal_mask(torch.arange(2, dtype=torch.int32), torch.arange(2))
    assert torch.equal(mask, table("10", "11"))
