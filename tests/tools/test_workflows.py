"""The workflows: linted as `make lint` does, and both linters notice what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tools import ROOT, steps
from tools.__main__ import COMMANDS

WORKFLOWS = ROOT / ".github" / "workflows"
FILES = sorted(WORKFLOWS.glob("*.yml"))
PIN = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")

# No network can be reached through this, so a linter that asks one fails.
OFFLINE = dict.fromkeys(("HTTPS_PROXY", "HTTP_PROXY", "https_proxy"), "http://127.0.0.1:9")


def linted(folder: Path) -> str:
    """Return what the linters of workflows say of a folder's .github; empty if all is well."""
    said = ""
    for command in steps.LINT:
        if ".github" in " ".join(command):
            run = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, env=os.environ | OFFLINE
            )
            said += run.stdout + run.stderr if run.returncode else ""
    return said


def jobs(path: Path) -> dict:
    """Return a workflow's jobs by name."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def test_workflows_are_linted_without_a_network():
    assert len([c for c in steps.LINT if ".github" in " ".join(c)]) == 3
    assert linted(ROOT) == ""


BROKEN = [
    ("runs-on: ubuntu-latest", "runs-onn: ubuntu-latest", "runs-onn"),  # what is no key
    ("persist-credentials: false", "fetch-depth: 1", "artipacked"),
    ("@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7", "unpinned-uses"),
    ("permissions:\n      contents: read", "permissions: write-all", "excessive-permissions"),
    ('"$TORCH"', "${{ github.head_ref }}", "template-injection"),
]


@pytest.mark.parametrize(("right", "wrong", "complaint"), BROKEN, ids=[b[2] for b in BROKEN])
def test_a_broken_workflow_is_noticed(tmp_path, right, wrong, complaint):
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    path = tmp_path / ".github" / "workflows" / "ci.yml"
    text = path.read_text(encoding="utf-8")
    assert right in text
    path.write_text(text.replace(right, wrong), encoding="utf-8")
    assert complaint in linted(tmp_path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actions_are_pinned_and_rights_are_few(path):
    text = path.read_text(encoding="utf-8")
    for uses in re.findall(r"uses: (.+)", text):
        assert uses.startswith("./") or PIN.fullmatch(uses), uses
    assert yaml.safe_load(text)["permissions"] == {}
    for name, job in jobs(path).items():
        assert "permissions" in job, name
        assert "uses" in job or job["timeout-minutes"] <= 120, name
    assert "secrets." not in text


def test_one_version_of_an_action_everywhere():
    """Catches an update that forgets a file."""
    pins = {
        uses
        for path in FILES
        for uses in re.findall(r"uses: (\S+@\S+)", path.read_text(encoding="utf-8"))
    }
    names = [uses.partition("@")[0] for uses in pins]
    assert len(names) == len(set(names)), sorted(pins)


def test_no_workflow_knows_an_owner():
    """Catches an address that a fork would publish to, or ask, by mistake."""
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"github\.com/(?!\.insteadOf)[\w-]+/", text), path.name
        assert "github.io" not in text


def test_targets_and_tools_that_workflows_call_exist():
    """Catches a step that fails only once it runs on GitHub."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    assert set(re.findall(r"run: make ([\w-]+)", text)) <= targets
    for command in re.findall(r"python -m tools ([\w-]+)", text):
        assert command in COMMANDS
