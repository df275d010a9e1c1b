"""Tools and tests depend on the project, whatever the user's shell, home and git hooks say."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Thread

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import ROOT, build_site, execute, serve, sources
from tools.kernel import GIT_OF_A_HOOK, settle

PLOT = "import matplotlib.pyplot as plt\n1\nplt.plot([1, 2])\nplt.show()\n2"


def state(repository: Path) -> dict[str, bytes]:
    """Return the bytes of all files of a repository."""
    return {str(p): p.read_bytes() for p in sorted(repository.rglob("*")) if p.is_file()}


@pytest.fixture
def another(tmp_path) -> Path:
    """A repository of the user's with a commit and a file that is staged."""
    folder = tmp_path / "another"
    git = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    folder.mkdir()
    (folder / "file").write_text("one\n", "utf-8")
    for command in (["init", "--quiet"], ["add", "file"], ["commit", "--quiet", "-m", "One"]):
        subprocess.run([*git, *command], check=True)
    (folder / "file").write_text("two\n", "utf-8")
    subprocess.run([*git, "add", "file"], check=True)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/tools/test_publish.py"],
        ["-m", "tools", "address"],
    ],
    ids=lambda command: command[-1],
)
def test_a_git_hook_of_another_repository_is_left_alone(another, command):
    """Catches a test or a tool that writes into the repository that git exports to hooks."""
    before = state(another)
    hook = {"GIT_DIR": str(another / ".git"), "GIT_INDEX_FILE": str(another / ".git/index")}
    run = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **hook, "GIT_WORK_TREE": str(another)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert state(another) == before


def test_git_names_no_other_variable_of_a_repository():
    """Catches a variable that a newer git exports to its hooks."""
    command = ["git", "rev-parse", "--local-env-vars"]
    known = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    rest = {name for name in known if "CONFIG" not in name} - set(GIT_OF_A_HOOK)
    assert rest <= {"GIT_IMPLICIT_WORK_TREE", "GIT_GRAFT_FILE", "GIT_NO_REPLACE_OBJECTS",
                    "GIT_REPLACE_REF_BASE", "GIT_INTERNAL_SUPER_PREFIX"}  # fmt: skip


@pytest.fixture
def hostile(tmp_path) -> dict[str, str]:
    """A shell whose settings change what a notebook shows, in a home that is no folder."""
    (tmp_path / "home").write_text("not a folder", "utf-8")
    profile = tmp_path / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_config.py").write_text(
        'c.InteractiveShell.ast_node_interactivity = "all"\n'
        'c.InlineBackend.figure_formats = ["svg"]\n',
        "utf-8",
    )
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "matplotlibrc").write_text("text.usetex: True\n", "utf-8")
    return {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "MATPLOTLIBRC": str(tmp_path / "plots"),
        "MPLBACKEND": "Agg",
        "MPLCONFIGDIR": str(tmp_path / "plots"),
    }


def stored(path: Path) -> list[list[str]]:
    """Return the kinds of the outputs of a chapter's code cells."""
    cells = nbformat.read(path, as_version=4).cells
    outputs = [out for cell in cells if cell.cell_type == "code" for out in cell.outputs]
    return [sorted(out.get("data", {"text": ""})) for out in outputs]


