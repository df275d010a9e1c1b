"""The variants of attention, one file each, and the registry: one line each."""

from attnlib.variants import gqa, mha, mla, mqa, swa
from attnlib.variants.registry import (
    VARIANTS,
    Sizes,
    Variant,
    build_layer,
    geometries,
    register,
    unregister,
    variant_of,
)

register(mha.VARIANT)
register(gqa.VARIANT)
register(mqa.VARIANT)
register(mla.VARIANT)
register(swa.VARIANT)

__all__ = [
    "VARIANTS",
    "Sizes",
    "Variant",
    "build_layer",
    "geometries",
    "register",
    "unregister",
    "variant_of",
]
