"""Fixtures of more than one of the unit tests."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """A script sets the number of threads; the tests behind it get theirs back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
