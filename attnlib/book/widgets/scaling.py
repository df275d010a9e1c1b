"""The scaling explorer: scores, weights and Jacobians of an untrained head, by its width."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import traitlets
from torch import Tensor

from attnlib.book.widgets.base import Widget, one_of, pack, table

# Factors of the scores, by the names that the chapter prints.
SCALES = {"1": lambda D: 1.0, "1/sqrt(D)": lambda D: D**-0.5, "1/D": lambda D: 1 / D}
BARS = 32  # largest weights of a query that are drawn; more would be too thin
MAX_WEIGHTS = 20_000  # bars in all; about 50 KB of page
EDGE, BINS = 4.4, 44  # the histogram of the scores ends at 4.4 sigmas; a bin is 0.2 wide
JACOBIAN_EDGE, JACOBIAN_BINS = 0.72, 36  # a norm is at most sqrt(1/2); a bin is 0.02 wide
NICE = (1, 1.2, 1.6, 2, 3, 4, 5, 6, 8, 10)  # ends of an axis, up to a power of ten


class ScalingExplorer(Widget, file="scaling"):
    """The softmax of a head's scores, by the width of the head and the scale.

    The page shows all scores as a histogram, the largest weights of one query as bars, the
    Jacobian norms of all queries, and a table. A row of weights is measured by its largest
    weight, by its entropy in nats, by the keys in use (the exponential of the entropy), and by
    the Frobenius norm of the softmax's Jacobian, ``diag(p) - p p^T``.

    Args:
        scores: width of a head, D, to the unscaled scores ``q @ k.T``, shape ``(..., S)``, the
            same for all widths, any float dtype. All axes but the last are the N queries.
        shown: how many of the N queries, from the first, the reader can choose.
        label: the figure's title.
        width: the width shown first; ``None`` means the one in the middle.
        scale: the scale shown first: ``1``, ``1/sqrt(D)`` or ``1/D``.
        query: the query shown first.

    Attributes:
        width: the width D shown.
        scale: factor of the scores.
        query: the query whose weights are shown.

    Raises:
        ValueError: if a width is not an integer of at least 1, if scores are missing, not
            finite, all equal or of different shapes, if ``shown`` is not in 1 to N, if there
            are more weights than a page can show, or if a first state is not one of the
            choices.
    """

    width = traitlets.Int().tag(sync=True, state=True)
    scale = traitlets.Unicode().tag(sync=True, state=True)
    query = traitlets.Int().tag(sync=True, state=True)

    _width = one_of("width", lambda self: self.data["widths"])
    _scale = one_of("scale", lambda self: self.data["scales"])
    _query = one_of("query", lambda self: range(self.data["shown"]))

    def __init__(
        self,
        scores: Mapping[int, Tensor],
        *,
        shown: int = 6,
        label: str = "One head at every width",
        width: int | None = None,
        scale: str = "1",
        query: int = 0,
    ):
        rows = checked_scores(scores, shown)
        widths = list(rows)
        super().__init__(data=scaling_data(rows, shown), label=label)
        self._rows = rows
        self.set_trait("width", widths[len(widths) // 2] if width is None else width)
        self.set_trait("scale", scale)
        self.set_trait("query", query)

    def fallback(self) -> str:
        """Return one table per scale, with one row per width."""
        tables = "\n".join(scaling_table(self._rows, scale) for scale in SCALES)
        # On a phone they are wider than the page, and what scrolls must be reachable by Tab.
        reachable = 'role="group" tabindex="0" aria-label="The numbers of each scale"'
        return f'<div class="scaling-tables" {reachable}>\n{tables}\n</div>'


def checked_scores(scores: Mapping[int, Tensor], shown: int) -> dict[int, Tensor]:
    """Return the scores, checked and sorted by width.

    Args:
        scores: width to scores, shape ``(..., S)``.
        shown: how many queries the reader can choose.

    Returns:
        Width to scores, shape ``(N, S)`` in float64, the narrowest first.

    Raises:
        ValueError: as :class:`ScalingExplorer` does.
    """
    if not scores:
        raise ValueError("scores must hold at least one width, got none")
    rows = {}
    for D in scores:
        if isinstance(D, bool) or not isinstance(D, int) or D < 1:
            raise ValueError(f"scores must be named by widths, whole from 1, got {D!r}")
    for D in sorted(scores):
        row = torch.as_tensor(scores[D]).detach().to("cpu", torch.float64)
        if row.ndim < 2 or row.numel() == 0 or row.shape[-1] < 2:
            raise ValueError(
                "scores must have shape (..., S), with a query and two keys or more, got"
                f" {tuple(row.shape)} at width {D}"
            )
        if not row.isfinite().all():
            raise ValueError(f"scores must be finite, got NaN or infinity at width {D}")
        row = row.flatten(0, -2)  # (N, S)
        if row.min() == row.max():
            raise ValueError(f"scores must differ, got the same for all at width {D}")
        rows[D] = row
    shapes = {tuple(row.shape) for row in rows.values()}
    if len(shapes) > 1:
        raise ValueError(f"scores must have one shape at all widths, got {sorted(shapes)}")
    N, S = shapes.pop()
    if not 1 <= shown <= N:
        raise ValueError(f"shown must be in 1 to the {N} queries, got {shown}")
    weights = len(rows) * len(SCALES) * shown * min(S, BARS)
    if weights > MAX_WEIGHTS:
        raise ValueError(
            f"a page can show {MAX_WEIGHTS:,} weights, got {weights:,}: {len(rows)} widths,"
            f" {len(SCALES)} scales, {shown} queries (shown) and {min(S, BARS)} keys"
        )
    return rows


def scaling_data(rows: Mapping[int, Tensor], shown: int) -> dict:
    """Return measures of the scores at each width, and of their softmax at each scale.

    Scores are linear in the scale, so the page needs the unscaled ones only. All numbers are
    packed: scores in sigmas, entropies and keys in use as shares of their largest possible
    value.

    Args:
        rows: width to scores of shape ``(N, S)``, float64.
        shown: how many queries the reader can choose.

    Returns:
        The widget's data.
    """
    N, S = next(iter(rows.values())).shape
    sigma = [row.std().item() for row in rows.values()]
    tops, bells, weights, numbers, norms = [], [], [], [], []
    for row, width_sigma in zip(rows.values(), sigma, strict=True):
        best = row.topk(2, dim=-1).values  # (N, 2)
        best[:, 1] = best[:, 0] - best[:, 1]  # the lead of the largest over the second
        tops.append(columns(best.T, shown))
        bell = torch.histc(row / width_sigma, BINS, -EDGE, EDGE)
        bells.append(bell / bell.max())
    for D, row in rows.items():
        for scale in SCALES.values():
            p = (row * scale(D)).softmax(dim=-1)  # (N, S)
            weights.append(p[:shown].topk(min(S, BARS), dim=-1).values)
            measured = torch.stack(measures(p))  # (4, N)
            units = torch.tensor([1, math.log(S), S, 1], dtype=p.dtype)
            numbers.append(columns(measured / units[:, None], shown))
            norms.append(torch.histc(measured[3], JACOBIAN_BINS, 0, JACOBIAN_EDGE) / N)
    tops, widest = torch.stack(tops), max(sigma)  # tops: (widths, 2, shown + 2)
    in_sigmas = tops / torch.tensor(sigma, dtype=tops.dtype)[:, None, None]
    sigmas = math.ceil(in_sigmas.abs().max().item())
    return {
        "widths": list(rows),
        "scales": list(SCALES),
        "factors": [[rounded(scale(D)) for scale in SCALES.values()] for D in rows],
        "queries": N,
        "keys": S,
        "shown": shown,
        "bars": min(S, BARS),
        "units": [1, rounded(math.log(S)), S, 1],
        "reach": nice(max(3 * widest, tops[:, 0, :shown].abs().max().item())),
        "sigma": [rounded(value) for value in sigma],
        "sigmas": sigmas,  # a packed score is 0 at minus so many sigmas, 1 at plus so many
        "edge": EDGE,
        "jacobian_edge": JACOBIAN_EDGE,
        "tops": pack(((in_sigmas / sigmas + 1) / 2).flatten().tolist()),
        "bells": pack(torch.stack(bells).flatten().tolist()),
        "weights": pack(torch.stack(weights).flatten().tolist()),
        "numbers": pack(torch.stack(numbers).flatten().tolist()),
        "norms": pack(torch.stack(norms).flatten().tolist()),
    }


def measures(p: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return how unequal softmax weights are, and how strongly they depend on the scores.

    Args:
        p: weights, shape ``(..., S)``, each row sums to 1; float64, which the Jacobian needs.

    Returns:
        Four tensors of shape ``(...)``: the largest weight; the entropy in nats; the keys in
        use, its exponential; the Frobenius norm of the softmax's Jacobian.
    """
    entropy = torch.special.entr(p).sum(dim=-1)
    squares = p.square().sum(dim=-1)
    # |diag(p) - p p^T|^2 = sum p^2 - 2 sum p^3 + (sum p^2)^2
    size = squares - 2 * p.pow(3).sum(dim=-1) + squares.square()
    return p.amax(dim=-1), entropy, entropy.exp(), size.clamp(min=0).sqrt()


