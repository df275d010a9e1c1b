"""What a whole model keeps, when its layers differ: one sentence for every cache.

bytes = the sum over the layers that own a cache of entries kept x numbers per entry x bytes per
number with scales, plus constant state, times the copies on devices.

A model is a sequence of layer kinds, each a run of equal layers. This module imports the
standard library only, and its integers are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, NamedTuple, Protocol

from attnlib.costs import DTYPE_BITS, Geometry, bits_of
from attnlib.scalars import check_size

#: Ways in which devices share layers. By heads is tensor parallelism, by positions is context
#: parallelism, by sequences is data-parallel attention.
SPLITS = ("heads", "positions", "sequences")


class Format(NamedTuple):
    """How the numbers of one row are stored.

    Attributes:
        bits: of one number.
        group: numbers that share a scale; 0 for none.
        scale_bits: of one scale.
        pad_bits: unused bits at the end of a row.
    """

    bits: int
    group: int = 0
    scale_bits: int = 0
    pad_bits: int = 0

    def row_bits(self, width: int) -> int:
        """Bits of a row of so many numbers, scales included.

        Args:
            width: numbers.

        Returns:
            Bits.
        """
        scales = -(-width // self.group) * self.scale_bits if self.group else 0
        return width * self.bits + scales + self.pad_bits


# Numbers in blocks with a scale each, as llama.cpp and the Open Compute Project's MX formats
# define them; q8_0 keeps 32 numbers in 34 bytes.
BLOCKS = {
    "q8_0": Format(8, 32, 16),
    "q5_0": Format(5, 32, 16),
    "q4_0": Format(4, 32, 16),
    "mxfp8": Format(8, 32, 8),
    "mxfp4": Format(4, 32, 8),
    "nvfp4": Format(4, 16, 8),
}
# Layouts that store the parts of an entry differently, as programs that serve DeepSeek's models
# do. Sources: vLLM's fp8_ds_mla; DeepSeek-V3.2's inference code; vLLM's and transformers'
# DeepSeek-V4; the report on V4.1.
LAYOUTS: dict[str, dict[str, Format]] = {
    "DeepSeek fp8": {
        "latent": Format(8, 128, 32),
        "rotary": Format(16),
        "index": Format(8, 128, 32),
    },
    "DeepSeek-V4": {
        "shared": Format(8, 64, 8, pad_bits=8),
        "rotary": Format(16),
        "index": Format(4, 32, 8),
    },
    "DeepSeek-V4.1": {
        "shared": Format(4, 16, 8),
        "rotary": Format(4, 16, 8),
        "index": Format(4, 32, 8),
    },
}
#: Names of all formats that a cache can be asked for in.
FORMATS = (*DTYPE_BITS, *BLOCKS, *LAYOUTS)


class Part(NamedTuple):
    """One thing that a layer stores for each entry.

    Attributes:
        name: "kv", "latent", "rotary", "shared", "index", "state" or "convolution".
        heads: that devices can divide among themselves; 1 where each device needs all of it.
        width: numbers of one head in an entry.
        keeps: "all", "window", "chunk", "stride" or "constant".
        size: W of a window, tokens of a chunk, or tokens of a stride; 1 otherwise.
    """

    name: str
    heads: int
    width: int
    keeps: str = "all"
    size: int = 1

    def entries(self, tokens: int, page: int = 1) -> int:
        """Entries that are kept once so many tokens were seen.

        Args:
            tokens: seen, T.
            page: entries that are reserved together.

        Returns:
            Entries, in whole pages. Pages begin at multiples of their size, so a window can lie
            on one page more than it needs.
        """
        if self.keeps == "constant":
            return 1
        if self.keeps == "stride":
            first, last = 0, tokens // self.size
        elif self.keeps == "chunk":  # room for a whole one, though a new one begins empty
            first, last = 0, min(tokens, self.size)
        else:
            first = max(0, tokens - self.size) if self.keeps == "window" else 0
            last = tokens
        return (-(-last // page) - first // page) * page

    def held_by_one_of(self, devices: int) -> int:
        """Heads that one device holds if devices share them.

        Args:
            devices: at least 1.

        Returns:
            Heads; each is on several devices if there are more devices than heads.

        Raises:
            ValueError: if neither number divides the other.
        """
        if self.heads > 1 and self.heads % devices and devices % self.heads:
            raise ValueError(
                f"devices must divide the {self.heads} heads of a layer or be a multiple of"
                f" them, got {devices}"
            )
        return max(1, self.heads // devices)


@dataclass(frozen=True, kw_only=True)
class LayerKind:
    """A run of equal layers: what each of them stores, and for how long.

    Args:
        n_layers: layers of the run.
        name: by which other layers can borrow from it.
        n_heads: query heads, H; ``None`` if only the cache is of interest.
        n_kv_heads: KV heads that are stored, H_kv; 0 if keys and values are not.
        head_dim: width of one head's key, D.
        v_head_dim: width of one head's value; ``None`` means ``head_dim``.
        kv_lora_rank: width of MLA's latent, d_c; 0 without one.
        qk_rope_head_dim: width of MLA's rotary key, or of the rotated part of a shared vector.
        shared_kv_dim: width of one vector that is key and value at once, its rotated part
            included; 0 without one.
        index_dim: width of the one key per entry by which an indexer chooses; 0 without one.
        index_heads: query heads of the indexer.
        top_k: entries that a query reads at most once an indexer has chosen; ``None`` = all.
        window: W, tokens that a query sees, its own included; ``None`` = no window.
        chunk: tokens of the blocks that a text is cut into; a query sees those of its own
            block; ``None`` = no blocks.
        stride: tokens that are compressed into one entry; ``None`` = not compressed.
        recent: last tokens whose entries are kept uncompressed as well.
        state_heads: heads of a constant state; 0 without one.
        state_numbers: of one head of the state.
        conv_numbers: that a short convolution keeps, for all heads together.
        borrows: name of an earlier kind whose cache these layers read instead of their own.

    Raises:
        ValueError: if a size is out of range, or two rules for what is kept are given.
    """

    n_layers: int
    name: str = ""
    n_heads: int | None = None
    n_kv_heads: int = 0
    head_dim: int = 0
    v_head_dim: int | None = None
    kv_lora_rank: int = 0
    qk_rope_head_dim: int = 0
    shared_kv_dim: int = 0
    index_dim: int = 0
    index_heads: int = 0
    top_k: int | None = None
    window: int | None = None
    chunk: int | None = None
    stride: int | None = None
    recent: int = 0
    state_heads: int = 0
    state_numbers: int = 0
    conv_numbers: int = 0
    borrows: str | None = None

    def __post_init__(self) -> None:
        optional = ("n_heads", "v_head_dim", "top_k", "window", "chunk", "stride")
        check_size("n_layers", self.n_layers)
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name in optional and value is not None:
                check_size(field.name, value)
            elif field.name not in (*optional, "n_layers", "name", "borrows"):
                check_size(field.name, value, least=0)
        rules = {name: getattr(self, name) for name in ("window", "chunk", "stride")}
        given = {name: size for name, size in rules.items() if size is not None}
        if len(given) > 1:
            raise ValueError(f"one of window, chunk and stride may be given, got {given}")

    @property
    def rule(self) -> tuple[str, int]:
        """What is kept and its size, such as ``("window", 1024)`` or ``("all", 1)``."""
        for name in ("window", "chunk", "stride"):
            if (size := getattr(self, name)) is not None:
                return name, size
        return "all", 1

    @property
    def attends(self) -> bool:
        """Whether a query reads entries of a cache, its own or a borrowed one."""
        return bool(self.n_kv_heads or self.kv_lora_rank or self.shared_kv_dim)

    @property
    def parts(self) -> list[Part]:
        """What one layer stores; of entries that it borrows, the recent ones alone."""
        return self.recent_parts if self.borrows else self.own_parts

    @property
    def row(self) -> list[Part]:
        """The parts of a latent or of a shared vector, without a rule for what is kept."""
        row = [Part("latent", 1, self.kv_lora_rank)] if self.kv_lora_rank else []
        if self.shared_kv_dim:
            row.append(Part("shared", 1, self.shared_kv_dim - self.qk_rope_head_dim))
        if row and self.qk_rope_head_dim:
            row.append(Part("rotary", 1, self.qk_rope_head_dim))
        return row

    @property
    def recent_parts(self) -> list[Part]:
        """The last entries, uncompressed, if the layer keeps those as well."""
        if not self.recent:
            return []
        return [Part(*part[:3], "window", self.recent) for part in self.row]

    @property
    def older_parts(self) -> list[Part]:
        """What other layers can borrow, which is keys, values and the index."""
        g, parts = self, []
        if g.n_kv_heads:
            values = g.head_dim if g.v_head_dim is None else g.v_head_dim
            parts.append(Part("kv", g.n_kv_heads, g.head_dim + values, *g.rule))
        parts += [Part(*part[:3], *g.rule) for part in g.row]
        if g.index_dim:
            parts.append(Part("index", 1, g.index_dim, *g.rule))
        return parts

    @property
    def own_parts(self) -> list[Part]:
        """What one layer would store if it did not borrow."""
        parts = self.older_parts + self.recent_parts
        if self.state_heads:
            parts.append(Part("state", self.state_heads, self.state_numbers, "constant"))
        if self.conv_numbers:  # its channels belong to the heads of the state, if they divide
            heads = self.state_heads or 1
            heads = 1 if self.conv_numbers % heads else heads
            parts.append(Part("convolution", heads, self.conv_numbers // heads, "constant"))
        return parts

    @property
    def parts_billed_full(self) -> list[Part]:
        """What one layer stores if a window or a chunk of it is billed as all tokens."""
        if self.rule[0] not in ("window", "chunk"):
            return self.parts
        return [
            part if part.keeps == "constant" else part._replace(keeps="all", size=1)
            for part in self.parts
        ]


class HasLayers(Protocol):
    """What knows its layers: a :class:`~attnlib.models.Model`."""

    @property
    def layers(self) -> Sequence[LayerKind]:
        """The kinds of its layers."""
        ...


class CacheSize(NamedTuple):
    """The bytes of a cache.

    Attributes:
        once: each number once, wherever it is.
        per_device: on the device that holds most.
        devices: that share the layers.
    """

    once: int
    per_device: int
    devices: int = 1

    @property
    def total(self) -> int:
        """On all devices together, copies included."""
        return self.per_device * self.devices

    @property
    def copies(self) -> Fraction:
        """How often a number is stored, on average."""
        return Fraction(self.total, self.once)


def layers_of(model: Geometry | HasLayers | Sequence[LayerKind]) -> list[LayerKind]:
    """Return the kinds of a model's layers, checked.

    Args:
        model: a published model, kinds, or the sizes of layers that are alike.

    Returns:
        The kinds, in order.

    Raises:
        ValueError: if it is nothing of that, or a kind borrows from none before it.
    """
    if isinstance(model, Geometry):
        return kinds_of(model)
    kinds: Any = getattr(model, "layers", model)
    if not kinds or not all(isinstance(kind, LayerKind) for kind in kinds):
        raise ValueError(f"model must be a model, a Geometry or LayerKinds, got {model!r}")
    owners: set[str] = set()
    for kind in kinds:
        if kind.borrows is not None and kind.borrows not in owners:
            raise ValueError(
                f"borrows must name an earlier kind that owns a cache, got {kind.borrows!r}"
            )
        if kind.borrows is None and kind.name:
            owners.add(kind.name)
    return list(kinds)


def kinds_of(geometry: Geometry) -> list[LayerKind]:
    """Return the kinds of a model whose layers differ in their window at most.

    Args:
        geometry: the sizes.

    Returns:
        One kind, or two.
    """
    g = geometry
    sizes: dict[str, Any] = {"n_heads": g.n_heads}
    if g.kv_lora_rank is not None and g.qk_rope_head_dim is not None:
        sizes |= {"kv_lora_rank": g.kv_lora_rank, "qk_rope_head_dim": g.qk_rope_head_dim}
    else:
        sizes |= {"n_kv_heads": g.n_kv_heads, "head_dim": g.head_dim}
        sizes["v_head_dim"] = g.v_head_dim
    full, kinds = g.n_layers - g.n_window_layers, []
    if g.n_window_layers:
        window = LayerKind(n_layers=g.n_window_layers, name="window", window=g.window, **sizes)
        kinds.append(window)
    if full:
        kinds.append(LayerKind(n_layers=full, name="full", **sizes))
    return kinds


def format_of(dtype: object, part: str) -> Format:
    """Return how a part of a cache is stored.

    Args:
        dtype: one of :data:`FORMATS`, a torch dtype, or the bits of one number.
        part: name of the part. A constant state is float32 and what a convolution keeps is
            bfloat16, whatever the cache is.

    Returns:
        The format.

    Raises:
        ValueError: if the format is unknown, or a layout lacks the part.
    """
    fixed = {"state": Format(32), "convolution": Format(16)}
    if part in fixed:
        return fixed[part]
    if not isinstance(dtype, str) or dtype in DTYPE_BITS:
        return Format(bits_of(dtype))
    if dtype in BLOCKS:
        return BLOCKS[dtype]
    if dtype not in LAYOUTS:
        raise ValueError(f"dtype must be one of {', '.join(FORMATS)}, got {dtype!r}")
    if part not in LAYOUTS[dtype]:
        stored = ", ".join(LAYOUTS[dtype])
        raise ValueError(f"dtype {dtype} stores {stored} and no {part}")
    return LAYOUTS[dtype][part]


def check_split(split: str) -> str:
    """Check the name of a split.

    Args:
        split: what came.

    Returns:
        ``split``, unchanged.

    Raises:
        ValueError: if it is unknown.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return split


