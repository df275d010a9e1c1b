"""The pages on notation and names: one source, and names that the code really has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

from tools import ROOT, notation

FOUND = notation.names()
CODE = re.compile(r"`(\w+)`")


def test_pages_and_sources_agree():
    """Catches a table that was edited by hand, and a source without its table."""
    for name, tables in (("appendix/notation.md", 1), ("appendix/names.md", 3)):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert len(notation.TABLE.findall(text)) == tables
        assert notation.page(text) == text


def test_a_symbol_without_names_is_caught(monkeypatch):
    rows = [*notation.rows(), ("d_new", "new_dim", "a width that was added")]
    monkeypatch.setattr(notation, "rows", lambda: rows)
    with pytest.raises(notation.NamesError, match="d_new"):
        notation.names()


def test_a_parameter_without_names_is_caught(monkeypatch):
    monkeypatch.setattr(notation, "parameters", lambda: ["q_proj"])
    with pytest.raises(notation.NamesError, match="kv_b_proj"):
        notation.names()


def test_an_edited_table_is_noticed():
    text = (ROOT / "appendix" / "names.md").read_text(encoding="utf-8")
    assert notation.page(text.replace("`n_query_groups`, a", "`n_groups`, a")) == text


def test_sources_are_files_of_public_repositories():
    for column in FOUND["columns"]:
        for name, link in FOUND["sources"][column].items():
            if column == "papers":
                assert re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5}", link)
            else:
                assert re.fullmatch(r"https://github\.com/[\w-]+/[\w-]+/blob/main/.+\.py", link)
                assert link.endswith(f"/{name}")


def words(path: Path) -> set[str]:
    """Return the words of a file."""
    return set(re.findall(r"\w+", path.read_text(encoding="utf-8")))


def test_transformers_has_the_names_that_the_page_gives_it():
    """Catches a name that the pinned transformers does not use in the files that are linked."""
    transformers = pytest.importorskip("transformers")
    home = Path(transformers.__file__).parent
    links = FOUND["sources"]["transformers"].values()
    there = set().union(*(words(home / link.split("/src/transformers/")[1]) for link in links))
    cells = [row.get("transformers", "") for kind in ("symbols", "weights") for row in
             FOUND[kind].values()]  # fmt: skip
    named = {name for cell in cells for name in CODE.findall(cell)}
    assert len(named) > 20
    assert named <= there, named - there


def test_our_parameters_are_named_as_in_transformers():
    """The page says that published weights load by name."""
    for name, row in FOUND["weights"].items():
        assert row["transformers"] == f"`{name}`"


def test_pytorch_has_what_the_page_says_of_it():
    """Catches a change of the names and widths of `nn.MultiheadAttention`."""
    text = (ROOT / "appendix" / "names.md").read_text(encoding="utf-8")
    alike, other = nn.MultiheadAttention(12, 3), nn.MultiheadAttention(12, 3, kdim=5, vdim=7)
    assert alike.in_proj_weight.shape == (3 * 12, 12)
    assert (other.k_proj_weight.shape, other.v_proj_weight.shape) == ((12, 5), (12, 7))
    assert alike.head_dim == alike.embed_dim // alike.num_heads
    assert all(f"`{name}`" in text for name in ("kdim", "vdim", "embed_dim", "in_proj_weight"))
    said = nn.functional.scaled_dot_product_attention.__doc__
    assert all(f":math:`{letter}: " in said for letter in ("Hq", "H", "N", "L", "S", "E", "Ev"))
