"""What the loss shows of a bug: a small model learns its task, and comparisons are right.

Catches a model that learns nothing, and a task whose least loss is wrong.
"""

import pytest
import torch

from attnlib import Rope
from attnlib.book.museum import (
    BUGS,
    LEAST_LOSS,
    ReferenceAttention,
    ReferenceLatentAttention,
    compare_loss,
    train_with,
)
from attnlib.book.museum.experiment import LENGTH, PERIOD, SMALL, patterns, small_layer


def test_training_goes_down_and_does_not_beat_the_least_loss():
    """Catches a leak in the reference, and one of a bug that the loss should show."""

    def reference():
        return ReferenceAttention(**SMALL[ReferenceAttention])

    right = train_with(reference)
    assert LEAST_LOSS < right.trained < 1.2  # from ln 16 = 2.8
    assert abs(right.trained - right.decoded) < 1e-4
    leaky = train_with(lambda: small_layer(BUGS["mask added as 0 and 1"]))
    assert leaky.trained < LEAST_LOSS - 0.2
    assert leaky.decoded > right.decoded + 0.5
    torch.manual_seed(5)  # the result depends on no seed but its own
    assert train_with(reference) == right


def test_texts_repeat_a_pattern():
    """Catches a text in which looking 8 tokens back does not help."""
    text = patterns(3, torch.Generator().manual_seed(0))
    assert text.shape == (3, LENGTH + 1)
    assert torch.equal(text[:, PERIOD:], text[:, :-PERIOD])
    assert not torch.equal(text[0], text[1])


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_fits_the_small_model(name):
    """Catches a bug whose layer of the small model lacks what makes it wrong."""
    bug = BUGS[name]
    layer = small_layer(bug)
    assert type(layer) is bug.layer
    assert layer(torch.zeros(2, 5, 32)).shape == (2, 5, 32)
    assert layer.n_heads == 4
    assert layer.rope == bug.arguments.get("rope", Rope())
    if bug.reference is not ReferenceLatentAttention:
        assert layer.n_kv_heads == (4 if "n_kv_heads" in bug.arguments else 2)


@pytest.mark.parametrize(
    ("loss", "words"), [(0.1, "too good"), (0.7, "as right"), (1.0, "as right"), (1.5, "worse")]
)
def test_losses_in_words(loss, words):
    assert compare_loss(loss, reference=0.8) == words
