"""Results of the laboratories, stored with the package, each with where it comes from."""

from __future__ import annotations

from attnlib.labs.experiment import RESULTS


def names() -> list[str]:
    """Return the names of the results that are stored, sorted."""
    return RESULTS.names()
