"""The laboratories' text: what is in it, what is held out, and the windows cut from it."""

import subprocess
import sys

import pytest
import torch

from attnlib.labs.text import batch, is_held_out, load_text, source_files, windows


@pytest.fixture
def library(tmp_path):
    """A folder with sixty source files, each with a line that no other has."""
    for i in range(60):
        folder = tmp_path / "package" if i % 2 else tmp_path
        folder.mkdir(exist_ok=True)
        (folder / f"m{i}.py").write_text(f"marker = <{i}>\n" * (i + 1))
    return tmp_path


def decoded(data):
    return bytes(data.tolist()).decode()


def test_no_file_is_in_both_parts(library):
    """Catches a split by place, after which a model is judged on text that it has read."""
    text = load_text(library)
    train, held_out = decoded(text.train), decoded(text.held_out)
    sides = {path: is_held_out(path) for path in source_files(library)}
    assert len(sides) == 60 and 0 < sum(sides.values()) < 30
    for path, held in sides.items():
        marker = f"<{path.rpartition('m')[2].removesuffix('.py')}>"
        assert (marker in held_out, marker in train) == (held, not held), path
    assert text.fingerprint["held_out_files"] == sum(sides.values())


def test_a_new_file_moves_no_other_to_the_other_part(library):
    """Catches a split that counts files: one more would turn half of the sides around."""
    before = load_text(library)
    (library / "a_first_one.py").write_text("new\n")
    after = load_text(library)
    assert not is_held_out("a_first_one.py")
    assert decoded(after.train) == "new\n" + decoded(before.train)
    assert torch.equal(after.held_out, before.held_out)


@pytest.mark.parametrize(
    "path",
    [
        "site-packages/a.py",
        "test/b.py",
        "json/tests/c.py",
        "config-3.11-x/d.py",
        "_sysconfigdata__x.py",
        "readme.txt",
    ],
)
def test_what_is_not_the_library_stays_out(library, path):
    """Catches installed packages and files that differ from machine to machine."""
    before = load_text(library).fingerprint
    (library / path).parent.mkdir(parents=True, exist_ok=True)
    (library / path).write_text("something else\n")
    assert load_text(library).fingerprint == before


def test_the_fingerprint_tells_texts_apart(library):
    before = load_text(library).fingerprint
    assert load_text(library).fingerprint == before
    (library / "m3.py").write_text((library / "m4.py").read_text())
    assert load_text(library).fingerprint["sha256"] != before["sha256"]


def test_a_folder_without_sources_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"folder must have .* 'train', got 0 of them"):
        load_text(tmp_path)


def test_this_machine_has_a_text():
    """Catches an exclusion that empties a part on some version of Python."""
    text = load_text()
    assert text.train.dtype == text.held_out.dtype == torch.uint8
    share = len(text.held_out) / (len(text.held_out) + len(text.train))
    assert 0.03 < share < 0.25
    assert len(text.train) + len(text.held_out) == text.fingerprint["bytes"] > 3_000_000


def test_batches_are_pieces_of_the_text_and_go_by_the_generator():
    """Catches windows from different places, and batches that cannot be repeated."""
    data = (7 * torch.arange(300) % 256).to(torch.uint8)
    first, same, other = (
        batch(data, 4, 9, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert first.shape == (4, 10) and first.dtype == torch.int64
    assert torch.equal(first, same) and not torch.equal(first, other)
    assert ((first[:, 1:] - first[:, :-1]) % 256 == 7).all()
    assert len({row[0].item() for row in first}) > 1


def test_batches_reach_the_first_and_the_last_byte():
    """Catches a range of beginnings that is one too short or one too long."""
    data = torch.arange(12, dtype=torch.uint8)
    many = batch(data, 500, 9, torch.Generator().manual_seed(0))
    assert {row[0].item() for row in many} == {0, 1, 2}
    assert batch(data[:10], 1, 9, torch.Generator()).tolist() == [list(range(10))]


def test_windows_are_always_the_same_and_apart():
    data = torch.arange(100, dtype=torch.uint8)
    some = windows(data, 4, 9)
    assert some.tolist() == [list(range(start, start + 10)) for start in (0, 25, 50, 75)]


def test_sizes_that_do_not_fit_are_refused():
    data, generator = torch.arange(20, dtype=torch.uint8), torch.Generator()
    with pytest.raises(ValueError, match=r"tokens \+ 1 = 21 bytes, got 20"):
        batch(data, 1, 20, generator)
    with pytest.raises(ValueError, match=r"22 bytes, got 20"):
        windows(data, 2, 10)
    for call, name in ((lambda: batch(data, 0, 2, generator), "batch_size"),
                       (lambda: batch(data, 1, 0, generator), "tokens"),
                       (lambda: windows(data, 0, 2), "count"),
                       (lambda: windows(data, 1, 0), "tokens")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got 0"):
            call()


def test_the_library_does_not_load_the_laboratories():
    code = "import sys, attnlib; print(*sorted(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = run.stdout.split()
    assert "attnlib.core" in loaded
    assert not any(name.startswith("attnlib.labs") for name in loaded)