def cache_size(
    model: Geometry | HasLayers | Sequence[LayerKind],
    tokens: int,
    *,
    batch_size: int = 1,
    dtype: object = "bfloat16",
    page: int = 1,
    windows: bool = True,
    devices: int = 1,
    split: str = "heads",
) -> CacheSize:
    """How many bytes the cache of a model takes, on one device or on several.

    Args:
        model: a published model, kinds of layers, or a geometry.
        tokens: seen of each sequence, T.
        batch_size: sequences, B.
        dtype: of the stored numbers: one of :data:`FORMATS`, a torch dtype, or bits.
        page: entries that are reserved together; 1 gives the least bytes.
        windows: whether layers with a window or a chunk keep no more than that; False reserves
            all tokens in them, as some programs do.
        devices: that share the layers.
        split: one of :data:`SPLITS`. By heads, each device keeps its KV heads, and copies of
            what cannot be divided. By positions, each keeps every so many-th entry, and copies
            of constant state. By sequences, each keeps the whole cache of some of them.

    Returns:
        The sizes; a last byte begun counts whole.

    Raises:
        ValueError: if a number is below 1, the format or the split is unknown, or devices and
            heads do not divide each other.
    """
    kinds = layers_of(model)
    tokens, batch_size = check_size("tokens", tokens), check_size("batch_size", batch_size)
    page, devices = check_size("page", page), check_size("devices", devices)
    check_split(split)
    once = fullest = 0  # bits
    for kind in kinds:
        for part in kind.parts if windows else kind.parts_billed_full:
            row = kind.n_layers * format_of(dtype, part.name).row_bits(part.width)
            entries, heads, sequences = part.entries(tokens, page), part.heads, batch_size
            once += row * entries * heads * sequences
            if split == "heads":
                heads = part.held_by_one_of(devices)
            elif split == "sequences":
                sequences = -(-batch_size // devices)  # rounded up
            elif part.keeps != "constant":
                entries = -(-entries // (page * devices)) * page
            fullest += row * entries * heads * sequences
    return CacheSize(-(-once // 8), -(-fullest // 8), devices)


def growth_bytes(
    model: Geometry | HasLayers | Sequence[LayerKind],
    *,
    dtype: object = "bfloat16",
    windows: bool = True,
) -> Fraction:
    """How many bytes each further token adds, once every window is full.

    Args:
        model: as for :func:`cache_size`.
        dtype: the same.
        windows: the same.

    Returns:
        Bytes of one sequence, exact; a compressed entry counts for its tokens in equal parts.
    """
    bits = Fraction(0)
    for kind in layers_of(model):
        for part in kind.parts if windows else kind.parts_billed_full:
            if part.keeps in ("all", "stride"):
                size = part.size if part.keeps == "stride" else 1
                row = format_of(dtype, part.name).row_bits(part.width)
                bits += Fraction(kind.n_layers * part.heads * row, size)
    return bits / 8


def max_cached_tokens(
    model: Geometry | HasLayers | Sequence[LayerKind],
    memory_bytes: int,
    *,
    most: int = 2**40,
    **options: object,
) -> int | None:
    """How many tokens of each sequence fit into the memory of every device.

    Args:
        model: as for :func:`cache_size`.
        memory_bytes: for the cache, on each device.
        most: tokens beyond which the answer is ``None``, since the cache has stopped growing.
        **options: of :func:`cache_size`.

    Returns:
        Tokens, 0 if not one fits; ``None`` if any number does.

    Raises:
        ValueError: as :func:`cache_size`, or if the memory is below 1 byte.
    """
    memory_bytes = check_size("memory_bytes", memory_bytes)

    def fits(tokens: int) -> bool:
        return cache_size(model, tokens, **options).per_device <= memory_bytes  # type: ignore[arg-type]

    if not fits(1):
        return 0
    if fits(most):
        return None
    low, high = 1, most  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


class StepReads(NamedTuple):
    """What the core of one decode step takes, all layers together.

    Attributes:
        bytes: of the cache that are read, each once per layer that reads it.
        flops: of scores and weighted sums, of the indexer, and of the states.
    """

    bytes: int
    flops: int


def step_reads(
    model: Geometry | HasLayers | Sequence[LayerKind],
    tokens: int,
    *,
    dtype: object = "bfloat16",
) -> StepReads:
    """What one new token reads of its sequence's cache, and computes with it.

    A layer that borrows reads what it borrowed. An indexer reads all its keys, and then
    ``top_k`` entries at most. MLA is absorbed.

    Args:
        model: as for :func:`cache_size`, with ``n_heads`` in every kind that attends.
        tokens: that the new one sees, itself included.
        dtype: as for :func:`cache_size`.

    Returns:
        Bytes and FLOPs.

    Raises:
        ValueError: as :func:`cache_size`, or if a kind that attends has no ``n_heads``.
    """
    tokens, kinds = check_size("tokens", tokens), layers_of(model)
    bits = flops = 0
    for kind in kinds:
        for part in read_by(kind, kinds):
            entries = part.entries(tokens)
            if part.keeps == "chunk":
                entries = (tokens - 1) % part.size + 1
            if part.name in ("kv", "latent", "shared", "rotary") and part.keeps != "window":
                entries = min(entries, kind.top_k or entries)
            row = format_of(dtype, part.name).row_bits(part.width)
            bits += kind.n_layers * part.heads * row * entries
            flops += 2 * kind.n_layers * entries * products(kind, part)
    return StepReads(-(-bits // 8), flops)


def read_by(kind: LayerKind, kinds: Sequence[LayerKind]) -> list[Part]:
    """Return what a layer reads: its own cache, and what it borrows.

    Args:
        kind: of the layer.
        kinds: of its model.

    Returns:
        The parts.
    """
    if not kind.borrows:
        return kind.parts
    borrowed = next(k for k in kinds if k.name == kind.borrows).older_parts
    chooses = kind.index_heads > 0  # without, it takes the entries that another layer chose
    return [part for part in borrowed if chooses or part.name != "index"] + kind.parts


def products(kind: LayerKind, part: Part) -> int:
    """Return the multiply-adds that one entry of a part takes in a layer.

    Args:
        kind: of the layer that reads.
        part: what it reads.

    Returns:
        Multiply-adds of all query heads.

    Raises:
        ValueError: if the number of query heads is needed and not known.
    """
    if part.name == "state":  # to change it by the new token, and to read it
        return 2 * part.heads * part.width
    if part.name == "convolution":
        return part.width
    if part.name == "index":
        return kind.index_heads * part.width
    heads = check_size("n_heads", kind.n_heads)
    if part.name == "latent":
        return 2 * heads * part.width  # as key and as value
    if part.name == "rotary":  # a shared vector is value in all of its width
        return heads * part.width * (2 if kind.shared_kv_dim else 1)
    return heads * part.width * (2 if part.name == "shared" else 1)


def kinds_from(rows: Sequence[Mapping[str, object]]) -> tuple[LayerKind, ...]:
    """Return the kinds that a table lists.

    Args:
        rows: the fields of each.

    Returns:
        The kinds, checked.
    """
    return tuple(layers_of([LayerKind(**row) for row in rows]))  # type: ignore[arg-type]
