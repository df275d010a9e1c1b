"""The extra ``attnlib[book]``: what is missing is named, with the command that installs it."""

import subprocess
import sys

import pytest

IMPORT_WITHOUT = """
import sys
sys.modules[{missing!r}] = None  # as if it were not installed
import attnlib
import {package}
"""


@pytest.mark.parametrize(
    ("package", "missing"),
    [
        ("attnlib.book.plots", "matplotlib"),
        ("attnlib.book.widgets", "anywidget"),
        ("attnlib.book.widgets", "ipywidgets"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(package, missing):
    """Catches ``import attnlib`` that needs the extra, and a bare ModuleNotFoundError."""
    code = IMPORT_WITHOUT.format(package=package, missing=missing)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = run.stderr.splitlines()[-1]
    assert last == (
        f"ImportError: pictures and widgets need {missing}, which is not installed:"
        ' pip install "attnlib[book]"'
    )
    assert f"import {package}" in run.stderr or 'line 5, in <module>' in run.stderr
