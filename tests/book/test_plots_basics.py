"""Pictures of the first idea: they show the numbers and the parts that the text names."""

import pytest
import torch

from attnlib.book import plots

Q = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])  # (T, D)
K = torch.tensor([[7.0, 0.0], [0.0, 8.0], [1.0, 1.0]])  # (S, D)


def texts(ax):
    """Return all labels of a picture in the order in which they were drawn."""
    return [text.get_text() for text in ax.texts if text.get_text()]


def test_the_table_of_scores_has_keys_as_columns():
    """Catches keys that are drawn as rows, and scores with a row per key."""
    (ax,) = plots.score_table(Q, K, ["a", "b", "c"], query=1, key=2).axes
    numbers = [float(text) for text in texts(ax) if text.lstrip("-").isdigit()]
    drawn = torch.tensor(numbers).split([6, 6, 9])
    assert torch.equal(drawn[0].view(3, 2), Q)
    assert torch.equal(drawn[1].view(2, 3), K.T)
    assert torch.equal(drawn[2].view(3, 3), Q @ K.T)
    assert {"Q: 3 x 2", "K.T: 2 x 3", "Q @ K.T: 3 x 3"} <= set(texts(ax))


def test_the_marked_score_is_where_its_row_and_column_meet():
    """Catches a row marked for the key and a column for the query."""
    (ax,) = plots.score_table(Q, K, ["a", "b", "c"], query=1, key=2).axes
    plain = ax.patches[0].get_facecolor()  # no number of the first row is marked
    marked = [i for i, patch in enumerate(ax.patches) if patch.get_facecolor() != plain]
    assert marked == [2, 3, 6 + 2, 6 + 5, 12 + 1 * 3 + 2]


def test_a_block_has_its_parts_in_order():
    """Catches a norm after attention, and a branch that does not add to the stream."""
    (ax,) = plots.transformer_block().axes
    boxes = {"norm", "attention", "feed-forward", "+"}
    at = sorted((text.get_position()[0], text.get_text()) for text in ax.texts)
    found = [name for _, name in at if name in boxes]
    assert found == ["norm", "attention", "+", "norm", "feed-forward", "+"]
    assert all(line.get_ydata()[0] == pytest.approx(1.0) for line in ax.lines)
