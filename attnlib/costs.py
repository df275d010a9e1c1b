"""What attention costs, from a model's published sizes alone: exact, and without a tensor.

The formulas are data, sums of products of named sizes, so that Python and a page without a
kernel evaluate the same ones. This module imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import prod

Polynomial = Sequence[tuple[int, tuple[str, ...]]]  # a sum of (factor, names of sizes)

# Numbers that one layer keeps of one token. Source: DeepSeek-V2, arXiv 2405.04434, Table 1,
# with key and value of a key/value head counted apart, since their widths may differ.
CACHE_NUMBERS: dict[str, Polynomial] = {
    "MHA": ((1, ("n_heads", "head_dim")), (1, ("n_heads", "v_head_dim"))),
    "GQA": ((1, ("n_kv_heads", "head_dim")), (1, ("n_kv_heads", "v_head_dim"))),
    "MQA": ((1, ("head_dim",)), (1, ("v_head_dim",))),
    "MLA": ((1, ("kv_lora_rank",)), (1, ("qk_rope_head_dim",))),
}

# Bits of one stored number. Formats of 8 bits and less keep scales beside them: not counted.
DTYPE_BITS = {
    "float64": 64,
    "float32": 32,
    "bfloat16": 16,
    "float16": 16,
    "float8_e4m3fn": 8,
    "float8_e5m2": 8,
    "int8": 8,
    "int4": 4,
}


@dataclass(frozen=True)
class Geometry:
    """The sizes of a model that its cache depends on.

    Args:
        n_layers: layers that keep a cache, all of the same kind.
        n_heads: query heads, H.
        n_kv_heads: key/value heads, H_kv, which divides H. MLA expands its latent to one key
            and one value for each query head, so there it is H.
        head_dim: width of one head's query and key, D; for MLA without the rotary part, d_h.
        v_head_dim: width of one head's value; ``None`` means ``head_dim``.
        kv_lora_rank: width of MLA's latent, d_c; ``None`` means no MLA.
        qk_rope_head_dim: width of MLA's shared rotary key, d_h^R; ``None`` means no MLA.

    Raises:
        ValueError: if a size is not an integer of at least 1, if ``n_kv_heads`` does not divide
            ``n_heads``, or if only one of MLA's two widths is given.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    v_head_dim: int | None = None
    kv_lora_rank: int | None = None
    qk_rope_head_dim: int | None = None

    def __post_init__(self):
        if self.v_head_dim is None:
            object.__setattr__(self, "v_head_dim", self.head_dim)
        for name, size in self.sizes().items():
            check_positive(name, size)
        if self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads must divide n_heads = {self.n_heads}, got {self.n_kv_heads}"
            )
        if (self.kv_lora_rank is None) != (self.qk_rope_head_dim is None):
            raise ValueError(
                "kv_lora_rank and qk_rope_head_dim must be given together, got"
                f" {self.kv_lora_rank} and {self.qk_rope_head_dim}"
            )

    @property
    def variant(self) -> str:
        """MHA, GQA, MQA or MLA."""
        if self.kv_lora_rank is not None:
            return "MLA"
        return {self.n_heads: "MHA", 1: "MQA"}.get(self.n_kv_heads, "GQA")

    def sizes(self) -> dict[str, int]:
        """Return the sizes that the model has, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: size for name, size in values.items() if size is not None}


def evaluate(polynomial: Polynomial, sizes: Mapping[str, int]) -> int:
    """Return the value of a sum of products of named sizes.

    Args:
        polynomial: ``(factor, names)`` for each product.
        sizes: the value of each name.

    Returns:
        The sum; exact for integers.
    """
    return sum(factor * prod(sizes[name] for name in names) for factor, names in polynomial)


def kv_cache_bytes(
    geometry: Geometry, tokens: int, *, batch_size: int = 1, dtype: object = "bfloat16"
) -> int:
    """How many bytes the caches of all layers take, every layer keeping every token.

    Source: Shazeer 2019, arXiv 1911.02150; DeepSeek-V2, arXiv 2405.04434, Table 1.

    Args:
        geometry: the model's sizes.
        tokens: tokens kept of each sequence.
        batch_size: sequences, B.
        dtype: of the stored numbers: a name such as ``"bfloat16"``, a torch dtype, or the bits
            of one number, such as 6.

    Returns:
        Bytes; a last one begun counts whole.

    Raises:
        ValueError: if ``tokens``, ``batch_size`` or bits are not integers of at least 1, or the
            dtype is unknown.
    """
    check_positive("tokens", tokens)
    check_positive("batch_size", batch_size)
    numbers = geometry.n_layers * evaluate(CACHE_NUMBERS[geometry.variant], geometry.sizes())
    return -(-numbers * tokens * batch_size * bits_of(dtype) // 8)  # rounded up


def bits_of(dtype: object) -> int:
    """Return the bits of one stored number.

    Args:
        dtype: a name such as ``"bfloat16"``, a torch dtype, or the bits themselves.

    Returns:
        Bits.

    Raises:
        ValueError: if the dtype is unknown, or the bits are fewer than 1.
    """
    if isinstance(dtype, int):
        return check_positive("dtype", dtype)
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPE_BITS:
        raise ValueError(f"dtype must be one of {', '.join(DTYPE_BITS)}, got {dtype!r}")
    return DTYPE_BITS[name]


def check_positive(name: str, value: int) -> int:
    """Check that a size is an integer of at least 1.

    Args:
        name: the argument's name, for the message.
        value: what came.

    Returns:
        ``value``, unchanged.

    Raises:
        ValueError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return value
