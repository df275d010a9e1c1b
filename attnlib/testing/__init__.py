"""Checks of any attention layer, your own included: what holds, what does not, and why.

::

    from attnlib.testing import check_layer

    print(check_layer(MyAttention(d_model=32, n_heads=4)))

:func:`check_layer` runs all checks and returns a report for each. With a layer that is known
to be right it also compares the two. Each check works on copies, in float64 and with weights of
its own. It returns a :class:`Report` and raises nothing: a layer that stops with an error has
failed, and a check that does not apply to a layer gives the reason.

attnlib's unit tests run these checks on every variant, the bug museum shows which of them
notice each wrong layer, and the exercises grade readers' code with them. This package needs
torch and nothing else of attnlib.
"""

from attnlib.testing.checks import (
    CHECKS,
    Check,
    batch_equals_its_rows,
    cache_bytes,
    cached_equals_uncached,
    check,
    check_layer,
    equals_the_reference,
    gradients,
    head_grouping,
    no_future_leak,
    padding,
    permutation,
    reach,
    rows_sum_to_one,
    rows_without_keys,
    scale,
)
from attnlib.testing.probes import (
    BATCH,
    NO_WEIGHTS,
    TOKENS,
    TOLERANCE,
    Overrides,
    alike,
    has_cache,
    hidden,
    in_steps,
    influence,
    output,
    prepared,
    window_of,
)
from attnlib.testing.report import (
    FAILS,
    HOLDS,
    NOT_ASKED,
    WIDTH,
    BrokenError,
    NotAskedError,
    Report,
    Reports,
    about_none,
    in_words,
    kind_of,
    listed,
    nothing,
)

__all__ = [
    "BATCH",
    "CHECKS",
    "FAILS",
    "HOLDS",
    "NOT_ASKED",
    "NO_WEIGHTS",
    "TOKENS",
    "TOLERANCE",
    "WIDTH",
    "BrokenError",
    "Check",
    "NotAskedError",
    "Overrides",
    "Report",
    "Reports",
    "about_none",
    "alike",
    "batch_equals_its_rows",
    "cache_bytes",
    "cached_equals_uncached",
    "check",
    "check_layer",
    "equals_the_reference",
    "gradients",
    "has_cache",
    "head_grouping",
    "hidden",
    "in_steps",
    "in_words",
    "influence",
    "kind_of",
    "listed",
    "no_future_leak",
    "nothing",
    "output",
    "padding",
    "permutation",
    "prepared",
    "reach",
    "rows_sum_to_one",
    "rows_without_keys",
    "scale",
    "window_of",
]
