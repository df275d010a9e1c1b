"""Write the notation page's table from the docstring of attnlib, or check it.

    python tools/notation.py --write   rewrite the table
    python tools/notation.py --check   exit 1 if the page and the docstring differ

The docstring is the source, since a reader of the package has no page at hand.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import attnlib

PAGE = Path(__file__).resolve().parent.parent / "notation.md"
BEGIN = "<!-- table: from the docstring of attnlib; `make listings` writes it -->"
END = "<!-- end of table -->"


def rows() -> list[tuple[str, str, str]]:
    """Return (symbol, name in code, meaning) of each line of the docstring's table."""
    table = attnlib.__doc__.split("------\n", maxsplit=1)[1]
    lines = re.split(r"\n\s*\n", table, maxsplit=1)[0].splitlines()
    return [tuple(re.split(r"\s{2,}", line.strip(), maxsplit=2)) for line in lines]


def as_maths(symbol: str) -> str:
    """Return a symbol such as ``H_kv`` or ``d_h^R`` as dollar maths."""
    symbol = symbol.replace("d_model", r"d_\text{model}")
    return "$" + re.sub(r"_([a-z]{2,})", r"_{\1}", symbol) + "$"


def page(text: str) -> str:
    """Return the page's text with today's table in it."""
    lines = ["| symbol | in code | meaning |", "|---|---|---|"]
    for symbol, code, meaning in rows():
        lines.append(f"| {as_maths(symbol)} | `{code}` | {meaning} |")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{after}"


def main() -> int:
    """Write or check the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--write", action="store_true", help="rewrite the table")
    mode.add_argument("--check", action="store_true", help="only look")
    stored = PAGE.read_text(encoding="utf-8")
    wanted = page(stored)
    if parser.parse_args().write:
        PAGE.write_text(wanted, encoding="utf-8")
    elif stored != wanted:
        print("notation.md and the docstring of attnlib differ: run `make listings`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
