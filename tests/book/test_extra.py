"""The extra ``attnlib[book]``: what is missing is named, with the command that installs it."""

import json
import subprocess
import sys

NEEDS = {
    "matplotlib": "attnlib.book.plots",
    "anywidget": "attnlib.book.widgets",
    "ipywidgets": "attnlib.book.widgets",
}
IMPORT_WITHOUT = f"""
import importlib, json, sys
import attnlib
messages = {{}}
for missing, package in {NEEDS}.items():
    sys.modules[missing] = None  # as if it were not installed
    try:
        importlib.import_module(package)
    except ImportError as error:
        messages[missing] = str(error)
    del sys.modules[missing]
print(json.dumps(messages))
"""


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    """Catches a bare ModuleNotFoundError, and a missing package that goes unnoticed."""
    command = [sys.executable, "-c", IMPORT_WITHOUT]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == {
        missing: f"pictures and widgets need {missing}, which is not installed:"
        ' pip install "attnlib[book]"'
        for missing in NEEDS
    }
