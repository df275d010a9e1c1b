"""Published models: the sizes of their attention, each with the source it was read in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

from attnlib.costs import Geometry
from attnlib.layers import LayerKind, kinds_from, kinds_of

VARIANTS = ("MHA", "MQA", "GQA", "MLA", "SWA")

#: What a source names, as a pattern, and the public page that it means.
PAGES = (
    (r"arXiv (\d{4}\.\d{5})", r"https://arxiv.org/abs/\1"),
    (
        r"([\w.-]+/[\w.-]+)@([0-9a-f]{7}) ([\w./-]+\.\w+)",
        r"https://github.com/\1/blob/\2/\3",
    ),
    (
        r"litgpt [\d.]+ (litgpt/config\.py)",
        r"https://github.com/Lightning-AI/litgpt/blob/main/\1",
    ),
    (
        r"transformers ([\d.]+) (\w+/\w+\.py)",
        r"https://github.com/huggingface/transformers/blob/v\1/src/transformers/models/\2",
    ),
    (r"(huggingface\.co/[\w-]+/[\w.-]+)", r"https://\1"),
)


class UnknownModelError(ValueError, KeyError):
    """No published model has that name; the message says which ones are near."""

    __str__ = ValueError.__str__  # KeyError would show the message in quotes


@dataclass(frozen=True)
class Model:
    """A published model's attention.

    Attributes:
        name: as its authors call it.
        family: what it belongs to, such as ``"Llama"``.
        year: of its release.
        kind: ``"decoder"``, ``"encoder"`` or ``"encoder-decoder"``; an encoder keeps no cache.
        geometry: its sizes, if its layers differ in their window at most. Biases are set only
            where the source states them. ``None`` if its layers differ in more.
        params: parameters of the whole model as its authors give them, for orientation.
        source: where the sizes were read.
        checked: what kind of source that is.
        max_context: tokens it is published for; ``None`` where the source does not say.
        note: what else one should know.
        read: day on which the source was read, such as ``"2026-05-20"``; "" if not noted.
        stored: format in which its makers' code keeps the cache: one of
            :data:`attnlib.layers.FORMATS`.
        kinds: of its layers, if they have no common geometry.
    """

    name: str
    family: str
    year: int
    kind: str
    geometry: Geometry | None
    params: str
    source: str
    checked: str
    max_context: int | None = None
    note: str = ""
    read: str = ""
    stored: str = "bfloat16"
    kinds: tuple[LayerKind, ...] = ()

    @property
    def layers(self) -> tuple[LayerKind, ...]:
        """The kinds of its layers."""
        return self.kinds if self.geometry is None else tuple(kinds_of(self.geometry))

    @property
    def n_layers(self) -> int:
        """How many layers it has that attend or keep a state."""
        return sum(kind.n_layers for kind in self.layers)

    @property
    def variant(self) -> str:
        """The variant, or that of the layers that see the most, if layers differ."""
        if self.geometry is not None:
            return self.geometry.variant
        attending = [kind for kind in self.kinds if kind.attends]
        kind = min(
            attending, key=lambda kind: kind.window is not None or kind.chunk is not None
        )
        if kind.kv_lora_rank:
            return "MLA"
        if kind.shared_kv_dim or kind.n_kv_heads == 1:
            return "MQA"
        return "MHA" if kind.n_kv_heads == kind.n_heads else "GQA"

    @property
    def traits(self) -> list[str]:
        """What else makes its cache smaller, in words, such as ``"windows"``."""
        found = {
            "windows": any(kind.window for kind in self.layers),
            "chunks": any(kind.chunk for kind in self.layers),
            "constant state": any(kind.state_heads for kind in self.layers),
            "indexer": any(kind.index_dim for kind in self.layers),
            "compressed in time": any(kind.stride for kind in self.layers),
            "shared between layers": any(kind.borrows for kind in self.layers),
            "K = V": any(kind.shared_kv_dim for kind in self.layers),
        }
        return [name for name, has in found.items() if has]

    @property
    def links(self) -> list[str]:
        """Addresses of the public pages that the source names."""
        found = []
        for pattern, page in PAGES:
            found += [match.expand(page) for match in re.finditer(pattern, self.source)]
        return found


class Models(Mapping[str, Model]):
    """Models by name, in the order of their variant; a wrong name is told what is near."""

    def __init__(self, models: Mapping[str, Model]):
        self._models = dict(models)

    def __getitem__(self, name: str) -> Model:
        """Return a model.

        Raises:
            UnknownModelError: if there is none of that name; a ValueError and a KeyError.
        """
        if name in self._models:
            return self._models[name]
        raise UnknownModelError(f"name must be a published model, got {name!r}{near(name)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def __repr__(self) -> str:
        return f"<{len(self)} published models>"


def load() -> Models:
    """Return the models of the package's table."""
    text = files("attnlib").joinpath("models.json").read_text(encoding="utf-8")
    return Models({row["name"]: model_from(row) for row in json.loads(text)})


def model_from(row: Mapping[str, Any]) -> Model:
    """Return the model of one row of the table.

    Args:
        row: names and values, with the sizes as ``"geometry"``, or as ``"layers"`` where they
            differ.

    Returns:
        The model.

    Raises:
        ValueError: if its sizes do not fit together.
    """
    row = dict(row)
    sizes, layers = row.pop("geometry", None), row.pop("layers", ())
    geometry = None if sizes is None else Geometry(**sizes)
    return Model(**row, geometry=geometry, kinds=kinds_from(layers) if layers else ())


def near(name: object) -> str:
    """Return the names that may have been meant, as the end of a message.

    Args:
        name: what came.

    Returns:
        ``"; near it: ..."``, or where to look if nothing is near.
    """
    names = {known.casefold(): known for known in MODELS}
    wanted = str(name).casefold()
    found = [known for key, known in names.items() if wanted and wanted in key]
    found += [names[key] for key in get_close_matches(wanted, names, n=5, cutoff=0.5)]
    listed = ", ".join(list(dict.fromkeys(found))[:8])
    return f"; near it: {listed}" if listed else "; list(MODELS) shows all names"


def find_model(name: str) -> Model:
    """Return a model by its name, whatever its capitals.

    Args:
        name: such as ``"llama-3 8b"``.

    Returns:
        The model.

    Raises:
        ValueError: if there is none of that name, with the names that are near.
    """
    names = {known.casefold(): known for known in MODELS}
    return MODELS[names.get(str(name).casefold(), name)]


def models_of(variant: str) -> list[Model]:
    """Return the models of one variant.

    Args:
        variant: ``"MHA"``, ``"MQA"``, ``"GQA"``, ``"MLA"`` or ``"SWA"``.

    Returns:
        The models, in the table's order.

    Raises:
        ValueError: if there is no such variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    return [model for model in MODELS.values() if model.variant == variant]


#: The published models by name, in the order of their variant; see :class:`Models`.
MODELS = load()
