"""Docstrings as `make lint` checks them: arguments are those of the signature."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import docstrings
from tools import ROOT, steps

SOURCE = (ROOT / "attnlib" / "masks.py").read_text(encoding="utf-8")


def linted(folder: Path, source: str) -> str:
    """Return what our configuration of pydoclint reports about a module's source."""
    path = folder / "sample.py"
    path.write_text(source, encoding="utf-8")
    (command,) = [c for c in steps.LINT if "pydoclint" in c[0]]
    (folder / "none.txt").touch()
    options = (f"--config={ROOT / 'pyproject.toml'}", f"--baseline={folder / 'none.txt'}")
    run = subprocess.run(
        [*command[:2], *options, str(path)], capture_output=True, text=True, check=False
    )
    return run.stdout + run.stderr if run.returncode else ""


def test_a_right_docstring_passes(tmp_path):
    assert linted(tmp_path, SOURCE) == ""


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("        window: keys each", "        windows: keys each"),
        ("        k_positions: key", "        (k) key"),
        ("    Args:", "    Arg:"),
    ],
)
def test_a_wrong_argument_is_noticed(tmp_path, right, wrong):
    assert right in SOURCE
    assert "causal_mask" in linted(tmp_path, SOURCE.replace(right, wrong))


def test_a_wrong_heading_is_noticed():
    """Catches `Raise:`, which pydoclint and Sphinx take for text."""
    lines = ["Do.", "", "Args:", "    a: one.", "", "Raise:", "    ValueError: never.", ""]
    assert docstrings.wrong_headings(lines) == ["Raise:"]


def test_a_sentence_that_ends_in_a_colon_is_no_heading():
    lines = ["Do.", "", "For example:", "", "    f(1)", "", "Note:", "    It is slow.", ""]
    assert docstrings.wrong_headings(lines) == []
