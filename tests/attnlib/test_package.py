"""The package as a whole: what it loads, what it names, which way imports point."""

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import attnlib
from attnlib.variants import VARIANTS

PACKAGE = Path(attnlib.__file__).parent
ROOT = PACKAGE.parent

# Folders from the ground up. A module imports from its own folder and from those before it;
# "" are the files of attnlib itself. Which files there are is read from the folders.
FLOORS = ["", "variants", "bench", "labs", "book"]
ALONE = ["testing"]  # imports nothing of attnlib, and anything above may import it


def module_name(path):
    """Dotted name of a module below the repository's root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def room(name):
    """Folder of a module, "" for the files of attnlib itself."""
    parts = name.split(".")
    return parts[1] if (PACKAGE / parts[1]).is_dir() else ""


def imported_by(path):
    """Names that a module imports when it runs, whatever they are; types alone do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


IMPORTS = {
    name: {other for other in imported_by(path) if other in MODULES and other != name}
    for name, path in MODULES.items()
}
INNER = sorted(set(MODULES) - {"attnlib"})  # all but the front door, which opens every room


@pytest.mark.parametrize("name", INNER)
def test_imports_point_downwards(name):
    """Catches a core that knows a variant, and attention that needs a picture."""
    below = [*ALONE, *FLOORS[: FLOORS.index(room(name))]] if room(name) in FLOORS else []
    for other in IMPORTS[name] - {"attnlib"}:
        assert room(other) in (room(name), *below), f"{name} imports {other}"


def test_every_folder_has_its_floor():
    """Catches a new folder that no rule knows."""
    assert {room(name) for name in INNER} == {*FLOORS, *ALONE}


def test_no_circle_of_imports():
    """Catches two modules that need each other."""
    TopologicalSorter({name: IMPORTS[name] - {"attnlib"} for name in INNER}).prepare()


def test_variants_never_import_each_other():
    """Catches a variant that builds on another; all files of the folder count."""
    variants = {variant.layer.__module__ for variant in VARIANTS.values()}
    files = {name for name in MODULES if room(f"{name}.x") == "variants"} - {
        "attnlib.variants",
        "attnlib.variants.registry",
    }
    assert variants <= files
    for name in files:
        entry = importlib.import_module(name).VARIANT
        assert entry.layer.__module__ == name, "each file of the folder is one variant"
        assert not IMPORTS[name] & files, f"{name} imports {IMPORTS[name] & files}"


@pytest.mark.parametrize(
    "name", [name for name in MODULES if room(f"{name}.x") in ("", "variants", "testing")]
)
def test_the_ground_floor_needs_torch_alone(name):
    """Catches a dependency that `pip install attnlib` does not bring."""
    allowed = {*sys.stdlib_module_names, "torch", "attnlib"}
    assert {other.split(".")[0] for other in imported_by(MODULES[name])} <= allowed


def test_import_loads_no_plots_and_no_widgets():
    """Catches a heavy import: the library is used on machines without matplotlib."""
    code = "import sys, attnlib, attnlib.testing; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(run.stdout.split())
    assert "torch" in loaded
    heavy = {"matplotlib", "anywidget", "ipywidgets", "IPython", "transformers"}
    assert not {name.split(".")[0] for name in loaded} & heavy
    assert not {name for name in loaded if name.startswith(("attnlib.book", "attnlib.labs"))}


def test_public_names_exist_and_are_sorted():
    """Catches a name in __all__ that was renamed, and an export that was forgotten."""
    constants_first = sorted(attnlib.__all__, key=lambda name: (not name.isupper(), name))
    assert attnlib.__all__ == constants_first
    for name in attnlib.__all__:
        assert getattr(attnlib, name).__doc__, name
    exported = {name for name in vars(attnlib) if hasattr(getattr(attnlib, name), "__module__")}
    assert {name for name in exported if not name.startswith("_")} == set(attnlib.__all__)
