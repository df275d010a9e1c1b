"""The workflows: linted offline, pinned, with few rights, calling what exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from tools import ROOT, steps
from tools.__main__ import COMMANDS

WORKFLOWS = ROOT / ".github" / "workflows"
FILES = sorted(WORKFLOWS.glob("*.yml"))
PIN = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")


def jobs(path: Path) -> dict:
    """Return a workflow's jobs by name."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


def test_workflows_are_linted_without_a_network():
    (lint,) = [step for step in steps.STEPS if step.name == "lint"]
    assert lint.is_offline
    assert len([command for command in lint.commands if ".github" in " ".join(command)]) == 3


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


def test_every_step_is_a_job():
    """Catches a folder of tests that CI leaves out."""
    included = jobs(WORKFLOWS / "ci.yml")["steps"]["strategy"]["matrix"]["include"]
    named = {name for job in included for name in job["steps"].split()}
    assert named == {step.name for step in steps.STEPS}


def test_every_folder_of_tests_is_in_a_step():
    """Catches a test that no step runs."""
    named = {word for step in steps.STEPS for command in step.commands for word in command}
    for path in (ROOT / "tests").rglob("test_*.py"):
        folder = path.relative_to(ROOT).parts[:2]
        assert "/".join(folder) in named, path


def test_targets_steps_and_commands_that_workflows_call_exist():
    """Catches a job that fails only once it runs on GitHub."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    assert set(re.findall(r"run: make ([\w-]+)", text)) <= targets
    names = {step.name for step in steps.STEPS}
    for listed in re.findall(r"steps: ([\w ]+)", text):
        assert set(listed.split()) <= names
    for command in re.findall(r"python -m tools ([\w-]+)", text):
        assert command in COMMANDS
