"""Records to JSON and back, and files that are whole or not there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from attnlib.bench.stored import from_json, save_json, to_json
from attnlib.costs import Geometry


class Trial(NamedTuple):
    """A run, as a laboratory might have it."""

    seed: int
    losses: list[tuple[int, float]]
    by_name: dict[str, list[tuple[int, float]]]


@dataclass(frozen=True)
class Found:
    """Findings with everything that occurs in them."""

    ranks: tuple[int, ...]
    pair: tuple[int, float]
    sizes: Mapping[str, Mapping[str, int]]
    runs: list[Trial]
    geometry: Geometry
    note: str | None = None


FOUND = Found(
    (1, 2, 3), (4, 0.5), {"a": {"b": 1}}, [Trial(7, [(0, 1.5)], {"c": [(1, 2.5), (2, 3.5)]})],
    Geometry(2, 6, 3, 4, d_model=24),
)  # fmt: skip


def test_records_come_back_with_their_types():
    """Catches a tuple that comes back as a list, at any depth."""
    found = from_json(Found, json.loads(json.dumps(to_json(FOUND))))
    assert found == FOUND
    assert type(found.runs[0]) is Trial and type(found.ranks) is tuple
    assert type(found.runs[0].by_name["c"][1]) is tuple


@pytest.mark.parametrize("change", [{"more": 1}, {"pair": ...}], ids=["more", "less"])
def test_a_field_too_many_or_too_few_is_refused(change):
    """Catches results that are read in silence by code which no longer fits them."""
    report = {k: v for k, v in {**to_json(FOUND), **change}.items() if v is not ...}
    with pytest.raises(TypeError, match=next(iter(change))):
        from_json(Found, report)


def test_a_file_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "a.json"
    save_json(path, FOUND)
    before = path.read_text()
    with pytest.raises(TypeError):
        save_json(path, {"bad": object()})
    assert path.read_text() == before
    save_json(path, [1])
    assert json.loads(path.read_text()) == [1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
