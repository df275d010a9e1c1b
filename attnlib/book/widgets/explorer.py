"""The cache explorer: how much memory a cache takes, and what each variant would change."""

from __future__ import annotations

import html
from collections.abc import Mapping

import traitlets

from attnlib.book.widgets.base import StateError, Widget, one_of, table
from attnlib.costs import CACHE_NUMBERS, Geometry, check_positive, evaluate

OWN = "your own geometry"  # the last entry in the list of models
UNITS = {"GB": 10**9, "GiB": 2**30}
FORMATS = {
    32: "float32, 4 bytes",
    16: "bfloat16, 2 bytes",
    8: "8-bit, 1 byte",
    4: "4-bit, ½ byte",
}
SIZES = (
    "n_layers",
    "n_heads",
    "n_kv_heads",
    "head_dim",
    "v_head_dim",
    "kv_lora_rank",
    "qk_rope_head_dim",
)
LIMITS = {
    "n_layers": 1000,
    "n_heads": 1024,
    "n_kv_heads": 1024,
    "head_dim": 1024,
    "v_head_dim": 1024,
    "kv_lora_rank": 65_536,
    "qk_rope_head_dim": 1024,
    "context": 10_000_000,
    "users": 65_536,
    "memory": 1_000_000,
}  # what the page's fields take; every variant's bytes per token stay below 2**53


