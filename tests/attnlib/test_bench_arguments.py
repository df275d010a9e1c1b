"""Arguments of command lines: what is refused, and how."""

import argparse

import pytest

from attnlib.bench.arguments import OneLineParser, prepare_file, size, sizes


def test_an_error_is_one_line_and_status_2(capsys):
    """Catches a traceback, and a usage of twenty lines above what is wrong."""
    parser = OneLineParser(prog="program")
    parser.add_argument("--size", type=size)
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args(["--size", "0"])
    assert stopped.value.code == 2
    with pytest.raises(SystemExit) as stopped, parser.refusing():
        raise ValueError("folder must be there")
    assert stopped.value.code == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("program: error: argument --size: must be whole numbers")
    assert second == "program: error: folder must be there"


def test_other_errors_keep_their_traceback():
    parser = OneLineParser(prog="program")
    with pytest.raises(ZeroDivisionError), parser.refusing():
        raise ZeroDivisionError


def test_sizes_are_read():
    assert sizes("8,1, 32") == [8, 1, 32] and size("15") == 15
    for text in ("0", "-1", "1.5", "", "1,,2", "many"):
        with pytest.raises(argparse.ArgumentTypeError, match="whole numbers of at least 1"):
            sizes(text)
    with pytest.raises(argparse.ArgumentTypeError, match="must be one number, got '1,2'"):
        size("1,2")


def test_preparing_makes_folders_and_leaves_the_file(tmp_path):
    """Catches results that are overwritten before there are new ones."""
    path = tmp_path / "new" / "folder" / "a.json"
    assert prepare_file(path) == path
    assert list(path.parent.iterdir()) == []
    path.write_text("old")
    prepare_file(path)
    assert path.read_text() == "old"
    with pytest.raises(ValueError, match="got the folder"):
        prepare_file(path.parent)
    with pytest.raises(ValueError, match="can be written"):
        prepare_file(path / "below.json")
