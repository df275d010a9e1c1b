"""The picture of measured times: floors, marks, one phase at a time."""

import pytest

from attnlib import bench
from attnlib.bench import Row
from attnlib.book.plots import step_times

SMALL = bench.geometries(24, 6, 3, kv_lora_rank=10, qk_rope_head_dim=4)


def row(variant="MHA", tokens=5, seconds=3.0, floor=2.0, **options):
    fields = {"code": "attnlib", "phase": "decode", "batch_size": 1, "low": 2.5, "high": 4.0,
              "flops": 10, "n_bytes": 20, "bytes_per_second": 1e9, "flops_per_second": 1e10,
              **options}  # fmt: skip
    return Row(variant=variant, tokens=tokens, seconds=seconds, floor_seconds=floor, **fields)


def test_picture_draws_floors_and_marks():
    """Catches a panel under another variant's name, and rows of two phases in one picture."""
    rows = [row(variant, tokens, 0.003, 0.002, low=0.0029, high=0.0031)
            for variant in SMALL for tokens in (9, 5)]  # fmt: skip
    rows += [row("MHA", 5, 0.5, 0.002, low=0.45, high=0.55, code="transformers")]
    figure = step_times(rows)
    assert [ax.get_title(loc="left") for ax in figure.axes] == list(SMALL)
    for ax in figure.axes:
        floor = ax.lines[0]
        assert list(floor.get_xdata()) == [5, 9]
        assert list(floor.get_ydata()) == [2.0, 2.0]
    marks = [list(line.get_ydata()) for line in figure.axes[0].lines[1:]]
    assert [500.0] in marks
    assert [3.0, 3.0] in marks
    assert [500.0] not in [list(line.get_ydata()) for line in figure.axes[1].lines]
    with pytest.raises(ValueError, match="one phase, got decode and prefill"):
        step_times([*rows, row(phase="prefill")])
    with pytest.raises(ValueError, match="one phase, got none"):
        step_times([])


def test_a_disturbed_run_has_no_marks():
    """Catches a picture that suggests an order which the text below it refuses."""
    rows = [row(variant, 5, low=2.0, high=4.0) for variant in SMALL]
    figure = step_times(rows)
    for ax in figure.axes:
        assert all(line.get_marker() in ("none", "None") for line in ax.lines)
    (legend,) = figure.legends
    assert "disturbed by something else" in legend.get_texts()[-1].get_text()
