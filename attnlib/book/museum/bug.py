"""One exhibit of the museum: a wrong layer, what is known about it, and its label."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import nn

from attnlib.book.listings import changed_lines, listing_source
from attnlib.book.museum.layers import (
    ReferenceAttention,
    ReferenceLatentAttention,
    ReferenceSplitAttention,
    ReferenceSteps,
    ReferenceWindowAttention,
)
from attnlib.testing import FAILS, NOT_ASKED, Reports, alike, check_layer

COLUMNS = 42  # what fits on a phone
UNBROKEN = "\N{NO-BREAK SPACE}"

# Sizes that all differ, so that swapped axes cannot cancel.
GROUPED = {"d_model": 22, "n_heads": 6, "n_kv_heads": 3, "head_dim": 4}
LATENT = {
    "d_model": 22, "n_heads": 6, "kv_lora_rank": 13, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4, "v_head_dim": 9,
}  # fmt: skip
WINDOWED = {"d_model": 22, "n_heads": 6, "n_kv_heads": 2, "head_dim": 4, "window": 3}
SPLIT = {"d_model": 22, "n_heads": 12, "n_kv_heads": 4, "head_dim": 8}  # over two ranks

#: Sizes of the museum's layers, by the reference layer.
SIZES: dict[type[ReferenceSteps], Mapping[str, int]] = {
    ReferenceAttention: GROUPED,
    ReferenceLatentAttention: LATENT,
    ReferenceWindowAttention: WINDOWED,
    ReferenceSplitAttention: SPLIT,
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
        """Return the steps that differ: how each begins, and its lines to remove and to add."""
        pairs = ((getattr(self.reference, m), getattr(self.layer, m)) for m in self.methods)
        return "\n".join(changes(right, wrong) for right, wrong in pairs)

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
        """The label of the exhibit: what shows, what differs, why, and which checks notice."""
        lines = [*self._paragraph("symptom", self.symptom), "", self.diff(), ""]
        titles = {
            "cause": self.cause,
            "caught by": named(self.reports, FAILS),
            "not asked": named(self.reports, NOT_ASKED),
        }
        for title, text in titles.items():
            lines += self._paragraph(title, text)
        return "\n".join(lines).replace(UNBROKEN, " ")

    @staticmethod
    def _paragraph(title: str, text: str) -> list[str]:
        """Lines of a text with its title on the left; none without a text."""
        first, later = f"{title:11}", " " * 11
        return textwrap.wrap(text, COLUMNS, initial_indent=first, subsequent_indent=later)


def changes(right: object, wrong: object) -> str:
    """Return the first line of a step, then the lines that make it wrong, without docstrings.

    Args:
        right: a method of a reference layer.
        wrong: the method of the wrong layer.

    Returns:
        Lines of code.
    """
    first = listing_source(right).splitlines()[0]
    lines = changed_lines(right, wrong).splitlines()
    lines = [line for line in lines if not line.lstrip().startswith('"""')]
    return "\n".join([f" {first}", *(lines[1:] if lines[0] == "..." else lines)])


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
