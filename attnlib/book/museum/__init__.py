"""The museum: attention layers with bugs that people really write, and two without.

``BUGS`` has all wrong layers by name, :func:`matrix` the result of every check on each of them,
and :func:`training` what the loss of a small model shows of them.
"""

from attnlib.book.museum.bug import COLUMNS, GROUPED, LATENT, SIZES, Bug
from attnlib.book.museum.catalogue import BUGS
from attnlib.book.museum.experiment import (
    LEAST_LOSS,
    Losses,
    compare_loss,
    train_with,
    training,
)
from attnlib.book.museum.layers import (
    ReferenceAttention,
    ReferenceCache,
    ReferenceLatentAttention,
    ReferenceSteps,
)
from attnlib.book.museum.report import caught_by, marks, matrix, rooms, smallest_sets, table

__all__ = [
    "BUGS",
    "COLUMNS",
    "GROUPED",
    "LATENT",
    "LEAST_LOSS",
    "SIZES",
    "Bug",
    "Losses",
    "ReferenceAttention",
    "ReferenceCache",
    "ReferenceLatentAttention",
    "ReferenceSteps",
    "caught_by",
    "compare_loss",
    "marks",
    "matrix",
    "rooms",
    "smallest_sets",
    "table",
    "train_with",
    "training",
]
