"""How each registered variant looks: one table for pictures and widgets.

Names, titles and colours come from the registry. Markers and line styles, which tell variants
apart without colour, go by a variant's place in the registry.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from attnlib.variants import VARIANTS

# By place in the registry, in matplotlib's notation; JavaScript draws the same shapes by the
# same names. A ninth variant would begin again with the first marker, in its own colour.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
LINES = ("-", "--", ":", "-.", "-..")


@dataclass(frozen=True)
class Appearance:
    """How one variant is named and drawn.

    Attributes:
        name: of the variant, such as "GQA".
        title: its name in words.
        color: hexadecimal, at least 3:1 on white and on black.
        marker: one of ``MARKERS``.
        line: one of ``LINES``.
    """

    name: str
    title: str
    color: str
    marker: str
    line: str

    @property
    def linestyle(self) -> str | tuple[int, tuple[int, ...]]:
        """The line for matplotlib, which has no name for a dash and two dots."""
        return (0, (6, 2, 1, 2, 1, 2)) if self.line == "-.." else self.line


def appearances() -> dict[str, Appearance]:
    """Return the appearance of every registered variant, by name, in registry order."""
    return {
        name: Appearance(
            name=name,
            title=variant.title,
            color=variant.color,
            marker=MARKERS[place % len(MARKERS)],
            line=LINES[place % len(LINES)],
        )
        for place, (name, variant) in enumerate(VARIANTS.items())
    }


def appearance_of(label: str) -> Appearance:
    """Return the appearance of the variant that a label begins with.

    Args:
        label: the name of a variant, alone or followed by a comma and what is special about
            it, such as "GQA, 8 KV heads".

    Returns:
        The variant's appearance.

    Raises:
        ValueError: if the label does not begin with the name of a registered variant.
    """
    name = label.partition(",")[0]
    known = appearances()
    if name not in known:
        raise ValueError(f"label must begin with one of {', '.join(known)}, got {label!r}")
    return known[name]


def variants_json() -> list[dict[str, str]]:
    """Return all appearances as JSON for a widget's page, in registry order."""
    return [asdict(appearance) for appearance in appearances().values()]
