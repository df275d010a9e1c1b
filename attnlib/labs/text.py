"""Real text that every machine with Python has: the source of the standard library, as bytes.

Nothing is downloaded and nothing is stored. The text differs a little between versions of
Python, so a stored result carries the fingerprint of the text that it was made with.
"""

from __future__ import annotations

import hashlib
import platform
import sysconfig
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from attnlib.checks import check_size

# Not the library itself, machine-made tables, or folders that some installations leave out.
LEFT_OUT = {
    *("site-packages", "dist-packages", "lib-dynload", "__pycache__", "test", "tests"),
    *("idlelib", "lib2to3", "distutils", "ensurepip", "tkinter", "turtledemo", "msilib"),
    *("encodings", "pydoc_data", "__phello__", "_pyrepl", "pip", "setuptools"),
}
HELD_OUT = 26  # of 256: a file whose path's hash begins with a smaller byte is held out


class Text(NamedTuple):
    """Training and held-out text; no file has a part in both.

    Attributes:
        train: uint8, shape ``(n,)``, one byte per token.
        held_out: uint8, shape ``(m,)``, never trained on.
        fingerprint: what the text is: "python" (version), "files", "held_out_files", "bytes"
            (of both parts together) and "sha256" (of both, the training part first).
    """

    train: Tensor
    held_out: Tensor
    fingerprint: dict[str, object]


def source_files(folder: Path) -> list[str]:
    """List the Python files of a folder that belong to the text.

    Args:
        folder: the root of a standard library.

    Returns:
        Paths relative to ``folder``, with forward slashes, sorted.
    """
    paths = (path.relative_to(folder) for path in folder.rglob("*.py"))
    kept = (
        path.as_posix()
        for path in paths
        if not LEFT_OUT.intersection(path.parts)
        and not any(part.startswith(("config-", "_sysconfigdata")) for part in path.parts)
    )
    return sorted(kept)


def is_held_out(path: str) -> bool:
    """Return whether a file belongs to the held-out part; about one in ten does.

    The path alone decides, so a file keeps its side when others come or go.

    Args:
        path: relative, with forward slashes.

    Returns:
        True for a held-out file.
    """
    return hashlib.sha256(path.encode()).digest()[0] < HELD_OUT


def load_text(folder: Path | str | None = None) -> Text:
    """Read the source files of a standard library as one text of bytes in two parts.

    Args:
        folder: the library's root; ``None`` means that of the Python that runs.

    Returns:
        The text.

    Raises:
        ValueError: if the folder has no source files for one of the two parts.
    """
    root = Path(sysconfig.get_paths()["stdlib"] if folder is None else folder)
    paths = source_files(root)
    held_out_paths = [path for path in paths if is_held_out(path)]
    train_paths = [path for path in paths if not is_held_out(path)]
    parts = []
    for name, chosen in (("train", train_paths), ("held_out", held_out_paths)):
        data = b"".join((root / path).read_bytes() for path in chosen)
        if not data:
            raise ValueError(
                f"folder must have Python source files for the part {name!r}, got"
                f" {len(chosen)} of them with {len(data)} bytes"
            )
        parts.append(data)
    fingerprint = {
        "python": platform.python_version(),
        "files": len(paths),
        "held_out_files": len(held_out_paths),
        "bytes": sum(map(len, parts)),
        "sha256": hashlib.sha256(b"".join(parts)).hexdigest(),
    }
    train, held_out = (torch.frombuffer(bytearray(part), dtype=torch.uint8) for part in parts)
    return Text(train, held_out, fingerprint)


def batch(data: Tensor, batch_size: int, tokens: int, generator: torch.Generator) -> Tensor:
    """Cut random windows out of a text.

    Args:
        data: uint8, shape ``(n,)``.
        batch_size: windows, B.
        tokens: that a model reads of each, T; one more is cut, so that the last one has a
            next one.
        generator: on the CPU; decides where the windows begin.

    Returns:
        int64, shape ``(B, T + 1)``.

    Raises:
        ValueError: if a size is below 1, or the text is shorter than one window.
    """
    batch_size = check_size("batch_size", batch_size)
    tokens = check_size("tokens", tokens)
    last = len(data) - tokens - 1  # where the last window begins
    if last < 0:
        raise ValueError(
            f"data must hold a window of tokens + 1 = {tokens + 1} bytes, got {len(data)}"
        )
    starts = torch.randint(last + 1, (batch_size, 1), generator=generator)  # (B, 1)
    return data[starts + torch.arange(tokens + 1)].long()  # (B, T + 1)


def windows(data: Tensor, count: int, tokens: int) -> Tensor:
    """Cut windows at equal distances out of a text: always the same ones.

    Args:
        data: uint8, shape ``(n,)``.
        count: windows.
        tokens: that a model reads of each, T; one more is cut.

    Returns:
        int64, shape ``(count, T + 1)``.

    Raises:
        ValueError: if a size is below 1, or the text is too short for windows that do not
            overlap.
    """
    count = check_size("count", count)
    tokens = check_size("tokens", tokens)
    distance = len(data) // count
    if distance < tokens + 1:
        raise ValueError(
            f"data must hold count x (tokens + 1) = {count * (tokens + 1)} bytes,"
            f" got {len(data)}"
        )
    starts = distance * torch.arange(count)[:, None]  # (count, 1)
    return data[starts + torch.arange(tokens + 1)].long()  # (count, T + 1)
