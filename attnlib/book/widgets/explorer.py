"""The cache explorer: how much memory a cache takes, and what each variant would change."""

from __future__ import annotations

import html
from collections.abc import Mapping

import traitlets

from attnlib.book.appearance import variants_json
from attnlib.book.widgets.base import Widget, one_of, table, within
from attnlib.costs import Geometry, Polynomial, evaluate
from attnlib.scalars import check_size
from attnlib.variants import VARIANTS, Sizes, Variant, variant_of

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
}  # what the page's fields accept; every variant's bytes per token stay below 2**53
LATENT_PARTS = {"kv_lora_rank": "latent", "qk_rope_head_dim": "rotary"}


class CacheExplorer(Widget, file="explorer"):
    """The cache of a model, and what it would be in each of the other variants.

    Args:
        models: published models by name. The page's list adds one entry, the reader's own
            geometry. Every layer must see all tokens: models with windows are refused because
            their caches are not proportional to the context.
        label: the figure's title.
        model: the model shown first; ``None`` means the first of ``models``.
        context: tokens cached per user, at first.
        users: sequences at a time, at first.
        bits: per stored number, at first: 32, 16, 8 or 4.
        memory: for the cache, in ``unit``, at first.
        unit: ``"GB"``, 10**9 bytes, or ``"GiB"``, 2**30 bytes.

    Attributes:
        model: the model shown; setting it sets the sizes.
        n_layers: the sizes shown, by the names of :class:`attnlib.costs.Geometry`; setting one
            makes the model the reader's own. ``n_kv_heads`` is the number of KV heads of
            grouped-query attention.
        context: tokens cached per user.
        users: sequences at a time.
        bits: per stored number.
        memory: for the cache, in ``unit``.
        unit: of ``memory``.

    Raises:
        ValueError: if there is no model, if one is not a :class:`attnlib.costs.Geometry`, has
            windows or exceeds the page's limits, or if a first state is out of range.
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
    _limited = within(LIMITS)

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
            self.set_trait(name, check_size(name, value))
        self.unit = unit

    @traitlets.observe("model")
    def _take_sizes(self, change) -> None:
        """Set the sizes to those of the chosen model."""
        sizes = self.data["models"].get(change["new"], {}).get("sizes", {})
        with self.hold_trait_notifications():
            for name, size in sizes.items():
                self.set_trait(name, size)

    @traitlets.observe(*SIZES)
    def _become_own(self, _) -> None:
        """Make the model the reader's own once its sizes are no published model's."""
        published = self.data["models"].get(self.model)
        if published and any(getattr(self, name) != published["sizes"][name] for name in SIZES):
            self.model = OWN

    def fallback(self) -> str:
        """Return a table of all variants of each model at the first state."""
        memory = self.memory * UNITS[self.unit]
        rows = []
        for name, entry in self.data["models"].items():
            for variant in VARIANTS.values():
                numbers = evaluate(variant.cache_numbers, entry["sizes"])
                numbers *= entry["sizes"]["n_layers"]
                token_bits = numbers * self.bits
                window = window_of(variant) or max(self.context, memory * 8)
                user_bits = token_bits * min(self.context, window)
                cache = -(-user_bits * self.users // 8)
                fits = memory * 8 // token_bits
                own = " (as published)" * (variant.name == entry["variant"])
                rows.append(
                    [
                        f"{name}, {variant.name}{own}",
                        f"{-(-token_bits // 8):,}",
                        f"{cache:,}",
                        amount(cache, "GiB"),
                        amount(cache, "GB"),
                        "any number" if fits >= window else f"{fits:,}",
                        f"{memory * 8 // user_bits:,}",
                    ]
                )
        have = f"{self.memory:,} {self.unit}"
        head = [
            "model, variant",
            "bytes per token",
            "bytes of the cache",
            "in GiB",
            "in GB",
            f"tokens that fit in {have}",
            "users that fit",
        ]
        caption = (
            f"Cache of {self.users:,} users with {self.context:,} tokens each, in"
            f" {FORMATS[self.bits]} per number."
        )
        notes = [entry["assumed"] for entry in self.data["models"].values()]
        return f"{table(head, rows, caption)}\n<p>{html.escape(' '.join(notes))}</p>"


def explorer_data(models: Mapping[str, Geometry]) -> dict:
    """Return the data from which the page computes: variants, sizes, formulas, limits.

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
        variant = variant_of(geometry).name
        entries[name] = {"sizes": sizes, "variant": variant, "assumed": assumed}
    return {
        "models": entries,
        "own": OWN,
        "variants": [
            {
                **appearance,
                "numbers": [[factor, list(names)] for factor, names in variant.cache_numbers],
                "stores": stored_parts(variant.cache_numbers),
                "window": window_of(variant),
            }
            for appearance, variant in zip(variants_json(), VARIANTS.values(), strict=True)
        ],
        "sharing": variants_by_sharing(),
        "formats": [[bits, text] for bits, text in FORMATS.items()],
        "units": UNITS,
        "limits": LIMITS,
    }


