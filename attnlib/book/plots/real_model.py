"""Pictures of the real model: maps of its heads, and what conversions cost it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from attnlib.book.plots.style import BLUE, GREY, INK, ROLES, VERMILION, styled


@styled
def head_maps(
    panels: Sequence[Any], titles: Sequence[str], *, vmax: float | None = 1.0
) -> Figure:
    """Draw one number per head of a deep model, one narrow map per quantity.

    Args:
        panels: N arrays ``(n_layers, H)``.
        titles: one above each.
        vmax: the number with the darkest colour; ``None`` means the largest of each map.

    Returns:
        The figure.
    """
    panels = [np.asarray(panel, dtype=float) for panel in panels]
    layers, H = panels[0].shape
    fig, axes = plt.subplots(1, len(panels), figsize=(6.6, 0.16 * layers + 1.1), sharey=True)
    for ax, panel, title in zip(np.atleast_1d(axes), panels, titles, strict=True):
        top = panel.max() if vmax is None else vmax
        image = ax.imshow(panel, vmin=0, vmax=top, cmap="Blues", aspect="auto")
        ax.set_title(title, fontsize=11)
        ax.set_xticks(range(H))
        ax.set_xlabel("head")
        ax.tick_params(length=0)
        ax.spines[:].set(visible=True, color=GREY, linewidth=0.8)
        fig.colorbar(
            image, ax=ax, ticks=[0, top / 2, top], format="%.3g", orientation="horizontal",
            fraction=0.025, pad=0.1, aspect=30,
        )  # fmt: skip
    np.atleast_1d(axes)[0].set_yticks(range(0, layers, 2))
    np.atleast_1d(axes)[0].set_ylabel("layer")
    return fig


@styled
def resting_place(shares: Sequence[float], values: Sequence[float]) -> Figure:
    """Draw by layer how much weight lies on the first token, and how long its values are.

    Args:
        shares: mean weight on the first token, one per layer.
        values: length of the first token's values over the mean of the others, one per layer.

    Returns:
        The figure.
    """
    fig, (above, below) = plt.subplots(2, 1, figsize=(6.2, 3.9), sharex=True)
    layers = range(len(shares))
    above.bar(layers, shares, color=BLUE, width=0.75)
    above.set_ylim(0, 0.7)
    above.set_title("weight on the first token, mean of the heads", fontsize=11)
    below.bar(layers, values, color=ROLES["v"], width=0.75)
    below.axhline(1, color=INK, linewidth=0.9, linestyle="--")
    below.text(len(shares) - 0.5, 1.05, "as long as others", ha="right", fontsize=10)
    below.set_title("length of its values, other tokens = 1", fontsize=11)
    below.set_xlabel("layer")
    return fig


#: Marker, line and colour of each kind of conversion.
KINDS = {
    "latent, by activations": ("D", "-", ROLES["latent"]),
    "latent, by weights": ("o", "--", BLUE),
    "one KV head": ("s", "none", VERMILION),
}


@styled
def perplexity_by_cache(
    series: Mapping[str, Sequence[tuple[int, float]]],
    baseline: tuple[int, float],
    names: Mapping[str, tuple[int, float]],
) -> Figure:
    """Draw perplexity after a conversion over what is still cached.

    Args:
        series: of each kind, "latent, by activations", "latent, by weights" and "one KV head":
            ``(numbers per token and layer, perplexity)``.
        baseline: the same of the model as it was.
        names: labels of single points, with their places.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(6.4, 4.0))
    numbers, base = baseline
    ax.axhline(base, color=GREY, linewidth=1.0, linestyle=":")
    ax.plot(numbers, base, "*", color=INK, markersize=13, label="as it was: 3 KV heads")
    for kind, points in series.items():
        marker, line, color = KINDS[kind]
        xs, ys = zip(*sorted(points), strict=True)
        ax.plot(xs, ys, marker=marker, linestyle=line, color=color, markersize=6, label=kind)
    for name, (x, y) in names.items():
        ax.annotate(name, (x, y), xytext=(8, -3), textcoords="offset points", fontsize=10)
    ax.set_yscale("log")
    ax.set_xlim(0, numbers + 30)
    ax.set_xlabel("numbers cached per token and layer")
    ax.set_ylabel("perplexity on held-out prose")
    ax.legend(frameon=False, loc="upper right", bbox_to_anchor=(1.0, 0.9))
    return fig
