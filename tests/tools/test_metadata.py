"""The package's metadata: what installing it brings, and one version everywhere."""

import re
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path
from shutil import copytree

import check_jsonschema
import pytest
import yaml
from click.testing import CliRunner

import attnlib

ROOT = Path(__file__).resolve().parents[2]
BUILD = "from setuptools.build_meta import build_wheel; print(build_wheel('.'))"
SCHEMAS = {
    ".github/ISSUE_TEMPLATE/bug.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/chapter.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
    "CITATION.cff": "citation-file-format",
}


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """What pip reads before it installs the package, and the files that it would install."""
    folder = tmp_path_factory.mktemp("source")
    copytree(ROOT / "attnlib", folder / "attnlib")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    built = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=folder, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(folder / built.stdout.split()[-1]) as wheel:
        names = wheel.namelist()
        (path,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        return message_from_string(wheel.read(path).decode()), names


def test_installing_brings_torch_and_the_extra_brings_the_rest(metadata):
    """Catches a library that pulls in a plotting package, and pages without their widgets."""
    wanted = {}
    for line in metadata[0].get_all("Requires-Dist"):
        requirement, _, condition = line.partition(";")
        extra = re.search(r"extra == ['\"](\w+)['\"]", condition)
        wanted.setdefault(extra[1] if extra else "", set()).add(requirement.strip())
    assert {name: {r.split(">=")[0] for r in some} for name, some in wanted.items()} == {
        "": {"torch"},
        "book": {"matplotlib", "ipywidgets", "anywidget"},
    }
    for requirement in set.union(*wanted.values()):
        assert re.fullmatch(r"\w+>=[\d.]+", requirement), f"{requirement} is no lower bound"


def test_the_wheel_has_all_data(metadata):
    """Catches a script, a table or the mark of typed code that is left out of the wheel."""
    data = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "attnlib").rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".pyo")
    }
    assert "attnlib/py.typed" in data
    assert data <= set(metadata[1])
    for_jupyter = ".data/data/etc/jupyter/jupyter_server_config.d/attnlib.json"
    assert any(name.endswith(for_jupyter) for name in metadata[1])


def test_there_is_one_version():
    """Catches a release whose number was raised in some places only."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", changes, re.MULTILINE)
    assert f'\nversion = "{attnlib.__version__}"\n' in project
    assert citation["version"] == newest[1] == attnlib.__version__
    assert str(citation["date-released"]) == newest[2]


@pytest.mark.parametrize("name", SCHEMAS)
def test_files_that_github_reads_follow_their_schema(name):
    """Catches a form that GitHub would silently leave out."""
    schema = ["--builtin-schema", f"vendor.{SCHEMAS[name]}"]
    run = CliRunner().invoke(check_jsonschema.main, [*schema, str(ROOT / name)])
    assert run.exit_code == 0, run.output
