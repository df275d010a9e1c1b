"""The laboratories' command line: one option has one name in both, and says what it does."""

import pytest
import torch

from attnlib.labs import conversion, quality, script

LABS = {"conversion": conversion.Settings, "quality": quality.Settings}


@pytest.mark.parametrize("lab", [conversion, quality])
def test_both_name_what_they_share_alike(lab, capsys):
    """Catches an option that is --text here and --folder there."""
    with pytest.raises(SystemExit) as stopped:
        lab.main(["--help"])
    assert stopped.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"python -m {lab.__name__}" in text
    for words in ("--json FILE where to write", "--seeds N [N ...] one run for each",
                  "--device DEVICE such as cpu", "--threads N of the CPU",
                  "--folder FOLDER of Python files to read; default: Python's own",
                  "--d-model N default: "):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("lab", [conversion, quality])
def test_the_folder_is_what_is_read(lab, tmp_path, one_thread):
    """Catches an option that is taken and not handed on."""
    with pytest.raises(ValueError, match="folder must have Python source files"):
        lab.main(["--json", str(tmp_path / "x.json"), "--folder", str(tmp_path)])


@pytest.mark.parametrize("name", LABS)
def test_what_is_left_out_has_its_default(name, one_thread):
    """Catches a tuple that becomes a list, and a float that is read as a whole number."""
    kind = LABS[name]
    made = script.parser(name, "x", kind())
    given, settings = script.parsed(made, kind, ["--json", "x.json"])
    assert settings == kind() and given.folder is None and given.seeds == [0, 1, 2, 3, 4]
    _, settings = script.parsed(made, kind, ["--json", "x.json", "--lr", "0.5"])
    assert settings == kind(lr=0.5)


def test_many_values_are_a_tuple_and_threads_are_set(one_thread):
    made = script.parser("conversion", "x", conversion.Settings())
    command = ["--json", "x.json", "--percents", "3", "4", "--threads", "2"]
    _, settings = script.parsed(made, conversion.Settings, command)
    assert settings.percents == (3, 4) and torch.get_num_threads() == 2
    with pytest.raises(ValueError, match="threads must be an integer of at least 1, got 0"):
        script.parsed(made, conversion.Settings, ["--json", "x.json", "--threads", "0"])
