"""The package as a whole: what it loads, what it names, which way imports point."""

import ast
import subprocess
import sys
from pathlib import Path

from helpers import VARIANTS
from torch import nn

import attnlib

PACKAGE = Path(attnlib.__file__).parent

# Imports point down this list, never up and never sideways between variants.
LAYERS = [
    {"mha", "mqa", "gqa", "mla"},
    {"core", "linear"},
    {"cache", "masks", "rope"},
    {"checks"},
]


def test_import_loads_no_plots_and_no_widgets():
    """Catches a heavy import: the library is used on machines without matplotlib."""
    code = "import sys, attnlib; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = {name.split(".")[0] for name in run.stdout.split()}
    assert "torch" in loaded
    assert not loaded & {"matplotlib", "anywidget", "ipywidgets", "IPython", "transformers"}
    assert "attnlib.book.plots" not in run.stdout.split()


def test_public_names_exist_and_are_sorted():
    """Catches a name in __all__ that was renamed, and an export that was forgotten."""
    constants_first = sorted(attnlib.__all__, key=lambda name: (not name.isupper(), name))
    assert attnlib.__all__ == constants_first
    for name in attnlib.__all__:
        assert getattr(attnlib, name).__doc__, name
    exported = {name for name in vars(attnlib) if hasattr(getattr(attnlib, name), "__module__")}
    assert {name for name in exported if not name.startswith("_")} == set(attnlib.__all__)


def attnlib_imports(path):
    """Modules of the package that one of its files imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("attnlib"):
            yield node.module.partition(".")[2]
        elif isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.startswith("attnlib"))


def test_imports_point_one_way():
    """Catches a variant that builds on another, and a core that knows a variant."""
    rank = {name: level for level, names in enumerate(LAYERS) for name in names}
    for name, level in rank.items():
        for imported in attnlib_imports(PACKAGE / f"{name}.py"):
            assert imported in rank, f"{name} imports {imported}"
            same_level_allowed = {("rope", "masks")}
            below = rank[imported] > level or (name, imported) in same_level_allowed
            assert below, f"{name} imports {imported}"


def test_every_variant_is_tested():
    """Catches a new layer that the shared tests do not run over."""
    public = [getattr(attnlib, name) for name in attnlib.__all__]
    layers = {kind for kind in public if isinstance(kind, type) and issubclass(kind, nn.Module)}
    assert layers == {type(build()) for build in VARIANTS.values()}
