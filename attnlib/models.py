"""Published models: the sizes of their attention, each with the source it was read in."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files

from attnlib.costs import Geometry

VARIANTS = ("MHA", "MQA", "GQA", "MLA")

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
        geometry: its sizes. Biases are set only where the source states them.
        params: parameters of the whole model as its authors give them, for orientation.
        source: where the sizes were read.
        checked: what kind of source that is.
        max_context: tokens it is published for; ``None`` where the source does not say.
        note: what else one should know.
    """

    name: str
    family: str
    year: int
    kind: str
    geometry: Geometry
    params: str
    source: str
    checked: str
    max_context: int | None = None
    note: str = ""

    @property
    def variant(self) -> str:
        """MHA, MQA, GQA or MLA."""
        return self.geometry.variant

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
    rows = [{**row, "geometry": Geometry(**row["geometry"])} for row in json.loads(text)]
    return Models({row["name"]: Model(**row) for row in rows})


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
        variant: ``"MHA"``, ``"MQA"``, ``"GQA"`` or ``"MLA"``.

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