class CacheExplorer(Widget, file="explorer"):
    """The cache of a model beside what it would be in the other variants.

    Args:
        models: published models by name; the last entry of the list is the reader's own. Every
            layer must see all tokens: a model with windows is refused, since its cache is not
            in proportion to the context.
        label: the figure's title.
        model: the one shown first; ``None`` means the first.
        context: tokens kept of each user, at first.
        users: sequences at a time, at first.
        bits: of one stored number, at first: 32, 16, 8 or 4.
        memory: what there is for the cache, in ``unit``, at first.
        unit: ``"GB"``, 10**9 bytes, or ``"GiB"``, 2**30 bytes.

    Attributes:
        model: the model shown; setting it sets the sizes.
        n_layers: the sizes shown, by the names of :class:`attnlib.costs.Geometry`; setting one
            makes the model the reader's own. ``n_kv_heads`` is what the GQA bar has.
        context: tokens kept of each user.
        users: sequences at a time.
        bits: of one stored number.
        memory: what there is for the cache, in ``unit``.
        unit: of ``memory``.

    Raises:
        ValueError: if there is no model, one is no :class:`attnlib.costs.Geometry`, has windows
            or exceeds the page's limits, or if a first state is out of range.
    """

    anchor = "cache-explorer"

    model = traitlets.Unicode().tag(sync=True, state=True)
    n_layers = traitlets.Int(1).tag(sync=True, state=True)
    n_heads = traitlets.Int(1).tag(sync=True, state=True)
    n_kv_heads = traitlets.Int(1).tag(sync=True, state=True)
    head_dim = traitlets.Int(1).tag(sync=True, state=True)
    v_head_dim = traitlets.Int(1).tag(sync=True, state=True)
    kv_lora_rank = traitlets.Int(1).tag(sync=True, state=True)
    qk_rope_head_dim = traitlets.Int(1).tag(sync=True, state=True)
    context = traitlets.Int(1).tag(sync=True, state=True)
    users = traitlets.Int(1).tag(sync=True, state=True)
    bits = traitlets.Int(16).tag(sync=True, state=True)
    memory = traitlets.Int(1).tag(sync=True, state=True)
    unit = traitlets.Unicode("GB").tag(sync=True, state=True)

    _model = one_of("model", lambda self: [*self.data["models"], OWN])
    _bits = one_of("bits", lambda self: FORMATS)
    _unit = one_of("unit", lambda self: UNITS)

    @traitlets.validate(*LIMITS)
    def _limited(self, proposal) -> int:
        """Admit what the page's fields take."""
        name, value = proposal["trait"].name, proposal["value"]
        if not 1 <= value <= LIMITS[name]:
            raise StateError(
                f"{name} must be an integer from 1 to {LIMITS[name]:,}, got {value!r}"
            )
        return value

    def __init__(
        self,
        models: Mapping[str, Geometry],
        *,
        label: str = "How much memory the cache takes",
        model: str | None = None,
        context: int = 8192,
        users: int = 32,
        bits: int = 16,
        memory: int = 80,
        unit: str = "GB",
    ):
        super().__init__(data=explorer_data(models), label=label)
        first = {"context": context, "users": users, "bits": bits, "memory": memory}
        self.model = next(iter(models)) if model is None else model
        for name, value in first.items():
            self.set_trait(name, check_positive(name, value))
        self.unit = unit

    @traitlets.observe("model")
    def _take_sizes(self, change) -> None:
        """Show the sizes of the model that was chosen."""
        sizes = self.data["models"].get(change["new"], {}).get("sizes", {})
        with self.hold_trait_notifications():
            for name, size in sizes.items():
                self.set_trait(name, size)

    @traitlets.observe(*SIZES)
    def _become_own(self, _) -> None:
        """Call the sizes the reader's own once they are no published model's."""
        found = self.data["models"].get(self.model)
        if found and any(getattr(self, name) != found["sizes"][name] for name in SIZES):
            self.model = OWN

    def fallback(self) -> str:
        """Return the four variants of each model at the first state."""
        memory = self.memory * UNITS[self.unit]
        rows = []
        for name, entry in self.data["models"].items():
            for variant, polynomial in CACHE_NUMBERS.items():
                numbers = entry["sizes"]["n_layers"] * evaluate(polynomial, entry["sizes"])
                token_bits = numbers * self.bits
                cache = -(-token_bits * self.context * self.users // 8)
                own = " (as published)" * (variant == entry["variant"])
                rows.append(
                    [
                        f"{name}, {variant}{own}",
                        f"{-(-token_bits // 8):,}",
                        f"{cache:,}",
                        amount(cache, "GiB"),
                        amount(cache, "GB"),
                        f"{memory * 8 // token_bits:,}",
                        f"{memory * 8 // (token_bits * self.context):,}",
                    ]
                )
        have = f"{self.memory:,} {self.unit}"
        head = [
            "model, variant",
            "bytes a token",
            "bytes of the cache",
            "in GiB",
            "in GB",
            f"tokens that fit in {have}",
            "users that fit",
        ]
        caption = (
            f"Cache of {self.users:,} users with {self.context:,} tokens each, in"
            f" {FORMATS[self.bits]} a number."
        )
        notes = [entry["assumed"] for entry in self.data["models"].values()]
        return f"{table(head, rows, caption)}\n<p>{html.escape(' '.join(notes))}</p>"


def explorer_data(models: Mapping[str, Geometry]) -> dict:
    """Return what the page computes from: sizes, formulas, limits.

    Args:
        models: published models by name.

    Returns:
        The widget's data.

    Raises:
        ValueError: if there is no model, or one does not fit the page.
    """
    if not models:
        raise ValueError(f"models must name at least one geometry, got {models!r}")
    if OWN in models:
        raise ValueError(f"models must not use the name {OWN!r}, got it for {models[OWN]}")
    entries = {}
    for name, geometry in models.items():
        if not isinstance(geometry, Geometry):
            raise ValueError(f"models must be attnlib.costs.Geometry, got {geometry!r}: {name}")
        if geometry.window is not None:
            raise ValueError(f"window of {name} must be None here, got {geometry.window:,}")
        sizes = comparable(geometry)
        for size, value in sizes.items():
            if value > LIMITS[size]:
                limit = LIMITS[size]
                raise ValueError(f"{size} of {name} must be at most {limit:,}, got {value:,}")
        assumed = assumptions(name, geometry, sizes)
        entries[name] = {"sizes": sizes, "variant": geometry.variant, "assumed": assumed}
    return {
        "models": entries,
        "own": OWN,
        "numbers": {
            variant: [[factor, list(names)] for factor, names in polynomial]
            for variant, polynomial in CACHE_NUMBERS.items()
        },
        "formats": [[bits, text] for bits, text in FORMATS.items()],
        "units": UNITS,
        "limits": LIMITS,
    }


def comparable(geometry: Geometry) -> dict[str, int]:
    """Return all sizes that the four variants need, and assume those that a model lacks.

    Args:
        geometry: a model's.

    Returns:
        Sizes by name. GQA gets 8 key/value heads, or the most below that divide the query
        heads; MLA gets DeepSeek-V2's proportions (arXiv 2405.04434, Table 1): a latent of
        four head widths and a rotary key of half a one.
    """
    sizes = {
        "kv_lora_rank": 4 * geometry.head_dim,
        "qk_rope_head_dim": max(1, geometry.head_dim // 2),
        **geometry.sizes(),
    }
    if geometry.variant != "GQA":
        H = geometry.n_heads
        sizes["n_kv_heads"] = max(n for n in range(1, 9) if H % n == 0 and n < max(H, 2))
    return {name: sizes[name] for name in SIZES}


def assumptions(name: str, geometry: Geometry, sizes: Mapping[str, int]) -> str:
    """Say which of a model's sizes are not its own.

    Args:
        name: of the model.
        geometry: its sizes as published.
        sizes: what :func:`comparable` made of them.

    Returns:
        One or two sentences.
    """
    said = (
        f"{name} is no GQA model: its GQA bar assumes {sizes['n_kv_heads']} key/value heads. "
    )
    said *= geometry.variant != "GQA"
    if geometry.variant != "MLA":
        said += (
            f"{name} has no latent: its MLA bar assumes DeepSeek-V2's proportions, a latent of"
            " 4 head widths and a rotary key of ½ a head width."
        )
    return said.strip()


def amount(n_bytes: int, unit: str) -> str:
    """Return bytes in a unit, rounded half up: two decimals, four below 0.1.

    Args:
        n_bytes: bytes.
        unit: ``GB`` or ``GiB``.

    Returns:
        The number, with commas.
    """
    size = UNITS[unit]
    digits = 2 if 10 * n_bytes >= size else 4
    whole, rest = divmod((2 * n_bytes * 10**digits + size) // (2 * size), 10**digits)
    return f"{whole:,}.{rest:0{digits}}"
