"""The ratchet on type errors: a number may fall and never rise."""

from __future__ import annotations

import json

import pytest

from tools import type_errors

TWO = ["a.py:1: error: x", "a.py:2: error: y"]


@pytest.mark.parametrize(
    ("path", "package"),
    [
        ("attnlib/core.py", "attnlib"),
        ("attnlib/variants/gqa.py", "attnlib"),
        ("attnlib/bench/measure.py", "attnlib/bench"),
        ("attnlib/book/widgets/base.py", "attnlib/book"),
        ("tools/steps.py", "tools"),
        ("_ext/book.py", "_ext"),
    ],
)
def test_a_file_counts_for_its_package(path, package):
    assert type_errors.package_of(path) == package


def test_a_rise_fails_and_shows_the_errors():
    lines, too_many = type_errors.compare({"tools": TWO}, {"tools": 1})
    assert too_many
    assert lines == [*TWO, "tools: 2 type errors, at most 1 allowed"]


def test_a_package_without_a_number_may_have_no_error():
    """Catches a new package, or floor 1, with an error."""
    assert type_errors.compare({"attnlib": TWO}, {})[1]


def test_a_fall_passes_and_asks_for_the_lower_number():
    lines, too_many = type_errors.compare({"tools": TWO}, {"tools": 3, "_ext": 0})
    assert not too_many
    (line,) = lines
    assert "lower it" in line


def test_writing_never_raises_a_number():
    assert type_errors.lowered({"a": TWO, "b": TWO}, {"a": 1, "b": 5, "c": 4}) == {
        "a": 1,
        "b": 2,
        "c": 0,
    }


def test_floor_1_may_have_no_error():
    allowed = json.loads(type_errors.ALLOWED.read_text(encoding="utf-8"))
    assert "attnlib" not in allowed
