"""Five dials: who owns a cache, how long, how wide, how many bits, how many copies."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date

import traitlets

from attnlib.book.widgets.base import Widget, one_of, table, within
from attnlib.book.widgets.explorer import UNITS, amount
from attnlib.layers import (
    Format,
    LayerKind,
    Part,
    cache_size,
    format_of,
    layers_of,
    max_cached_tokens,
    read_by,
)
from attnlib.models import Model
from attnlib.scalars import check_size

SERVED = "as served"  # each model in the format in which its makers' code keeps it
FORMATS = {
    SERVED: "as the makers' code stores it",
    "float32": "float32, 4 bytes",
    "bfloat16": "bfloat16, 2 bytes",
    "int8": "8 bits, no scales",
    "q8_0": "q8_0, 34 bytes for 32",
    "q5_0": "q5_0, 22 bytes for 32",
    "q4_0": "q4_0, 18 bytes for 32",
}
OWNERS = {"own": "those that own a cache", "all": "every layer"}
KEPT = {"kept": "those that are kept", "all": "as if without windows"}
WIDTH = {"all": "all that are stored", "kv": "keys and values only"}
SCALES = {"counted": "counted", "left out": "left out"}
SPLITS = {"heads": "by heads", "positions": "by positions", "sequences": "by sequences"}
DEVICES = (1, 2, 4, 8, 16)
PAGES = {1: "entry by entry", 16: "in pages of 16 entries", 64: "in pages of 64 entries"}
LIMITS = {"context": 10_000_000, "users": 65_536, "memory": 1_000_000}
MOST = 2**50  # tokens; a cache that grows at all has filled every memory before
WORDS = {
    "kv": "key and value",
    "latent": "latent",
    "rotary": "rotary",
    "shared": "shared vector",
    "index": "index key",
    "state": "state",
    "convolution": "convolution",
}


class CacheDials(Widget, file="dials"):
    """The caches of two models, to the byte, and what a count gets wrong that forgets a dial.

    Args:
        models: published models by name.
        label: the figure's title.
        a: the first model shown; ``None`` means the first of ``models``.
        b: the second model shown; ``None`` means the next one.
        context: tokens of each user, at first.
        users: sequences at a time, at first.
        dtype: of the caches at first: one of `attnlib.book.widgets.dials.FORMATS`.
        devices: that share the layers, at first: 1, 2, 4, 8 or 16.
        split: how they share them, at first: ``"heads"``, ``"positions"`` or ``"sequences"``.
        memory: for the cache on each device, in GB, at first.

    Attributes:
        a: the first model.
        b: the second model.
        context: tokens of each user.
        users: sequences at a time.
        memory: for the cache on each device, in GB.
        owners: whether only the layers that own a cache count.
        kept: whether layers with a window count with what they keep.
        width: whether all stored numbers count, or keys and values alone.
        dtype: how numbers are stored.
        scales: whether scales count.
        devices: that share the layers.
        split: how they share them.
        page: entries that are reserved together.

    Raises:
        ValueError: if there are fewer than two models, one is not a
            :class:`attnlib.models.Model`, or a first state is not one of the choices.
    """

    anchor = "cache-dials"

    a = traitlets.Unicode().tag(sync=True, state=True)
    b = traitlets.Unicode().tag(sync=True, state=True)
    context = traitlets.Int(1).tag(sync=True, state=True)
    users = traitlets.Int(1).tag(sync=True, state=True)
    memory = traitlets.Int(1).tag(sync=True, state=True)
    owners = traitlets.Unicode("own").tag(sync=True, state=True)
    kept = traitlets.Unicode("kept").tag(sync=True, state=True)
    width = traitlets.Unicode("all").tag(sync=True, state=True)
    dtype = traitlets.Unicode("bfloat16").tag(sync=True, state=True)
    scales = traitlets.Unicode("counted").tag(sync=True, state=True)
    devices = traitlets.Int(1).tag(sync=True, state=True)
    split = traitlets.Unicode("heads").tag(sync=True, state=True)
    page = traitlets.Int(1).tag(sync=True, state=True)

    _a = one_of("a", lambda self: self.data["models"])
    _b = one_of("b", lambda self: self.data["models"])
    _owners = one_of("owners", lambda self: OWNERS)
    _kept = one_of("kept", lambda self: KEPT)
    _width = one_of("width", lambda self: WIDTH)
    _dtype = one_of("dtype", lambda self: FORMATS)
    _scales = one_of("scales", lambda self: SCALES)
    _devices = one_of("devices", lambda self: DEVICES)
    _split = one_of("split", lambda self: SPLITS)
    _page = one_of("page", lambda self: PAGES)
    _limited = within(LIMITS)

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        label: str = "Five dials of a cache",
        a: str | None = None,
        b: str | None = None,
        context: int = 131_072,
        users: int = 1,
        dtype: str = "bfloat16",
        devices: int = 1,
        split: str = "heads",
        memory: int = 80,
    ):
        super().__init__(data=dials_data(models), label=label)
        self.models = dict(models)
        first, second, *_ = models
        state: dict[str, object] = {"a": first if a is None else a}
        state |= {"b": second if b is None else b, "dtype": dtype, "split": split}
        numbers = {"context": context, "users": users, "devices": devices, "memory": memory}
        state |= {name: check_size(name, value) for name, value in numbers.items()}
        for name, value in state.items():
            self.set_trait(name, value)

    def fallback(self) -> str:
        """Return a table of all models at the first state."""
        rows = []
        for name, model in self.models.items():
            dtype = model.stored if self.dtype == SERVED else self.dtype
            options = {"batch_size": self.users, "dtype": dtype}
            size = cache_size(model, self.context, **options)
            fit = max_cached_tokens(model, self.memory * UNITS["GB"], most=MOST, **options)
            rows.append(
                [
                    name,
                    " + ".join(layers_that_own(layers_of(model))),
                    f"{size.once:,}",
                    amount(size.once, "GB"),
                    "any number" if fit is None else f"{fit:,}",
                ]
            )
        head = ["model", "layers that own a cache", "bytes", "in GB"]
        head.append(f"tokens per user that fit in {self.memory:,} GB")
        users = f"{self.users:,} user{'s' if self.users > 1 else ''}"
        tokens = f"{self.context:,} token{'s' if self.context > 1 else ''}"
        each = " each" if self.users > 1 else ""
        caption = (
            f"The cache of {users} with {tokens}{each}, on one device. Numbers are stored in"
            f" this format: {FORMATS[self.dtype]}."
        )
        notes = [f"{name}: {model.note}" for name, model in self.models.items() if model.note]
        listed = "".join(f"<li>{html.escape(note)}</li>\n" for note in notes)
        return table(head, rows, caption) + (f"\n<ul>\n{listed}</ul>" if notes else "")


def layers_that_own(kinds: Sequence[LayerKind]) -> list[str]:
    """Return how many layers of each kind own a cache, in words.

    Args:
        kinds: of a model.

    Returns:
        Such as ``["18 window", "18 full"]``.
    """
    return [f"{kind.n_layers} {kind.name}".strip() for kind in kinds if kind.borrows is None]


def dials_data(models: Mapping[str, Model]) -> dict:
    """Return the data from which the page computes.

    Args:
        models: published models by name.

    Returns:
        The widget's data.

    Raises:
        ValueError: if there are fewer than two models, or one is none.
    """
    if len(models) < 2:
        raise ValueError(f"models must name at least two models, got {list(models)}")
    for name, model in models.items():
        if not isinstance(model, Model):
            raise ValueError(f"models must be attnlib.models.Model, got {model!r}: {name}")
    return {
        "models": {name: model_data(model) for name, model in models.items()},
        "served": SERVED,
        "formats": [list(item) for item in FORMATS.items()],
        "owners": [list(item) for item in OWNERS.items()],
        "kept": [list(item) for item in KEPT.items()],
        "width": [list(item) for item in WIDTH.items()],
        "scales": [list(item) for item in SCALES.items()],
        "splits": [list(item) for item in SPLITS.items()],
        "pages": [list(item) for item in PAGES.items()],
        "devices": list(DEVICES),
        "limits": LIMITS,
        "words": WORDS,
    }


def model_data(model: Model) -> dict:
    """Return what the page needs of one model.

    Args:
        model: published.

    Returns:
        Its kinds of layers, each with its parts, and its source.
    """
    kinds = layers_of(model)
    return {
        "kinds": [kind_data(kind, kinds, model.stored) for kind in kinds],
        "stored": model.stored,
        "note": model.note,
        "source": model.source,
        "links": model.links,
        "read": in_words(model.read),
    }


def in_words(day: str) -> str:
    """Return a day such as "2026-05-20" as "20 May 2026"; "" stays as it is."""
    return f"{int(day[8:])} {date.fromisoformat(day):%B %Y}" if day else ""


def kind_data(kind: LayerKind, kinds: Sequence[LayerKind], stored: str) -> dict:
    """Return what the page needs of one kind of layers.

    Args:
        kind: the kind.
        kinds: all kinds of the model, from which it may borrow.
        stored: format in which the makers' code keeps the cache.

    Returns:
        Layers, name, lender, the parts that it lends, and its own parts, with their bits per
        row in each format.
    """
    parts, own = read_by(kind, kinds), len(kind.parts)
    data = [part_data(part, kind.stride or kind.recent, stored) for part in parts]
    return {
        "name": kind.name,
        "layers": kind.n_layers,
        "borrows": kind.borrows,
        "lent": data[: len(data) - own] if kind.borrows else [],
        "parts": data[len(data) - own :],
    }


def part_data(part: Part, fixed: int | None, stored: str) -> dict:
    """Return what the page needs of one stored part.

    Args:
        part: the part.
        fixed: not 0 or ``None`` where the layer keeps a window beside other entries, which no
            count takes for all tokens.
        stored: format in which the makers' code keeps the cache.

    Returns:
        Sizes, the rule for what is kept, and for each format the bits of a row with and
        without scales.
    """
    formats = {
        name: format_of(stored if name == SERVED else name, part.name) for name in FORMATS
    }
    bare = {name: Format(form.bits) for name, form in formats.items()}
    return {
        "name": part.name,
        "heads": part.heads,
        "width": part.width,
        "keeps": part.keeps,
        "size": part.size,
        "fixed": bool(fixed),
        "bits": {name: form.row_bits(part.width) for name, form in formats.items()},
        "bare": {name: form.row_bits(part.width) for name, form in bare.items()},
    }


def counted(
    model: Model, *, owners: str = "own", kept: str = "kept", width: str = "all"
) -> list[LayerKind]:
    """Return a model's layers as a count with some dials turned wrong would have them.

    Args:
        model: published.
        owners: one of :data:`OWNERS`.
        kept: one of :data:`KEPT`; the caller passes ``windows=`` to the count as well.
        width: one of :data:`WIDTH`.

    Returns:
        Kinds of layers.
    """
    kinds = layers_of(model)
    if owners == "all":  # as if each layer had stored what it borrows
        lenders = {kind.name: kind for kind in kinds if kind.borrows is None}
        kinds = [
            replace(
                lenders[kind.borrows],
                n_layers=kind.n_layers,
                recent=kind.recent,
                index_dim=lenders[kind.borrows].index_dim if kind.index_heads else 0,
            )
            if kind.borrows
            else kind
            for kind in kinds
        ]
    if width == "kv":
        kinds = [replace(k, index_dim=0, state_heads=0, conv_numbers=0) for k in kinds]
    return kinds