def test_a_chapter_does_not_depend_on_the_users_shell(tmp_path, hostile):
    """Catches a chapter that is stored without its pictures."""
    path = tmp_path / "sample.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A"), new_code_cell(PLOT)]), path)
    run = subprocess.run(
        [sys.executable, "-m", "tools", "notebooks", str(path)],
        cwd=ROOT, env=hostile, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert stored(path) == [["image/png", "text/plain"], ["text/plain"]]


def test_fewer_pictures_than_before_are_a_failure(tmp_path, capsys):
    path = tmp_path / "sample.ipynb"
    notebook = new_notebook(cells=[new_markdown_cell("# A"), new_code_cell(PLOT)])
    nbformat.write(notebook, path)
    assert execute.execute_all([path], 1, retime=False)
    whole = nbformat.read(path, as_version=4)
    whole.cells[1].source = "print(1)"
    nbformat.write(whole, path)
    before = path.read_text("utf-8")
    assert not execute.execute_all([path], 1, retime=False)
    assert path.read_text("utf-8") == before
    said = capsys.readouterr().err
    assert "sample.ipynb: 0 pictures, 1 fewer than stored" in said
    assert "--fewer-pictures" in said
    assert execute.execute_all([path], 1, retime=False, fewer_pictures=True)
    assert stored(path) == [["text"]]


@pytest.mark.parametrize("known", ["", "example.org", "localhost,127.0.0.1"])
def test_servers_on_this_machine_are_asked_without_a_proxy(known):
    environment = {"http_proxy": "http://proxy.example:3128", "no_proxy": known}
    settle(environment)
    for name in ("no_proxy", "NO_PROXY"):
        assert {"127.0.0.1", "localhost"} <= set(environment[name].split(","))
    assert set(known.split(",")) - {""} <= set(environment["no_proxy"].split(","))


def test_a_reader_who_leaves_is_no_error(tmp_path, capfd):
    """Catches a traceback for each tab that is closed while a page loads."""
    (tmp_path / "large").write_bytes(bytes(2**25))
    with serve.server(tmp_path) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        for _ in range(3):
            reader = socket.create_connection(("127.0.0.1", server.server_port))
            reader.sendall(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n")
            reader.recv(1000)
            at_once = struct.pack("ii", 1, 0)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
            reader.close()
        time.sleep(0.5)
        server.shutdown()
    assert capfd.readouterr().err == ""


def test_another_error_of_the_server_is_reported(tmp_path, capfd, monkeypatch):
    def broken(handler):
        raise OSError("the disk is gone")

    monkeypatch.setattr(serve.QuietHandler, "do_GET", broken)
    with serve.server(tmp_path) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with socket.create_connection(("127.0.0.1", server.server_port)) as reader:
            reader.sendall(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            reader.recv(1000)
        time.sleep(0.2)
        server.shutdown()
    assert "the disk is gone" in capfd.readouterr().err


def test_an_archive_without_git_has_the_same_files(tmp_path):
    """Catches a tool that needs a repository: a release is an archive."""
    for name in ("a.py", "tools/b.py", "tools/c.md", "_build/d.py", "x/__pycache__/e.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("", "utf-8")
    (tmp_path / ".gitignore").write_text("/_build/\n__pycache__/\n", "utf-8")
    questions = ((), ("*.py",), ("tools",), ("a.py", "*.md"))
    without = [sources(*patterns, root=tmp_path) for patterns in questions]
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    found = [
        [path for path in paths if ".git" not in path.relative_to(tmp_path).parts]
        for paths in without
    ]
    assert [sources(*patterns, root=tmp_path) for patterns in questions] == found
    assert [path.name for path in found[1]] == ["a.py", "b.py"]


def test_two_builds_of_a_folder_take_turns(tmp_path, monkeypatch, capsys):
    """Catches a build that clears away the pages that another one is writing."""
    monkeypatch.setattr(build_site, "BUILD", tmp_path)
    monkeypatch.setattr(build_site, "STAMP", tmp_path / "site.stamp")
    monkeypatch.setattr(build_site, "LOCK", tmp_path.with_suffix(".lock"))
    page = tmp_path / "html" / "index.html"
    begun, may_end, built = Event(), Event(), []

    def write_slowly() -> tuple[int, list[str]]:
        page.parent.mkdir(parents=True)
        begun.set()
        assert may_end.wait(30)
        page.touch()  # fails if another build has removed the folder meanwhile
        built.append(page)
        return 0, []

    monkeypatch.setattr(build_site, "run_jupyter_book", write_slowly)
    statuses = []
    builds = [Thread(target=lambda: statuses.append(build_site.build(fresh=False)))]
    builds.append(Thread(target=lambda: statuses.append(build_site.build(fresh=False))))
    builds[0].start()
    assert begun.wait(30)
    builds[1].start()
    end = time.monotonic() + 30
    while "waiting for its end" not in (said := capsys.readouterr().out):
        assert time.monotonic() < end, said
        time.sleep(0.01)
    may_end.set()
    for one in builds:
        one.join(30)
    assert statuses == [0, 0] and len(built) == 1  # the second finds that nothing has changed
