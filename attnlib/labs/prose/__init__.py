"""English that every machine has: paragraphs of this book, as they were in November 2026.

They are a copy that does not change when a chapter does, so that a perplexity means the same
next year. ``held_out.txt`` is from *The KV cache* and *Multi-head latent attention*;
``sample.txt`` is from the other chapters.
"""

from __future__ import annotations

from importlib.resources import files


def prose(part: str) -> str:
    """Return a part of the stored prose.

    Args:
        part: "held_out" or "sample".

    Returns:
        Its text.

    Raises:
        ValueError: if there is no such part.
    """
    if part not in ("held_out", "sample"):
        raise ValueError(f"part must be 'held_out' or 'sample', got {part!r}")
    return (files(__name__) / f"{part}.txt").read_text(encoding="utf-8")
