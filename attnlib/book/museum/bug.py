"""One exhibit of the museum: a wrong layer, what is known about it, and its label."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from attnlib.book.listings import changed_lines
from attnlib.book.museum.layers import (
    ReferenceAttention,
    ReferenceLatentAttention,
    ReferenceSteps,
)
from attnlib.testing import FAILS, HOLDS, NOT_ASKED, Reports, alike, check_layer

COLUMNS = 42  # what fits on a phone
UNBROKEN = "\N{NO-BREAK SPACE}"

# Sizes that all differ, so that swapped axes cannot cancel.
GROUPED = {"d_model": 22, "n_heads": 6, "n_kv_heads": 3, "head_dim": 4}
LATENT = {
    "d_model": 22, "n_heads": 6, "kv_lora_rank": 13, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4, "v_head_dim": 9,
}  # fmt: skip

#: Sizes of the museum's layers, by the reference layer.
SIZES: dict[type[ReferenceSteps], Mapping[str, int]] = {
    ReferenceAttention: GROUPED,
    ReferenceLatentAttention: LATENT,
}


@dataclass(frozen=True)
class Bug:
    """One exhibit of the museum.

    Attributes:
        name: what it is called.
        room: in which the museum shows it.
        layer: the wrong class, a subclass of a reference layer.
        symptom: what shows if code has it.
        cause: what is wrong.
        threads: addresses of public threads about it, or about one very like it.
        arguments: of the layer, besides the sizes of the museum or instead of some.
    """

    name: str
    room: str
    layer: type[ReferenceSteps]
    symptom: str
    cause: str
    threads: tuple[str, ...] = ()
    arguments: Mapping[str, object] = field(default_factory=dict)

    @property
    def reference(self) -> type[ReferenceSteps]:
        """The reference layer, which the wrong class is derived from."""
        return next(kind for kind in self.layer.__mro__ if kind in SIZES)

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the steps that the wrong class overrides."""
        return tuple(name for name, value in vars(self.layer).items() if callable(value))

    @cached_property
    def reports(self) -> Reports:
        """Results of all checks of the wrong layer, in the order of ``CHECKS``."""
        return check_layer(self.build(), self.build_reference())

    def diff(self) -> str:
        """Return what turns the right steps into the wrong ones: lines to remove and to add."""
        pairs = ((getattr(self.reference, m), getattr(self.layer, m)) for m in self.methods)
        return "\n".join(changed_lines(right, wrong) for right, wrong in pairs)

    def build(self) -> nn.Module:
        """Return a layer with the bug, with the sizes of the museum."""
        return self._build(self.layer)

    def build_reference(self) -> nn.Module:
        """Return the same layer without the bug."""
        return self._build(self.reference)

    def pair(self) -> tuple[nn.Module, nn.Module]:
        """Return a wrong and a right layer with the same weights, in float64."""
        return alike(self.build(), self.build_reference())

    def _build(self, kind: type[ReferenceSteps]) -> nn.Module:
        return kind(**{**SIZES[self.reference], **self.arguments})

    def __repr__(self) -> str:
        """The label of the exhibit: what differs, why, and which checks notice it."""
        titles = {"caught by": FAILS, "holds": HOLDS, "not asked": NOT_ASKED}
        verdicts = {title: named(self.reports, word) for title, word in titles.items()}
        lines = [self.diff(), ""]
        for title, text in {"cause": self.cause, **verdicts}.items():
            if text:
                lines += textwrap.wrap(
                    text,
                    COLUMNS,
                    initial_indent=f"{title:11}",
                    subsequent_indent=" " * 11,
                )
        return "\n".join(lines).replace(UNBROKEN, " ")


def named(reports: Reports, verdict: str) -> str:
    """Names of the checks with a verdict, none of which breaks at the end of a line.

    Args:
        reports: results of checks.
        verdict: "holds", "fails" or "not asked".

    Returns:
        The names with commas between them; the spaces in a name do not break.
    """
    names = [r.check.replace(" ", UNBROKEN) for r in reports if r.verdict == verdict]
    return ", ".join(names)
