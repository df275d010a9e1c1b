"""Steps: one after another until one fails; an early one runs beside them."""

import sys

import filelock

from tools.steps import Step, folder, joined, pytest, run


def step(name, code, **options):
    """A step that runs some Python."""
    return Step(name, "summary", ((sys.executable, "-c", code),), "remedy", **options)


def test_an_early_step_runs_beside_others_and_is_shown_in_its_turn(tmp_path, capfd):
    """Catches a build that begins only when the others are done, or whose output is lost."""
    begun, wait = tmp_path / "begun", "import pathlib, time\npath = pathlib.Path(%r)\n"
    first = wait + "while not path.exists(): time.sleep(0.01)\nprint('first')"
    early = wait + "print('early')\npath.touch()"
    steps = [
        step("a", first % str(begun)),
        step("b", early % str(begun), is_early=True),
    ]
    assert run(steps) == 0
    out = capfd.readouterr().out
    assert out.index("[1/2] a") < out.index("first") < out.index("[2/2] b") < out.index("early")
    assert out.endswith("steps: 2 passed, 0 failed\n")


HOLD = """
import filelock, pathlib, time
with filelock.FileLock({lock!r}):
    pathlib.Path({begun!r}).touch()
    time.sleep(60)
"""


def test_the_first_failure_ends_all(tmp_path, capfd):
    """Catches a failure that is overlooked, and a build whose own process goes on after it."""
    lock, begun = str(tmp_path / "lock"), str(tmp_path / "begun")
    inner = HOLD.format(lock=lock, begun=begun)
    wait = f"import pathlib, time\npath = pathlib.Path({begun!r})\n"
    steps = [
        step("a", wait + "while not path.exists(): time.sleep(0.01)\nraise SystemExit(2)"),
        step(
            "b",
            f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])",
            is_early=True,
        ),
    ]
    assert run(steps) == 2
    with filelock.FileLock(lock, timeout=30):  # held for a minute unless its holder has ended
        pass
    assert "FAILED in a: remedy" in capfd.readouterr().out
    assert run([step("b", "raise SystemExit(3)", is_early=True)]) == 3
    assert "steps: 0 passed, 1 failed" in capfd.readouterr().out


def test_a_step_without_a_network_reaches_none():
    """Catches a linter that asks the network, and one that would not notice."""
    code = (
        "import urllib.request\n"
        "try: urllib.request.urlopen('http://example.org', timeout=20)\n"
        "except OSError as error: raise SystemExit('refused' not in str(error))"
    )
    assert run([step("a", code, is_offline=True)]) == 0


def test_folders_that_follow_each_other_are_run_as_one():
    """Catches a folder that is run twice or never, and one that overtakes another step."""
    a, b, c = (folder(name, f"of {name}", "one file") for name in "abc")
    between = step("x", "")
    both, *rest = joined([a, b, between, c])
    assert (both.name, both.summary) == ("a b", "of a; of b")
    assert both.commands == (pytest("tests/a", "tests/b"),)
    assert rest == [between, c]
