"""The front page's figure: what one user's cache takes in each variant as the context grows."""

from __future__ import annotations

import traitlets

from attnlib.book.appearance import variants_json
from attnlib.book.widgets.base import Widget, one_of, table
from attnlib.book.widgets.explorer import UNITS, amount, comparable, window_of
from attnlib.costs import Geometry, evaluate
from attnlib.scalars import check_size
from attnlib.variants import VARIANTS

CONTEXTS = tuple(2**i for i in range(10, 21))  # tokens
BITS = 16  # per number


class CacheGrowth(Widget, file="growth"):
    """Bars of one user's cache in each variant, against the memory of one device.

    Args:
        geometry: the model's sizes; each variant is shown with its heads and layers.
        name: of the model.
        label: the figure's title.
        context: tokens, at first; a power of two from 1,024 to 1,048,576.
        memory: of the device, in GB.

    Attributes:
        context: tokens that the user's cache holds.

    Raises:
        ValueError: if the context is not one of those, or the memory is below 1.
    """

    anchor = "cache-growth"

    context = traitlets.Int(CONTEXTS[0]).tag(sync=True, state=True)
    _context = one_of("context", lambda self: self.data["contexts"])

    def __init__(
        self,
        geometry: Geometry,
        *,
        name: str,
        label: str = "How much memory one conversation takes",
        context: int = 2**17,
        memory: int = 80,
    ):
        sizes = comparable(geometry)
        data = {
            "name": name,
            "contexts": list(CONTEXTS),
            "memory": check_size("memory", memory) * UNITS["GB"],
            "memory_text": f"{memory} GB",
            "GiB": UNITS["GiB"],
            "variants": [
                {
                    **appearance,
                    "title": variant.title,
                    "bytes": evaluate(variant.cache_numbers, sizes)
                    * geometry.n_layers
                    * BITS
                    // 8,
                    "window": window_of(variant),
                }
                for appearance, variant in zip(variants_json(), VARIANTS.values(), strict=True)
            ],
        }
        super().__init__(data=data, label=label)
        self.context = context

    def fallback(self) -> str:
        """Return a table of the caches at three contexts."""
        shown = [CONTEXTS[i] for i in (2, 5, 7)]
        head = ["variant", "bytes per token", *(f"GiB at {n:,} tokens" for n in shown)]
        rows = [
            [
                one["title"],
                f"{one['bytes']:,}",
                *(amount(one["bytes"] * min(n, one["window"] or n), "GiB") for n in shown),
            ]
            for one in self.data["variants"]
        ]
        caption = (
            "The cache of one user, for a model with the layers and heads of"
            f" {self.data['name']}, two bytes per number."
        )
        return table(head, rows, caption)
