"""Spelling as `make lint` checks it: the words of a chapter, and not the data of pictures."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import ROOT, steps

MISSPELT = "".join(("rec", "ieve"))  # in parts, so that this file has none
PICTURE = "/".join([MISSPELT] * 12)  # as long as base64, which may hold any letters


def spelling(folder: Path) -> str:
    """Return what our configuration of codespell reports about a folder."""
    shutil.copy(ROOT / "pyproject.toml", folder)
    (command,) = [c for c in steps.LINT if "codespell_lib" in c]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return run.stdout + run.stderr


def write(folder: Path, prose: str) -> None:
    """Write a notebook with prose and a picture."""
    output = new_output("display_data", data={"image/png": PICTURE})
    cells = [new_markdown_cell(prose), new_code_cell("plot()", outputs=[output])]
    nbformat.write(new_notebook(cells=cells), folder / "00-sample.ipynb")


def test_a_misspelt_word_in_a_chapter_is_noticed(tmp_path):
    write(tmp_path, f"Queries {MISSPELT} an answer.")
    assert f"{MISSPELT} ==> receive" in spelling(tmp_path)


def test_british_words_and_pictures_pass(tmp_path):
    write(tmp_path, "Normalise the colours, and see what behaviour the centre has.")
    assert spelling(tmp_path) == ""
