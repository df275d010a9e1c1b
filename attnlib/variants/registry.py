"""The registry: one entry per variant, and everything that runs over all of them asks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from attnlib.costs import Geometry, Polynomial, add_formula, remove_formula
from attnlib.rope import Rope
from attnlib.scalars import check_size


@dataclass(frozen=True)
class Sizes:
    """What a comparison of variants holds equal: the sizes of one layer.

    Args:
        d_model: width of the residual stream.
        n_heads: query heads, H, which divides ``d_model``.
        n_kv_heads: KV heads of a variant that groups, more than 1 and fewer than H.
        kv_lora_rank: width of a latent, d_c.
        qk_rope_head_dim: width of a shared rotary key, d_h^R.
        window: tokens that a query sees in a variant with a window, its own included, W.

    Raises:
        ValueError: if a size is below 1, ``n_heads`` does not divide ``d_model``, or
            ``n_kv_heads`` does not make groups.
    """

    d_model: int = 2048
    n_heads: int = 16
    n_kv_heads: int = 4
    kv_lora_rank: int = 512
    qk_rope_head_dim: int = 64
    window: int = 1024

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_size("n_heads", self.n_heads)
        if check_size("d_model", self.d_model) % self.n_heads:
            raise ValueError(
                f"d_model must be a multiple of n_heads = {self.n_heads}, got {self.d_model}"
            )
        if not 1 < check_size("n_kv_heads", self.n_kv_heads) < self.n_heads:
            raise ValueError(
                f"n_kv_heads must lie between 1 and n_heads = {self.n_heads},"
                f" got {self.n_kv_heads}"
            )

    @property
    def head_dim(self) -> int:
        """Width of one head, D."""
        return self.d_model // self.n_heads

    def heads(self, n_kv_heads: int) -> Geometry:
        """Return one layer with so many KV heads."""
        return Geometry(1, self.n_heads, n_kv_heads, self.head_dim, d_model=self.d_model)

    def latent(self) -> Geometry:
        """Return one layer with a latent instead of KV heads."""
        return Geometry(
            1,
            self.n_heads,
            self.n_heads,
            self.head_dim,
            d_model=self.d_model,
            kv_lora_rank=self.kv_lora_rank,
            qk_rope_head_dim=self.qk_rope_head_dim,
        )


@dataclass(frozen=True)
class Variant:
    """One variant of attention: what the rest of the package needs to know about it.

    Args:
        name: its short name, such as "GQA".
        title: its full name, such as "Grouped-query attention".
        layer: the class, an :class:`~attnlib.contract.AttentionLayer`.
        color: in pictures and widgets, "#rrggbb".
        applies: whether the sizes of a model are this variant's.
        cache_numbers: numbers that one layer keeps per token, as a sum of products of sizes.
        geometry: makes one layer of it from the sizes that a comparison holds equal.
        from_geometry: builds the layer from ``(geometry, d_model, rope)``.
        forms: ways to run the layer, by name: options of ``forward``.
    """

    name: str
    title: str
    layer: type[nn.Module]
    color: str
    applies: Callable[[Geometry], bool]
    cache_numbers: Polynomial
    geometry: Callable[[Sizes], Geometry]
    from_geometry: Callable[[Any, int, Rope | None], nn.Module]
    forms: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})

    def build(self, geometry: Geometry, rope: Rope | None = None) -> nn.Module:
        """Build the layer of a geometry, with random weights.

        Args:
            geometry: the sizes; ``d_model`` must be among them.
            rope: how positions rotate; ``None`` means not at all, and the default for MLA,
                which has a rotary part in any case.

        Returns:
            The layer.

        Raises:
            ValueError: if the geometry has no ``d_model``, or is one that no layer here has:
                biases of only one kind, norms of queries and keys, or, except with a latent,
                values of another width than keys.
        """
        g = geometry
        if g.d_model is None:
            raise ValueError(f"geometry must have a d_model to build a layer from, got {g}")
        if g.qk_norm or g.qkv_bias != g.o_bias:
            raise ValueError(f"geometry must have no qk_norm and equal biases, got {g}")
        if g.kv_lora_rank is None and g.v_head_dim != g.head_dim:
            raise ValueError(f"geometry must have v_head_dim = head_dim except in MLA, got {g}")
        return self.from_geometry(g, g.d_model, rope)


_VARIANTS: dict[str, Variant] = {}

#: The variants by name, in the order in which they were registered.
VARIANTS: Mapping[str, Variant] = MappingProxyType(_VARIANTS)


def register(variant: Variant) -> Variant:
    """Enter a variant, so that everything that runs over all variants meets it.

    Args:
        variant: to enter; its cost formula becomes known to :mod:`attnlib.costs`, and where
            several apply to a geometry, the one registered last counts.

    Returns:
        ``variant``.

    Raises:
        ValueError: if there is one of that name.
    """
    if variant.name in _VARIANTS:
        raise ValueError(f"name must be new, got {variant.name!r}")
    add_formula(variant.name, variant.applies, variant.cache_numbers)
    _VARIANTS[variant.name] = variant
    return variant


def unregister(name: str) -> None:
    """Remove a variant.

    Args:
        name: as registered.

    Raises:
        ValueError: if there is none of that name.
    """
    if name not in _VARIANTS:
        raise ValueError(f"name must be one of {', '.join(_VARIANTS)}, got {name!r}")
    remove_formula(name)
    del _VARIANTS[name]


def variant_of(thing: Geometry | nn.Module) -> Variant:
    """Return the variant of a geometry or of a layer.

    Args:
        thing: the sizes of a model, or a layer of a registered class.

    Returns:
        The variant.

    Raises:
        ValueError: if no registered variant has such a layer.
    """
    if isinstance(thing, Geometry):
        return _VARIANTS[thing.variant]
    for variant in reversed(_VARIANTS.values()):
        if isinstance(thing, variant.layer):
            return variant
    raise ValueError(f"thing must be a layer of a registered variant, got {thing!r}")


def geometries(sizes: Sizes | None = None) -> dict[str, Geometry]:
    """Return one layer of each variant, all of one width and one number of query heads.

    Args:
        sizes: what is held equal; ``None`` means the defaults of :class:`Sizes`.

    Returns:
        Geometries by the variants' names, in the registry's order.
    """
    sizes = Sizes() if sizes is None else sizes
    return {name: variant.geometry(sizes) for name, variant in VARIANTS.items()}


def build_layer(
    geometry: Geometry,
    *,
    rope: Rope | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Build the layer of a geometry, with random weights, for inference.

    Args:
        geometry: the sizes; ``d_model`` must be among them.
        rope: how positions rotate; ``None`` means not at all, and the default for MLA, which
            has a rotary part in any case.
        dtype: of the weights; ``None`` means torch's default.
        device: of the weights; ``None`` means torch's default.

    Returns:
        The layer, in eval mode, whose weights need no gradients. The window of a geometry is
        left out unless its variant has one.

    Raises:
        ValueError: as :meth:`Variant.build`.
    """
    layer = variant_of(geometry).build(geometry, rope)
    return layer.to(device=device, dtype=dtype).eval().requires_grad_(False)
