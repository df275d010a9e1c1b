"""What `pip install attnlib` brings is enough for everything outside `attnlib.book`."""

import pkgutil
import subprocess
import sys

import attnlib

# What the extra "book" brings, and what a page needs beside it.
EXTRA = ("matplotlib", "ipywidgets", "anywidget", "IPython")
OPTIONAL = (*EXTRA, "transformers")


def modules():
    """Names of all modules of the package outside `attnlib.book`, without the programs."""
    found = pkgutil.walk_packages(attnlib.__path__, "attnlib.")
    names = [module.name for module in found if not module.name.endswith("__main__")]
    return ["attnlib", *(name for name in names if not name.startswith("attnlib.book"))]


def test_the_library_runs_where_only_torch_is_installed():
    """Catches an import that breaks a machine without the extra, in whatever module it is."""
    program = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({OPTIONAL!r}))\n"  # None: not installed
        f"for name in {modules()!r}:\n"
        "    importlib.import_module(name)\n"
        "layer = sys.modules['attnlib'].MultiHeadAttention(8, 2)\n"
        "print(sys.modules['attnlib.testing'].check_layer(layer, checks=['gradients']))\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "1 check" in run.stdout


def test_the_modules_are_found():
    """Catches a search that finds nothing and so proves nothing."""
    assert {"attnlib.testing", "attnlib.costs", "attnlib.models", "attnlib.bench"} <= set(
        modules()
    )
