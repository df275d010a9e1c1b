"""The picture of a step on several devices: it draws the numbers that it is given."""

import pytest

from attnlib.book import plots
from attnlib.layers import SPLITS

TIMES = {split: {8: (2.0, 1.0), 1: (9.0, 0.0)} for split in SPLITS}


def test_lines_are_reading_and_reading_with_the_link():
    """Catches points joined out of order, and a link that is left out or drawn alone."""
    for ax in plots.split_times({"A": TIMES, "B": TIMES}).axes:
        lines = [line.get_xydata().tolist() for line in ax.lines]
        assert lines == [[[1, 9], [8, 2]], [[1, 9], [8, 3]]] * len(SPLITS)


def test_a_split_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"split must be one of heads, .*got 'layers'"):
        plots.split_times({"A": {"layers": {1: (1.0, 0.0)}}})
