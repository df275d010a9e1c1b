"""The command line: every command exists, explains itself and is listed."""

from __future__ import annotations

import importlib
import inspect

import pytest

from tools.__main__ import COMMANDS, main, usage


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_a_function_and_shows_how_to_call_it(name):
    """Catches a module that was renamed, and a docstring that shows another command."""
    module = importlib.import_module(f"tools.{COMMANDS[name][0]}")
    assert list(inspect.signature(module.main).parameters) == ["argv"]
    assert f"python -m tools {name}" in module.__doc__


def test_commands_are_listed(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == usage() + "\n"
    assert all(name in usage() for name in COMMANDS)


def test_an_unknown_command_is_refused(capsys):
    assert main(["no-such"]) == 2
    assert "no command 'no-such'" in capsys.readouterr().err
