"""The museum: attention layers with bugs that people really write, and two without.

``BUGS`` has all wrong layers by name, :func:`matrix` the result of every check on each of them,
and :func:`training` what the losses of small models show of them.
"""

from attnlib.book.museum.bug import COLUMNS, GROUPED, LATENT, SIZES, SPLIT, WINDOWED, Bug
from attnlib.book.museum.catalogue import BUGS
from attnlib.book.museum.experiment import (
    LEAST_LOSS,
    BugRun,
    Losses,
    Settings,
    Training,
    run_training,
    train_with,
    training,
)
from attnlib.book.museum.layers import (
    ReferenceAttention,
    ReferenceCache,
    ReferenceLatentAttention,
    ReferenceRing,
    ReferenceSplitAttention,
    ReferenceSteps,
    ReferenceWindowAttention,
)
from attnlib.book.museum.report import caught_by, marks, matrix, rooms, smallest_sets, table

__all__ = [
    "BUGS",
    "COLUMNS",
    "GROUPED",
    "LATENT",
    "LEAST_LOSS",
    "SIZES",
    "SPLIT",
    "WINDOWED",
    "Bug",
    "BugRun",
    "Losses",
    "ReferenceAttention",
    "ReferenceCache",
    "ReferenceLatentAttention",
    "ReferenceRing",
    "ReferenceSplitAttention",
    "ReferenceSteps",
    "ReferenceWindowAttention",
    "Settings",
    "Training",
    "caught_by",
    "marks",
    "matrix",
    "rooms",
    "run_training",
    "smallest_sets",
    "table",
    "train_with",
    "training",
]
