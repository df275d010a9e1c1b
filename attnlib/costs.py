"""What attention costs, from a model's published sizes alone: exact, and without a tensor.

The cache's formulas are data, sums of products of named sizes, so that Python and a page
without a kernel evaluate the same ones. This module imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from math import prod
from typing import NamedTuple, Protocol, SupportsIndex

from attnlib.scalars import check_size

Polynomial = Sequence[tuple[int, tuple[str, ...]]]  # a sum of (factor, names of sizes)

#: What one layer keeps per token, by variant. :mod:`attnlib.variants` fills it.
CACHE_NUMBERS: dict[str, Polynomial] = {}

#: Whether the sizes of a model are a variant's, by its name; the last that applies counts.
APPLIES_TO: dict[str, Callable[[Geometry], bool]] = {}

# The same where MLA keeps expanded keys and values, the rotary key in every head, as "naive"
# in DeepSeek-V3's reference code does.
EXPANDED_NUMBERS: Polynomial = (
    (1, ("n_heads", "head_dim")),
    (1, ("n_heads", "qk_rope_head_dim")),
    (1, ("n_heads", "v_head_dim")),
)

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

# How MLA can decode. The other variants have one way, and every name means it.
#: Forms of an MLA decode step, ``"absorbed"``, ``"expanded"`` and ``"naive"``.
FORMS = ("absorbed", "expanded", "naive")


@dataclass(frozen=True)
class Geometry:
    """The sizes of a model that its attention's costs depend on; all layers are alike.

    Args:
        n_layers: layers that keep a cache.
        n_heads: query heads, H.
        n_kv_heads: KV heads, H_kv, which divides H. MLA expands its latent to one key
            and one value for each query head, so there it is H.
        head_dim: width of one head's query and key, D; for MLA without the rotary part, d_h.
        v_head_dim: width of one head's value; ``None`` means ``head_dim``.
        kv_lora_rank: width of MLA's latent, d_c; ``None`` means no MLA.
        qk_rope_head_dim: width of MLA's shared rotary key, d_h^R; ``None`` means no MLA.
        d_model: width of the residual stream; ``None`` if only the cache is of interest.
        q_lora_rank: width of MLA's latent of queries, d_c'; ``None`` means none.
        qkv_bias: whether the projections to queries, keys and values have biases; not in MLA.
        o_bias: whether the output projection has one; not in MLA.
        qk_norm: whether queries and keys are normalised, with one gain for each number of a
            head, as in Qwen3; not in MLA, whose latents are always normalised.
        window: keys that one query sees in a layer with a window, its own included, W.
        n_window_layers: how many of the layers have that window; the others see everything.

    Raises:
        ValueError: if a size is not an integer of at least 1, if ``n_kv_heads`` does not divide
            ``n_heads``, if only one of MLA's two widths is given, if biases or ``qk_norm`` come
            with MLA or ``q_lora_rank`` without, or if window and its layers do not fit.
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    v_head_dim: int = None  # type: ignore[assignment]  # an int once it is made
    kv_lora_rank: int | None = None
    qk_rope_head_dim: int | None = None
    _: KW_ONLY
    d_model: int | None = None
    q_lora_rank: int | None = None
    qkv_bias: bool = False
    o_bias: bool = False
    qk_norm: bool = False
    window: int | None = None
    n_window_layers: int = 0

    def __post_init__(self) -> None:
        if self.v_head_dim is None:
            object.__setattr__(self, "v_head_dim", self.head_dim)
        check_geometry(self)

    @property
    def variant(self) -> str:
        """Name of the registered variant that has these sizes, such as GQA."""
        return next(name for name, applies in reversed(APPLIES_TO.items()) if applies(self))

    def sizes(self) -> dict[str, int]:
        """Return the sizes that the model has, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: size for name, size in values.items() if size and size is not True}


class Floor(NamedTuple):
    """The least seconds of a pass, in the two parts that run one after the other.

    Attributes:
        weights: of the projections: reading the weights, or multiplying by them.
        core: of scores and weighted sums: reading the cache, or multiplying by it.
    """

    weights: float
    core: float

    @property
    def seconds(self) -> float:
        """The least time of the pass, both parts together."""
        return self.weights + self.core


class Cost(NamedTuple):
    """What one pass through a model's attention takes, all layers together.

    FLOPs are two for each multiply-add; softmax, norms and rotations are not counted. Bytes are
    the least that must move: each weight once, each cached number once.

    Attributes:
        projection_flops: of the products with weights.
        core_flops: of the products with the cache, scores and weighted sums; with MLA's
            ``"expanded"`` form also those that expand the cached latents.
        weight_bytes: of all weights.
        cache_bytes: of the cache that is read, or, in prefill, written.
    """

    projection_flops: int
    core_flops: int
    weight_bytes: int
    cache_bytes: int

    @property
    def flops(self) -> int:
        """All FLOPs."""
        return self.projection_flops + self.core_flops

    @property
    def bytes(self) -> int:
        """All bytes."""
        return self.weight_bytes + self.cache_bytes

    @property
    def intensity(self) -> float:
        """FLOPs for each byte, of everything."""
        return self.flops / self.bytes

    @property
    def core_intensity(self) -> float:
        """FLOPs for each byte, of the cache alone; a larger batch does not change it."""
        return self.core_flops / self.cache_bytes

    def floor(self, *, bytes_per_second: float, flops_per_second: float) -> Floor:
        """The least time of the pass, part by part; each waits for its bytes or its FLOPs.

        The core needs the projections' queries and keys, and the output projection needs the
        core's result. So neither part can do its arithmetic while the other reads.

        Args:
            bytes_per_second: the memory's rate.
            flops_per_second: the processor's rate.

        Returns:
            Seconds of each part.

        Raises:
            ValueError: if a rate is not above 0.
        """
        rates = {"bytes_per_second": bytes_per_second, "flops_per_second": flops_per_second}
        return Floor(
            weights=roofline_seconds(self.projection_flops, self.weight_bytes, **rates),
            core=roofline_seconds(self.core_flops, self.cache_bytes, **rates),
        )


class HasGeometry(Protocol):
    """What knows the sizes of its attention: a :class:`~attnlib.models.Model`."""

    @property
    def geometry(self) -> Geometry | None:
        """The sizes; ``None`` if the layers differ in more than their window."""
        ...


def geometry_of(model: Geometry | HasGeometry) -> Geometry:
    """Return the sizes of a model, or sizes as they are.

    Args:
        model: sizes, or a model that has them, such as ``MODELS["Llama-3 8B"]``.

    Returns:
        The sizes.

    Raises:
        ValueError: if it is neither.
    """
    geometry = model if isinstance(model, Geometry) else getattr(model, "geometry", None)
    if geometry is None and getattr(model, "layers", None):
        raise ValueError(
            f"geometry must be that of like layers, got {getattr(model, 'name', model)}, whose"
            " layers differ: attnlib.layers.cache_size counts its cache"
        )
    if not isinstance(geometry, Geometry):
        raise ValueError(f"geometry must be a Geometry or a model, got {model!r}")
    return geometry


def with_windows(geometry: Geometry, pattern: str, window: int) -> Geometry:
    """Return a model of which some layers have a window, by a pattern that repeats.

    Args:
        geometry: the model's sizes, with its number of layers.
        pattern: ``"S"`` for a layer with the window, ``"F"`` for one that sees everything;
            ``"SSSSSF"`` is Gemma 3's five to one. The last repetition may be cut.
        window: keys that one query sees in a layer with the window, its own included, W.

    Returns:
        The same sizes with ``window`` and ``n_window_layers``.

    Raises:
        ValueError: if the pattern is empty or has another letter, or ``window`` is below 1.
    """
    check_pattern(pattern)
    check_size("window", window)
    layers = (pattern * geometry.n_layers)[: geometry.n_layers]
    n = layers.count("S")
    return replace(geometry, window=window if n else None, n_window_layers=n)


def check_pattern(pattern: str) -> None:
    """Check a pattern of layers.

    Args:
        pattern: as for :func:`with_windows`.

    Raises:
        ValueError: if it is empty or has another letter than S and F.
    """
    if not pattern or set(pattern) - set("SF"):
        raise ValueError(f"pattern must be letters S and F, such as SSSF, got {pattern!r}")


def add_formula(
    name: str, applies: Callable[[Geometry], bool], cache_numbers: Polynomial
) -> None:
    """Enter a variant's cost formula; :func:`attnlib.variants.register` calls this.

    Args:
        name: of the variant.
        applies: whether the sizes of a model are this variant's.
        cache_numbers: numbers that one layer keeps per token.
    """
    APPLIES_TO[name], CACHE_NUMBERS[name] = applies, cache_numbers


def remove_formula(name: str) -> None:
    """Remove a variant's cost formula.

    Args:
        name: of the variant.
    """
    del APPLIES_TO[name], CACHE_NUMBERS[name]


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
    geometry: Geometry | HasGeometry,
    tokens: int,
    *,
    batch_size: int = 1,
    dtype: object = "bfloat16",
    expanded: bool = False,
) -> int:
    """How many bytes the caches of all layers take.

    Source: Shazeer 2019, arXiv 1911.02150; DeepSeek-V2, arXiv 2405.04434, Table 1.

    Args:
        geometry: the model's sizes, or the model. A layer with a window keeps that many tokens.
        tokens: tokens seen of each sequence.
        batch_size: sequences, B.
        dtype: of the stored numbers: a name such as ``"bfloat16"``, a torch dtype, or the bits
            of one number, such as 6.
        expanded: whether MLA keeps the expanded keys and values of all heads, not the latent.

    Returns:
        Bytes; a last one begun counts whole.

    Raises:
        ValueError: if ``tokens``, ``batch_size`` or bits are not integers of at least 1, the
            dtype is unknown, or ``expanded`` is asked of another variant than MLA.
    """
    geometry = geometry_of(geometry)
    tokens = check_size("tokens", tokens)
    batch_size = check_size("batch_size", batch_size)
    if expanded and geometry.kv_lora_rank is None:
        raise ValueError(f"expanded must be False for {geometry.variant}, got {expanded!r}")
    formula = EXPANDED_NUMBERS if expanded else CACHE_NUMBERS[geometry.variant]
    numbers = evaluate(formula, geometry.sizes()) * tokens_seen(geometry, tokens)
    return -(-numbers * batch_size * bits_of(dtype) // 8)  # rounded up


def attention_params(geometry: Geometry | HasGeometry, *, norms: bool = True) -> int:
    """How many parameters the attention of all layers has.

    Source: Vaswani et al. 2017, arXiv 1706.03762, section 3.2.2; DeepSeek-V2, arXiv 2405.04434,
    equations 9 to 19.

    Args:
        geometry: the model's sizes, with ``d_model``.
        norms: whether the gains of norms within attention count.

    Returns:
        Parameters.

    Raises:
        ValueError: if the geometry has no ``d_model``.
    """
    g = geometry_of(geometry)
    d = check_size("d_model", g.d_model)
    if g.kv_lora_rank is not None:
        d_c, d_r = latent_widths(g)
        queries, down = g.n_heads * (g.head_dim + d_r), g.q_lora_rank
        query = d * queries if down is None else d * down + down * queries
        weights = query + d * (d_c + d_r) + expanding_params(g)
        gains = d_c + (down or 0)
    else:
        outputs = g.n_heads * g.head_dim + g.n_kv_heads * (g.head_dim + g.v_head_dim)
        weights = d * outputs + g.qkv_bias * outputs + g.o_bias * d
        gains = 2 * g.head_dim * g.qk_norm
    weights += g.n_heads * g.v_head_dim * d  # W_O, which brings the heads back to the width
    return g.n_layers * (weights + norms * gains)


def decode_cost(
    geometry: Geometry | HasGeometry,
    tokens: int,
    *,
    batch_size: int = 1,
    new_tokens: int = 1,
    dtype: object = "bfloat16",
    weight_dtype: object = None,
    form: str = "absorbed",
) -> Cost:
    """What one decode step takes: one new token per sequence, or a few.

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1 and appendix C; each of S tokens seen
    takes 2 H (D + D_v) FLOPs, or 2 H (2 d_c + d_h^R) absorbed.

    Args:
        geometry: the model's sizes, with ``d_model``.
        tokens: tokens that the last new one sees, itself included, S.
        batch_size: sequences, B.
        new_tokens: of each sequence, T, at most S; more than one in speculative decoding.
        dtype: of the cache, as in :func:`kv_cache_bytes`.
        weight_dtype: of the weights; ``None`` means ``dtype``.
        form: of MLA: ``"absorbed"``; ``"expanded"``, which expands all latents again in each
            step; or ``"naive"``, whose cache holds the expanded keys and values.

    Returns:
        The cost of all layers.

    Raises:
        ValueError: if a number is below 1, there are more new tokens than tokens, a dtype or
            the form is unknown, or the geometry has no ``d_model``.
    """
    geometry = geometry_of(geometry)
    check_form(form)
    tokens, batch_size = check_size("tokens", tokens), check_size("batch_size", batch_size)
    new = check_size("new_tokens", new_tokens)
    if new > tokens:
        raise ValueError(f"new_tokens must be at most tokens = {tokens}, got {new}")
    naive = geometry.kv_lora_rank is not None and form == "naive"
    cache = kv_cache_bytes(geometry, tokens, batch_size=batch_size, dtype=dtype, expanded=naive)
    once, each, row = step_macs(geometry, form)
    pairs = sum(tokens_seen(geometry, tokens - earlier) for earlier in range(new))
    core = each * pairs + row * tokens_seen(geometry, tokens)
    weights = weight_bytes(geometry, dtype if weight_dtype is None else weight_dtype)
    return Cost(2 * batch_size * new * once, 2 * batch_size * core, weights, cache)


def prefill_cost(
    geometry: Geometry | HasGeometry,
    tokens: int,
    *,
    batch_size: int = 1,
    dtype: object = "bfloat16",
    weight_dtype: object = None,
) -> Cost:
    """What a prompt takes: all its tokens at once, each seeing itself and earlier ones.

    MLA works expanded here. Source: as of :func:`decode_cost`.

    Args:
        geometry: the model's sizes, with ``d_model``.
        tokens: of the prompt, T.
        batch_size: sequences, B.
        dtype: of the cache, which is written.
        weight_dtype: of the weights; ``None`` means ``dtype``.

    Returns:
        The cost of all layers.

    Raises:
        ValueError: if a number is below 1, a dtype is unknown, or the geometry has no
            ``d_model``.
    """
    geometry = geometry_of(geometry)
    tokens, batch_size = check_size("tokens", tokens), check_size("batch_size", batch_size)
    cache = kv_cache_bytes(geometry, tokens, batch_size=batch_size, dtype=dtype)
    once, each, _ = step_macs(geometry, "naive")
    pairs = pairs_seen(geometry, tokens)
    weights = weight_bytes(geometry, dtype if weight_dtype is None else weight_dtype)
    return Cost(2 * batch_size * tokens * once, 2 * batch_size * each * pairs, weights, cache)


def decode_flops(
    geometry: Geometry | HasGeometry,
    tokens: int,
    *,
    batch_size: int = 1,
    form: str = "absorbed",
) -> int:
    """FLOPs of one decode step, all layers: see :func:`decode_cost`.

    Args:
        geometry: the model's sizes, with ``d_model``.
        tokens: tokens that the new one sees, itself included, S.
        batch_size: sequences, B.
        form: of MLA.

    Returns:
        FLOPs.

    Raises:
        ValueError: as :func:`decode_cost`.
    """
    return decode_cost(geometry, tokens, batch_size=batch_size, form=form).flops


def prefill_flops(geometry: Geometry | HasGeometry, tokens: int, *, batch_size: int = 1) -> int:
    """FLOPs of a prompt, all layers, causal: see :func:`prefill_cost`.

    Args:
        geometry: the model's sizes, with ``d_model``.
        tokens: of the prompt, T.
        batch_size: sequences, B.

    Returns:
        FLOPs.

    Raises:
        ValueError: as :func:`prefill_cost`.
    """
    return prefill_cost(geometry, tokens, batch_size=batch_size).flops


def roofline_seconds(
    flops: float, n_bytes: float, *, bytes_per_second: float, flops_per_second: float
) -> float:
    """The least time of one part of a pass: its reading or its arithmetic, the longer one.

    The parts of a pass run one after the other: :meth:`Cost.floor` adds them.

    Source: Williams, Waterman and Patterson 2009, doi 10.1145/1498765.1498785.

    Args:
        flops: to be done while the bytes are read.
        n_bytes: to be read.
        bytes_per_second: the memory's rate.
        flops_per_second: the processor's rate.

    Returns:
        Seconds.

    Raises:
        ValueError: if a rate is not above 0.
    """
    rates = {"bytes_per_second": bytes_per_second, "flops_per_second": flops_per_second}
    for name, rate in rates.items():
        if not rate > 0:
            raise ValueError(f"{name} must be above 0, got {rate!r}")
    return max(n_bytes / bytes_per_second, flops / flops_per_second)


def max_tokens(
    geometry: Geometry | HasGeometry,
    memory_bytes: int,
    *,
    batch_size: int = 1,
    dtype: object = "bfloat16",
) -> int | None:
    """How many tokens of each sequence fit into a memory for the cache.

    Args:
        geometry: the model's sizes.
        memory_bytes: what there is for the cache.
        batch_size: sequences, B.
        dtype: of the stored numbers, as in :func:`kv_cache_bytes`.

    Returns:
        Tokens, 0 if not one fits; ``None`` if every layer has a window and all of them fit.

    Raises:
        ValueError: if a number is below 1, or the dtype is unknown.
    """
    geometry = geometry_of(geometry)
    memory_bytes = check_size("memory_bytes", memory_bytes)
    batch_size = check_size("batch_size", batch_size)
    numbers = evaluate(CACHE_NUMBERS[geometry.variant], geometry.sizes())
    room = 8 * memory_bytes // (numbers * batch_size * bits_of(dtype))  # tokens of one layer
    tokens = room // geometry.n_layers
    if geometry.window is None or tokens < geometry.window:
        return tokens
    full = geometry.n_layers - geometry.n_window_layers
    return (room - geometry.n_window_layers * geometry.window) // full if full else None


def max_batch_size(
    geometry: Geometry | HasGeometry,
    memory_bytes: int,
    tokens: int,
    *,
    dtype: object = "bfloat16",
) -> int:
    """How many sequences fit into a memory for the cache.

    Args:
        geometry: the model's sizes.
        memory_bytes: what there is for the cache.
        tokens: seen of each sequence.
        dtype: of the stored numbers, as in :func:`kv_cache_bytes`.

    Returns:
        Sequences, 0 if not one fits.

    Raises:
        ValueError: if a number is below 1, or the dtype is unknown.
    """
    geometry = geometry_of(geometry)
    memory_bytes = check_size("memory_bytes", memory_bytes)
    tokens = check_size("tokens", tokens)
    numbers = evaluate(CACHE_NUMBERS[geometry.variant], geometry.sizes())
    return 8 * memory_bytes // (numbers * tokens_seen(geometry, tokens) * bits_of(dtype))


def step_macs(geometry: Geometry, form: str) -> tuple[int, int, int]:
    """Return multiply-adds: of a new token, of a pair of query and key, of a cached row.

    Args:
        geometry: the model's sizes, with ``d_model``.
        form: of MLA, one of :data:`FORMS`.

    Returns:
        ``(once, each, row)``: of all layers for a new token's products with weights; of one
        layer for each token that it sees; and of one layer for each row of the cache that is
        expanded, whatever the number of new tokens.
    """
    g = replace(geometry, qkv_bias=False, o_bias=False)
    once = attention_params(g, norms=False)  # each weight meets the token once
    if g.kv_lora_rank is None:
        return once, g.n_heads * (g.head_dim + g.v_head_dim), 0
    d_c, d_r = latent_widths(g)
    if form == "absorbed":  # W_UK goes to the query, W_UV to the result: as often as to a token
        return once, g.n_heads * (2 * d_c + d_r), 0
    each = g.n_heads * (g.head_dim + d_r + g.v_head_dim)
    if form == "naive":
        return once, each, 0
    return once - g.n_layers * expanding_params(g), each, expanding_params(g)


def latent_widths(geometry: Geometry) -> tuple[int, int]:
    """Return the widths of MLA's latent and of its shared rotary key, d_c and d_h^R.

    Args:
        geometry: of an MLA model.

    Returns:
        Both widths.

    Raises:
        ValueError: if the model has no latent.
    """
    if geometry.kv_lora_rank is None or geometry.qk_rope_head_dim is None:
        raise ValueError(f"geometry must have a latent, got {geometry}")
    return geometry.kv_lora_rank, geometry.qk_rope_head_dim


def expanding_params(geometry: Geometry) -> int:
    """Return the parameters of one MLA layer's W_UK and W_UV.

    Args:
        geometry: of an MLA model.

    Returns:
        Parameters.
    """
    d_c, _ = latent_widths(geometry)
    return d_c * geometry.n_heads * (geometry.head_dim + geometry.v_head_dim)


def weight_bytes(geometry: Geometry, dtype: object) -> int:
    """Return the bytes of all attention weights.

    Args:
        geometry: the model's sizes, with ``d_model``.
        dtype: as in :func:`kv_cache_bytes`.

    Returns:
        Bytes, rounded up.
    """
    return -(-attention_params(geometry) * bits_of(dtype) // 8)


def tokens_seen(geometry: Geometry, tokens: int) -> int:
    """Return how many tokens the newest one sees, summed over the layers.

    Args:
        geometry: the model's sizes.
        tokens: so far, the newest included.

    Returns:
        Tokens times layers.
    """
    full = geometry.n_layers - geometry.n_window_layers
    return full * tokens + geometry.n_window_layers * min(tokens, geometry.window or tokens)


def pairs_seen(geometry: Geometry, tokens: int) -> int:
    """Return how many pairs of query and key a causal prompt has, summed over the layers.

    Args:
        geometry: the model's sizes.
        tokens: of the prompt.

    Returns:
        Pairs times layers.
    """
    near = min(tokens, geometry.window or tokens)
    windowed = near * (near + 1) // 2 + (tokens - near) * near  # a row grows, then stays
    full = geometry.n_layers - geometry.n_window_layers
    return full * tokens * (tokens + 1) // 2 + geometry.n_window_layers * windowed


def bits_of(dtype: object) -> int:
    """Return the bits of one stored number.

    Args:
        dtype: a name such as ``"bfloat16"``, a torch dtype, or the bits themselves.

    Returns:
        Bits.

    Raises:
        ValueError: if the dtype is unknown, or the bits are fewer than 1.
    """
    if isinstance(dtype, SupportsIndex):
        return check_size("dtype", dtype)
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPE_BITS:
        raise ValueError(f"dtype must be one of {', '.join(DTYPE_BITS)}, got {dtype!r}")
    return DTYPE_BITS[name]


def check_form(form: str) -> str:
    """Check that a form of decoding exists.

    Args:
        form: what came.

    Returns:
        ``form``, unchanged.

    Raises:
        ValueError: if it does not.
    """
    if form not in FORMS:
        raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    return form


def check_geometry(geometry: Geometry) -> None:
    """Check that the sizes of a model fit together; make them Python's own integers.

    Args:
        geometry: under construction.

    Raises:
        ValueError: as :class:`Geometry` says.
    """
    g = geometry
    optional = {"kv_lora_rank", "qk_rope_head_dim", "d_model", "q_lora_rank", "window"}
    for name in ("n_layers", "n_heads", "n_kv_heads", "head_dim", "v_head_dim", *optional):
        if name not in optional or getattr(g, name) is not None:
            object.__setattr__(g, name, check_size(name, getattr(g, name)))
    if g.n_heads % g.n_kv_heads:
        raise ValueError(f"n_kv_heads must divide n_heads = {g.n_heads}, got {g.n_kv_heads}")
    if (g.kv_lora_rank is None) != (g.qk_rope_head_dim is None):
        raise ValueError(
            "kv_lora_rank and qk_rope_head_dim must be given together, got"
            f" {g.kv_lora_rank} and {g.qk_rope_head_dim}"
        )
    if g.kv_lora_rank is None and g.q_lora_rank is not None:
        raise ValueError(f"q_lora_rank must be None without MLA, got {g.q_lora_rank}")
    if g.kv_lora_rank is not None and (g.qkv_bias or g.o_bias or g.qk_norm):
        raise ValueError(
            f"qkv_bias, o_bias and qk_norm must be False in MLA, got {g.qkv_bias},"
            f" {g.o_bias} and {g.qk_norm}"
        )
    if (g.window is None) != (g.n_window_layers == 0):
        raise ValueError(
            "window and n_window_layers must be given together, got"
            f" {g.window} and {g.n_window_layers}"
        )
    if not 0 <= g.n_window_layers <= g.n_layers:
        raise ValueError(
            f"n_window_layers must be from 0 to n_layers = {g.n_layers},"
            f" got {g.n_window_layers}"
        )