def columns(values: Tensor, shown: int) -> Tensor:
    """Return the columns of the widget's table: the first queries, then mean and median.

    Args:
        values: shape ``(..., N)``.
        shown: how many queries to keep.

    Returns:
        Shape ``(..., shown + 2)``.
    """
    mean, median = values.mean(dim=-1), values.median(dim=-1).values
    return torch.cat([values[..., :shown], mean[..., None], median[..., None]], dim=-1)


def scaling_table(rows: Mapping[int, Tensor], scale: str) -> str:
    """Return an HTML table of one scale, with one row per width.

    Args:
        rows: width to scores of shape ``(N, S)``, float64.
        scale: one of the names in :data:`SCALES`.

    Returns:
        HTML.
    """
    N, S = next(iter(rows.values())).shape
    head = ["width D", "sigma of the scores", "largest score", "largest weight"]
    head += ["entropy", "keys in use", "Jacobian norm", "its median"]
    body = []
    for D, row in rows.items():
        z = row * SCALES[scale](D)
        largest, entropy, keys, size = measures(z.softmax(dim=-1))
        top = z.amax(dim=-1)
        cells = [f"{value.mean():.2f}" for value in (top, largest, entropy)]
        cells += [f"{keys.mean():.1f}", f"{size.mean():.3f}", f"{size.median():.3f}"]
        body.append([D, f"{z.std():.2f}", *cells])
    scaling = "Without scale" if scale == "1" else f"Scores times {scale}"
    caption = f"{scaling}: means over {N:,} queries that see {S} keys each; entropy in nats."
    return table(head, body, caption)


def rounded(value: float) -> float:
    """Return a number with six significant digits, as an integer if it is one."""
    short = float(f"{value:.6g}")
    return int(short) if short.is_integer() else short


def nice(value: float) -> float:
    """Return a round number at or above a positive one, for the end of an axis."""
    unit = 10.0 ** math.floor(math.log10(value))
    return rounded(unit * next(step for step in NICE if step * unit >= value))
