"""Write the tables of the pages on notation and on names, or check them.

    python -m tools notation           rewrite the tables
    python -m tools notation --check   exit 1 if a page and its source differ

The docstring of attnlib is the source of symbols, since a reader of the package has no page at
hand. What others call the same thing is in names.json beside this file, by these symbols, and
for weights by the names of the layers' parameters.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import attnlib
from attnlib import MultiHeadAttention, MultiHeadLatentAttention
from tools import ROOT, arguments

NAMES = Path(__file__).with_name("names.json")
TABLE = re.compile(
    r"(?P<begin><!-- table of (?P<what>\w+): .*? -->\n).*?(?P<end><!-- end of table -->)",
    re.DOTALL,
)
NOTHING = "–"


class NamesError(Exception):
    """A symbol that names.json lacks or has too much; the message says which."""


def rows() -> list[tuple[str, str, str]]:
    """Return (symbol, name in code, meaning) of each line of the docstring's table."""
    table = attnlib.__doc__.split("------\n", maxsplit=1)[1]
    lines = re.split(r"\n\s*\n", table, maxsplit=1)[0].splitlines()
    return [tuple(re.split(r"\s{2,}", line.strip(), maxsplit=2)) for line in lines]


def parameters() -> list[str]:
    """Return the names of the variants' parameters, in the order in which layers make them."""
    latent = {"kv_lora_rank": 4, "q_lora_rank": 4, "v_head_dim": 2}
    latent |= {"qk_nope_head_dim": 2, "qk_rope_head_dim": 2}
    layers = (MultiHeadAttention(4, 2), MultiHeadLatentAttention(4, 2, **latent))
    names = [key.rpartition(".")[0] for layer in layers for key in layer.state_dict()]
    return list(dict.fromkeys(names))


def names() -> dict[str, dict]:
    """Return what names.json holds.

    Raises:
        NamesError: if it lacks a symbol or a parameter, or has one that does not exist.
    """
    found = json.loads(NAMES.read_text(encoding="utf-8"))
    if [name for table in found["tables"] for name in table] != list(found["columns"]):
        raise NamesError("tables: not every column stands in one table, in order")
    wanted = {"symbols": [symbol for symbol, _, _ in rows()], "weights": parameters()}
    for kind, keys in wanted.items():
        if odd := set(keys) ^ set(found[kind]):
            raise NamesError(f"{kind}: {sorted(odd)} in names.json or in attnlib, not in both")
        for key, row in found[kind].items():
            if odd := set(row) - set(found["columns"]):
                raise NamesError(f"{kind}, {key}: no column {sorted(odd)}")
    return found


def as_maths(symbol: str) -> str:
    """Return a symbol such as ``H_kv`` or ``d_h^R`` as dollar maths."""
    symbol = symbol.replace("d_model", r"d_\text{model}")
    return "$" + re.sub(r"_([a-z]{2,})", r"_{\1}", symbol) + "$"


def as_table(head: list[str], body: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(line)} |" for line in (head, *body)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def notation() -> str:
    """Return the table of symbols."""
    body = [[as_maths(symbol), f"`{code}`", meaning] for symbol, code, meaning in rows()]
    return as_table(["symbol", "in code", "meaning"], body)


def elsewhere(kind: str, found: dict[str, dict]) -> str:
    """Return the tables of what others call the symbols or the weights."""
    if kind == "symbols":
        first = [(key, f"{as_maths(key)} `{code}`") for key, code, _ in rows()]
    else:
        first = [(key, f"`{key}`") for key in parameters()]
    tables = []
    for columns in found["tables"]:  # as many as a page has room for, side by side
        body = [
            [shown, *(found[kind][key].get(column, NOTHING) for column in columns)]
            for key, shown in first
        ]
        tables.append(as_table(["here", *(found["columns"][name] for name in columns)], body))
    return "\n\n".join(tables)


def sources(found: dict[str, dict]) -> str:
    """Return the list of where the names were read."""
    lines = []
    for column, title in found["columns"].items():
        links = (f"[{name}]({link})" for name, link in found["sources"][column].items())
        lines.append(f"- {title}: {', '.join(links)}.")
    return "\n".join(lines)


def page(text: str) -> str:
    """Return a page's text with today's tables in it."""
    found = names()
    made = {
        "notation": notation(),
        "symbols": elsewhere("symbols", found),
        "weights": elsewhere("weights", found),
        "sources": sources(found),
    }
    return TABLE.sub(lambda t: f"{t['begin']}\n{made[t['what']]}\n\n{t['end']}", text)


def main(argv: list[str]) -> int:
    """Write or check the pages."""
    parser = arguments.parser(__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check, status = parser.parse_args(argv).check, 0
    for path in (ROOT / "appendix" / "notation.md", ROOT / "appendix" / "names.md"):
        stored = path.read_text(encoding="utf-8")
        wanted = page(stored)
        if not check:
            path.write_text(wanted, encoding="utf-8")
        elif stored != wanted:
            print(f"{path.name} and its source differ: run `make listings`")
            status = 1
    return status