def window_of(variant: Variant) -> int | None:
    """Return how many tokens a variant caches at most, or ``None`` if it caches all of them."""
    return variant.geometry(Sizes()).window


def stored_parts(polynomial: Polynomial) -> dict[str, object]:
    """Return how the page words what a variant caches per token.

    Args:
        polynomial: the variant's formula.

    Returns:
        ``latent``: ``[word, name of its size]`` for each part of a latent, or an empty list;
        ``heads``: the number of KV heads, or the name of the size that holds it.
    """
    sizes = {name for _, names in polynomial for name in names}
    parts = [[word, name] for name, word in LATENT_PARTS.items() if name in sizes]
    heads = [name for name in ("n_kv_heads", "n_heads") if name in sizes]
    return {"latent": parts, "heads": heads[0] if heads else 1}


def variants_by_sharing() -> dict[str, str]:
    """Return the names of attention with one KV head, with a few, and with all of them."""
    kv_heads = {"one": 1, "some": 2, "all": 4}
    return {key: variant_of(Geometry(1, 4, H_kv, 1)).name for key, H_kv in kv_heads.items()}


def users_of(size: str) -> str:
    """Return the names of the variants whose caches depend on a size, with commas.

    Args:
        size: its name, such as ``"kv_lora_rank"``.

    Returns:
        Such as ``"MLA"``.
    """
    users = [
        variant.name
        for variant in VARIANTS.values()
        if any(size in names for _, names in variant.cache_numbers)
    ]
    return ", ".join(users)


def is_grouped(geometry: Geometry) -> bool:
    """Return whether several groups of query heads share a KV head each."""
    return 1 < geometry.n_kv_heads < geometry.n_heads


def comparable(geometry: Geometry) -> dict[str, int]:
    """Return the sizes that all variants need, with assumptions for those a model lacks.

    Args:
        geometry: a model's.

    Returns:
        Sizes by name. Grouped-query attention gets 8 KV heads, or the most below 8 that divide
        the query heads; latent attention gets DeepSeek-V2's proportions (arXiv 2405.04434,
        Table 1): a latent of four head widths and a rotary key of half a head width.
    """
    sizes = {
        "kv_lora_rank": 4 * geometry.head_dim,
        "qk_rope_head_dim": max(1, geometry.head_dim // 2),
        **geometry.sizes(),
    }
    if not is_grouped(geometry):
        H = geometry.n_heads
        sizes["n_kv_heads"] = max(n for n in range(1, 9) if H % n == 0 and n < max(H, 2))
    return {name: sizes[name] for name in SIZES}


def assumptions(name: str, geometry: Geometry, sizes: Mapping[str, int]) -> str:
    """Return which of a model's sizes are assumed, in words.

    Args:
        name: of the model.
        geometry: its sizes as published.
        sizes: the sizes from :func:`comparable`.

    Returns:
        Up to two sentences.
    """
    sentences = []
    if not is_grouped(geometry):
        grouped = users_of("n_kv_heads")
        sentences.append(
            f"{name} is no {grouped} model: its {grouped} bar assumes {sizes['n_kv_heads']}"
            " KV heads."
        )
    if geometry.kv_lora_rank is None:
        sentences.append(
            f"{name} has no latent: its {users_of('kv_lora_rank')} bar assumes DeepSeek-V2's"
            " proportions, a latent of 4 head widths and a rotary key of ½ a head width."
        )
    return " ".join(sentences)


def amount(n_bytes: int, unit: str) -> str:
    """Return bytes in a unit, rounded half up to two decimals, or to four below 0.1.

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
