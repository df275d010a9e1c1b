"""The scaling explorer in Python: its numbers are autograd's, its input is checked."""

from __future__ import annotations

import math
import re

import pytest
import torch
import traitlets

from attnlib import attention
from attnlib.book.widgets import ScalingExplorer
from attnlib.book.widgets.base import unpack
from attnlib.book.widgets.scaling import BARS, MAX_WEIGHTS, measures, nice

N, S, SHOWN = 12, 40, 3
WIDTHS = (4, 16, 100)


def random_scores(D: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(D)
    q, k = (torch.randn(n, D, generator=generator, dtype=torch.float64) for n in (N, S))
    return q @ k.T


SCORES = {D: random_scores(D) for D in WIDTHS}


def made(**options) -> ScalingExplorer:
    return ScalingExplorer(SCORES, **{"shown": SHOWN, **options})


def blocks(data: dict, name: str, *shape: int) -> torch.Tensor:
    """Return packed numbers of the widget in their shape."""
    return torch.tensor(unpack(data[name]), dtype=torch.float64).view(*shape)


def weights_of(D: int, factor: float) -> torch.Tensor:
    """Return the weights that attnlib's attention has for one query and key a dimension."""
    z = SCORES[D]
    keys = torch.eye(S, dtype=torch.float64)
    return attention(z[None, None], keys[None, None], keys[None, None], scale=factor)[1][0, 0]


def expected_columns(values: torch.Tensor) -> list[float]:
    return [*values[:SHOWN].tolist(), values.mean().item(), values.median().item()]


def jacobian_norm(z: torch.Tensor) -> float:
    by_torch = torch.autograd.functional.jacobian(lambda z: z.softmax(dim=0), z)
    return by_torch.norm().item()


@pytest.mark.parametrize("factor", [0.01, 1.0, 30.0])
def test_the_jacobian_norm_is_autograds_for_flat_and_settled_rows(factor):
    z = SCORES[16] * factor
    size = measures(z.softmax(dim=-1))[3]
    expected = torch.tensor([jacobian_norm(row) for row in z])
    torch.testing.assert_close(size, expected, rtol=1e-6, atol=1e-7, check_dtype=False)


def test_equal_weights_use_all_keys_and_one_winner_uses_one():
    p = torch.stack([torch.full((8,), 0.125), torch.eye(8)[3]]).double()
    largest, entropy, keys, size = measures(p)
    assert largest.tolist() == [0.125, 1]
    assert entropy.tolist() == pytest.approx([math.log(8), 0])
    assert keys.tolist() == pytest.approx([8, 1])
    assert size.tolist() == pytest.approx([math.sqrt(7) / 8, 0])


def test_bars_are_the_largest_weights_of_attention_in_order():
    data = made().data
    bars = blocks(data, "weights", len(WIDTHS), 3, SHOWN, BARS)
    for i, D in enumerate(WIDTHS):
        for j, factor in enumerate((1, D**-0.5, 1 / D)):
            expected = weights_of(D, factor)[:SHOWN].sort(descending=True).values[:, :BARS]
            torch.testing.assert_close(bars[i, j], expected, atol=1e-5, rtol=0)


def test_numbers_are_those_of_the_row_the_mean_and_the_median():
    data = made().data
    numbers = blocks(data, "numbers", len(WIDTHS), 3, 4, SHOWN + 2)
    units = torch.tensor(data["units"])
    assert data["units"] == pytest.approx([1, math.log(S), S, 1], rel=1e-5)
    for i, D in enumerate(WIDTHS):
        for j, factor in enumerate((1, D**-0.5, 1 / D)):
            p = weights_of(D, factor)
            entropy = -(p * p.clamp(min=1e-300).log()).sum(dim=-1)
            size = torch.tensor([jacobian_norm(row) for row in SCORES[D] * factor])
            for row, values in enumerate((p.amax(dim=-1), entropy, entropy.exp(), size)):
                columns = expected_columns(values)
                shown = numbers[i, j, row] * units[row]
                assert shown.tolist() == pytest.approx(columns, abs=5e-4)


def test_scores_are_found_again_from_sigmas():
    data = made().data
    tops = (2 * blocks(data, "tops", len(WIDTHS), 2, SHOWN + 2) - 1) * data["sigmas"]
    for i, D in enumerate(WIDTHS):
        assert data["sigma"][i] == pytest.approx(SCORES[D].std().item(), rel=1e-5)
        assert data["factors"][i] == pytest.approx([1, D**-0.5, 1 / D], rel=1e-5)
        first, second = SCORES[D].topk(2).values.T
        for row, values in enumerate((first, first - second)):
            columns = expected_columns(values)
            shown = tops[i, row] * data["sigma"][i]
            assert shown.tolist() == pytest.approx(columns, abs=1e-3 * data["sigma"][i])


def test_histograms_count_all_scores_and_all_queries():
    data = made().data
    bells = blocks(data, "bells", len(WIDTHS), -1)
    norms = blocks(data, "norms", len(WIDTHS), 3, -1)
    assert bells.amax(dim=-1).tolist() == pytest.approx([1] * len(WIDTHS))
    assert norms.sum(dim=-1).flatten().tolist() == pytest.approx(
        [1] * 3 * len(WIDTHS), abs=1e-3
    )
    half = bells.shape[-1] // 2
    for i, z in enumerate(SCORES.values()):  # the left half of the bell is the negative scores
        left = bells[i, :half].sum() / bells[i].sum()
        assert left.item() == pytest.approx((z < 0).double().mean().item(), abs=1e-3)
        size = measures(z.softmax(dim=-1))[3]
        small = norms[i, 0, : norms.shape[-1] // 2].sum().item()
        assert small == pytest.approx(
            (size < data["jacobian_edge"] / 2).double().mean().item(), abs=1e-3
        )


def test_the_axis_of_the_scores_holds_the_largest_at_every_width():
    data = made().data
    assert data["reach"] >= max(z[:SHOWN].max().item() for z in SCORES.values())
    assert data["reach"] >= 3 * max(data["sigma"])
    assert [nice(x) for x in (0.9, 1, 97, 101, 120.5)] == [1, 1, 100, 120, 160]


def test_widths_are_sorted_and_axes_before_the_last_are_queries():
    turned = {D: SCORES[D].float().view(3, 4, S) for D in reversed(WIDTHS)}
    widget = ScalingExplorer(turned, shown=SHOWN)
    assert widget.data["widths"] == list(WIDTHS)
    assert (widget.data["queries"], widget.data["keys"], widget.width) == (N, S, 16)
    torch.testing.assert_close(
        blocks(widget.data, "weights", -1),
        blocks(made().data, "weights", -1),
        atol=2e-5,
        rtol=0,
    )


def test_few_keys_have_a_bar_each():
    data = ScalingExplorer({8: SCORES[4][:, :5]}, shown=2).data
    assert data["bars"] == 5
    rows = blocks(data, "weights", 3, 2, 5)
    assert rows.sum(dim=-1).flatten().tolist() == pytest.approx([1] * 6, abs=1e-4)


def test_a_reader_can_set_what_is_among_the_choices():
    widget = made(width=100, scale="1/D", query=2)
    assert widget.state() == {"query": 2, "scale": "1/D", "width": 100}
    for name, value in (("width", 5), ("scale", "sqrt(D)"), ("query", SHOWN), ("query", -1)):
        with pytest.raises(ValueError, match=re.escape(f"got {value!r}")):
            setattr(widget, name, value)
    with pytest.raises(traitlets.TraitError):
        widget.width = "4"
    assert widget.state() == {"query": 2, "scale": "1/D", "width": 100}


LARGE = torch.randn(MAX_WEIGHTS, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("scores", "options", "message"),
    [
        ({}, {}, "scores must hold at least one width, got none"),
        ({0: SCORES[4]}, {}, "widths, whole from 1, got 0"),
        ({4.0: SCORES[4]}, {}, "widths, whole from 1, got 4.0"),
        ({True: SCORES[4]}, {}, "widths, whole from 1, got True"),
        ({4: torch.ones(7)}, {}, "shape (..., S), with a query and two keys or more, got (7,)"),
        ({4: torch.ones(7, 1)}, {}, "got (7, 1) at width 4"),
        ({4: torch.ones(0, 7)}, {}, "got (0, 7) at width 4"),
        (
            {4: SCORES[4] * math.nan},
            {},
            "scores must be finite, got NaN or infinity at width 4",
        ),
        ({4: SCORES[4] / 0}, {}, "scores must be finite"),
        ({4: torch.ones(7, 6)}, {}, "scores must differ, got the same for all at width 4"),
        (
            {4: SCORES[4], 8: SCORES[4][1:]},
            {},
            "one shape at all widths, got [(11, 40), (12, 40)]",
        ),
        (SCORES, {"shown": 0}, "shown must be in 1 to the 12 queries, got 0"),
        (SCORES, {"shown": 13}, "shown must be in 1 to the 12 queries, got 13"),
        ({4: LARGE}, {"shown": 1000}, "a page can show 20,000 weights, got 24,000"),
        (SCORES, {"width": 8}, "width must be one of 4, 16, 100, got 8"),
        (SCORES, {"scale": "2"}, "scale must be one of '1', '1/sqrt(D)', '1/D', got '2'"),
        (SCORES, {"query": 3}, "query must be one of 0, 1, 2, got 3"),
    ],
)
def test_bad_input_is_named(scores, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        ScalingExplorer(scores, **{"shown": SHOWN, **options})


def test_equal_widgets_give_equal_pages_and_moving_one_changes_its_state_alone():
    one, other = made(), made()
    assert one.html() == other.html()
    other.width = 4
    assert one.html().replace('"width":16', '"width":4') == other.html()


def test_the_table_says_the_same_without_scripts():
    text = made().fallback()
    assert text.count("<table>") == 3
    for D in WIDTHS:
        for factor in (1, D**-0.5, 1 / D):
            z = SCORES[D] * factor
            size = torch.tensor([jacobian_norm(row) for row in z])
            top = weights_of(D, factor).amax(dim=-1).mean()
            entropy = torch.distributions.Categorical(logits=z).entropy()
            row = [f"{z.std():.2f}", f"{z.amax(dim=-1).mean():.2f}", f"{top:.2f}"]
            row += [f"{entropy.mean():.2f}", f"{entropy.exp().mean():.1f}"]
            row += [f"{size.mean():.3f}", f"{size.median():.3f}"]
            cells = "".join(f"<td>{cell}</td>" for cell in row)
            assert f'<tr><th scope="row">{D}</th>{cells}</tr>' in text
