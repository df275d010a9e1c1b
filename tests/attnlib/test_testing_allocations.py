"""The recorder of allocations: what it sees, and what it leaves out.

Catches a copy of K and V, or a score matrix, that is made inside one of PyTorch's functions and
goes unnoticed.
"""

import pytest
import torch
import torch.nn.functional as F

from attnlib.testing.allocations import AllocationRecorder


def test_tensors_are_recorded_in_order_with_their_sizes():
    """Catches a result of several tensors of which one is left out."""
    with AllocationRecorder() as recorder:
        x = torch.zeros(2, 3)
        x.max(dim=1)
    assert [entry.shape for entry in recorder.allocations] == [(2, 3), (2,)]  # no indices
    assert [name.split(".")[1] for name in recorder.operators] == ["zeros", "max"]
    assert recorder.allocations[1].operator == recorder.operators[1]
    assert recorder.largest().numel == 6


def test_a_view_stores_nothing_of_its_own():
    """Catches an expanded K that counts as a copy, and a copy that does not."""
    k = torch.zeros(1, 4)
    with AllocationRecorder() as recorder:
        k.expand(3, 4)
        k.repeat(3, 1)
    view, *_, copy = recorder.allocations
    assert (view.numel, view.stored) == (12, 4)
    assert (copy.numel, copy.stored) == (12, 12)


def test_what_functions_make_inside_is_seen():
    """Catches a score matrix inside of the fallback of a fused kernel."""
    q = torch.zeros(1, 1, 5, 4, dtype=torch.float64)
    with (
        AllocationRecorder() as recorder,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        F.scaled_dot_product_attention(q, q, q)
    assert any(entry.shape[-2:] == (5, 5) for entry in recorder.allocations)


@pytest.mark.parametrize("asked", [True, False])
def test_lines_are_recorded_if_asked_for(asked):
    with AllocationRecorder((lambda: "here") if asked else None) as recorder:
        torch.zeros(2)
    assert recorder.allocations[0].line == ("here" if asked else "")


def test_nothing_is_recorded_outside():
    recorder = AllocationRecorder()
    with recorder:
        torch.zeros(2)
    torch.zeros(3)
    assert len(recorder.operators) == 1
