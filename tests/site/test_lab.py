"""Widgets in a real JupyterLab, driven in Chromium: traits sync both ways, keys reach them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from nbformat.sign import NotebookNotary
from playwright.sync_api import BrowserContext, Locator, Page, expect

from attnlib.book import widgets

PATIENCE_S = 90  # for a server, a kernel, torch: seconds each on an idle machine
SETTINGS = {
    "apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    # Every cell is in the page, visible or not.
    "notebook-extension/tracker": {"windowingMode": "none"},
}
OPTIONS = (
    "--no-browser",
    "--allow-root",
    "--ip=127.0.0.1",
    "--port=0",
    "--IdentityProvider.token=",
    "--ServerApp.password=",
    "--ServerApp.disable_check_xsrf=True",
    "--LabApp.news_url=None",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    "--LabApp.extension_manager=readonly",
)


class Lab(NamedTuple):
    """A running JupyterLab: its address, where notebooks and settings are, and its log."""

    address: str
    notebooks: Path
    settings: Path
    log: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    """Start a JupyterLab with a home of its own, which needs no network."""
    home = tmp_path_factory.mktemp("lab")
    folders = {name: home / name for name in ("notebooks", "settings", "workspaces", "runtime")}
    for folder in folders.values():
        folder.mkdir()
    log = home / "server.log"
    write_settings(folders["settings"], SETTINGS)
    environment = os.environ | {
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),  # extensions are installed with Python
        "JUPYTER_RUNTIME_DIR": str(folders["runtime"]),
        "JUPYTERLAB_SETTINGS_DIR": str(folders["settings"]),
        "JUPYTERLAB_WORKSPACES_DIR": str(folders["workspaces"]),
    }
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS]
    command += [f"--ServerApp.root_dir={folders['notebooks']}"]
    with log.open("w") as written:
        server = subprocess.Popen(
            command, env=environment, stdout=written, stderr=subprocess.STDOUT, cwd=home
        )
    try:
        address = wait_for_server(server, folders["runtime"], log)
        yield Lab(address, folders["notebooks"], folders["settings"], log)
    finally:
        server.terminate()  # its kernels end with it
        try:
            server.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            server.kill()


def write_settings(folder: Path, settings: dict[str, dict]) -> None:
    """Write a user's settings, extension by extension."""
    for name, values in settings.items():
        path = folder / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")


def wait_for_server(server: subprocess.Popen, runtime: Path, log: Path) -> str:
    """Return the address that the server writes down once it listens."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end and server.poll() is None:
        for path in runtime.glob("jpserver-*.json"):
            try:
                return json.loads(path.read_text(encoding="utf-8"))["url"]
            except json.JSONDecodeError:  # half written
                pass
        time.sleep(0.1)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text(encoding='utf-8')}")


class Notebook:
    """A notebook in a page of JupyterLab, which runs its cells as a reader does."""

    def __init__(self, page: Page):
        self.page = page
        self.cells = page.locator(".jp-Notebook .jp-Cell")

    def run(self, index: int) -> Locator:
        """Run the cell with Shift+Enter, each once and in order; return its outputs."""
        cell = self.cells.nth(index)
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        wait(cell.locator(".jp-InputArea-prompt")).to_have_text(f"[{index + 1}]:")
        return cell.locator(".jp-OutputArea-output")

    def figure(self, index: int) -> Locator:
        """Run a cell that shows a widget; return the live figure."""
        self.run(index)
        output = self.cells.nth(index).locator(".jp-OutputArea-output")
        figure = output.locator(".attnlib figure")
        wait(figure).to_have_count(1)
        assert output.locator(".attnlib-widget").count() == 0  # which is the stored carrier
        return figure

    def saved_and_opened_again(self, lab: Lab) -> None:
        """Save the notebook, end its kernel, and open it in a new page's load."""
        self.page.keyboard.press("Escape")
        self.page.keyboard.press("Control+s")
        wait(self.page.locator(".jp-mod-dirty")).to_have_count(0)
        end_kernels(lab)
        self.page.reload()
        self.wait_for_kernel()  # a new one, which knows no widget; ended half started, it hangs

    def wait_for_kernel(self) -> None:
        """Wait until the kernel is connected; what runs before is dropped silently."""
        status = self.page.locator("#jp-main-statusbar")
        wait(status).to_contain_text("Python 3 (ipykernel) | Idle")

    def prints(self, index: int, text: str) -> None:
        """Run a cell and check what it prints."""
        wait(self.run(index)).to_have_text(text)


def wait(locator: Locator):
    """Expect something of the page as soon as a slow machine can have it."""
    return expect(locator, f"after {PATIENCE_S} s")


@pytest.fixture(scope="module")
def context(chromium) -> Iterator[BrowserContext]:
    """One reader's browser, which keeps JupyterLab's scripts from test to test."""
    context = chromium.new_context(viewport={"width": 1280, "height": 1800})
    context.set_default_timeout(1000 * PATIENCE_S)
    yield context
    context.close()


@pytest.fixture
def open_notebook(lab, context, request) -> Iterator[Callable]:
    """Open cells as a notebook in JupyterLab; script errors and calls elsewhere fail.

    The function takes the sources of code cells, or the text of a notebook file, and whether
    the notebook waits for its kernel.
    """
    expect.set_options(timeout=1000 * PATIENCE_S)
    name = re.sub(r"\W+", "-", request.node.name)
    page, found = context.new_page(), []

    def outside(url: str) -> bool:
        return not url.startswith((lab.address, "data:", "blob:"))

    page.on("request", lambda r: outside(r.url) and found.append(f"asks for {r.url}"))
    page.on("pageerror", lambda error: found.append(f"script error: {error}"))
    page.on("console", lambda m: m.type == "error" and found.append(f"console: {m.text}"))

    def opened(cells: list[str] | str) -> Notebook:
        text = cells if isinstance(cells, str) else nbformat.writes(notebook_of(cells))
        (lab.notebooks / f"{name}.ipynb").write_text(text, encoding="utf-8")
        # A workspace of its own, or JupyterLab opens what an earlier test had open.
        page.goto(f"{lab.address}lab/workspaces/{name}/tree/{name}.ipynb")
        notebook = Notebook(page)
        notebook.wait_for_kernel()
        return notebook

    yield opened
    print(f"What the page shows:\n{page.locator('body').inner_text()}")
    page.close()
    print(f"What the server says:\n{lab.log.read_text(encoding='utf-8')[-5000:]}")
    end_kernels(lab)
    assert found == []


def notebook_of(cells: list[str]) -> nbformat.NotebookNode:
    """Return a notebook of code cells for the kernel of this environment."""
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = [nbformat.v4.new_code_cell(source) for source in cells]
    return nbformat.v4.new_notebook(cells=made, metadata={"kernelspec": kernel})


def end_kernels(lab: Lab) -> None:
    """End all kernels of the server, each of which has torch in memory."""
    with urllib.request.urlopen(f"{lab.address}api/kernels") as answer:
        kernels = json.load(answer)
    for kernel in kernels:
        address = f"{lab.address}api/kernels/{kernel['id']}"
        urllib.request.urlopen(urllib.request.Request(address, method="DELETE")).close()


# The heatmap

HEATMAP = """\
import torch
from attnlib import causal_mask
from attnlib.book.widgets import AttentionHeatmap

def respond(text):
    words = text.split()
    if not words:
        raise ValueError("type a few words")
    lengths = torch.tensor([float(len(word)) for word in words])
    at = torch.arange(len(words))
    scores = torch.stack([lengths * 0.3, lengths * -0.5])[:, None] * lengths[:, None] / 4
    weights = scores.masked_fill(~causal_mask(at, at), -torch.inf).softmax(-1)
    return weights, words

weights, words = respond("the cat sat because it purred")
at = torch.arange(6)
widget = AttentionHeatmap(weights, words, mask=causal_mask(at, at), respond=respond)
"""


def assert_reads(figure: Locator, weights, words: list[str], head: int, query: int) -> None:
    """Check that the figure shows this row of these weights."""
    wait(figure.locator(".reading")).to_have_text(f"{words[query]} (query {query}) attends to")
    row = sorted(weights[head, query, : query + 1].tolist(), reverse=True)
    wait(figure.locator(".answers .value")).to_have_text([f"{weight:.2f}" for weight in row])


@pytest.fixture(scope="module")
def truth() -> dict:
    """What the notebook's first cell computes, computed here."""
    space: dict = {}
    exec(HEATMAP, space)
    return space


def test_page_and_python_move_each_other(open_notebook, truth):
    state = "print(widget.state())"
    notebook = open_notebook(
        [HEATMAP + "widget", state, state, "widget", "widget.query, widget.head = 1, 0"]
    )
    figure = notebook.figure(0)
    shows = (figure, truth["weights"], truth["words"])
    assert_reads(*shows, head=0, query=5)
    cursor = figure.get_by_role("slider", name="query")
    cursor.focus()
    cursor.press("ArrowUp")
    cursor.press("ArrowUp")
    cursor.press("ArrowLeft")
    assert_reads(*shows, head=0, query=3)
    notebook.prints(1, "{'example': 0, 'head': 0, 'key': 3, 'layer': 0, 'query': 3}")
    figure.locator(".heads input").nth(1).click()
    figure.locator(".strip label").nth(4).click()
    assert_reads(*shows, head=1, query=4)
    notebook.prints(2, "{'example': 0, 'head': 1, 'key': 3, 'layer': 0, 'query': 4}")
    views = figure, notebook.figure(3)
    notebook.run(4)
    for view in views:
        assert_reads(view, truth["weights"], truth["words"], head=0, query=1)
        expect(view.locator(".heads input").nth(0)).to_be_checked()
    views[1].get_by_role("slider", name="query").press("End")
    for view in views:
        assert_reads(view, truth["weights"], truth["words"], head=0, query=5)


def test_a_sequence_of_the_readers_own_outlives_the_kernel(open_notebook, lab, truth):
    """Catches "model not found" where each figure was, in every notebook handed in."""
    notebook = open_notebook([HEATMAP + "widget", "print(widget.text, widget.state())"])
    figure = notebook.figure(0)
    field = figure.get_by_label("Another sequence")
    text = "a longer sentence about dads and cats"
    field.press_sequentially(text)  # with the letters that are commands of JupyterLab
    field.press("Enter")
    weights, words = truth["respond"](text)
    assert_reads(figure, weights, words, head=0, query=6)
    wait(figure.locator(".strip label")).to_have_text(words)
    field.fill("   ")
    figure.get_by_role("button", name="Show").click()
    wait(figure.get_by_role("alert")).to_have_text("type a few words")
    assert_reads(figure, weights, words, head=0, query=6)  # the old ones stay
    notebook.prints(1, "    {'example': 0, 'head': 0, 'key': None, 'layer': 0, 'query': 6}")
    notebook.saved_and_opened_again(lab)
    output = notebook.cells.nth(0).locator(".jp-OutputArea-output")
    wait(output.locator(".attnlib-widget figure")).to_have_count(1)
    expect(output).not_to_contain_text("model not found")
    assert "AttentionHeatmap" not in output.inner_text()


def test_command_mode_takes_no_key_from_the_widget(open_notebook, truth):
    notebook = open_notebook([HEATMAP + "widget", "'below'"])
    figure = notebook.figure(0)
    cursor = figure.get_by_role("slider", name="query")
    cursor.click(position={"x": 5, "y": 5})  # now the cell is selected, in command mode
    selected = notebook.page.locator(".jp-Notebook .jp-Cell.jp-mod-active")
    sources = notebook.cells.locator(".cm-content").all_inner_texts()
    for key in ("ArrowDown", "a", "b", "x", "d", "d", "m", "ArrowDown", "Enter"):
        notebook.page.keyboard.press(key)
    assert_reads(figure, truth["weights"], truth["words"], head=0, query=2)
    assert notebook.cells.locator(".cm-content").all_inner_texts() == sources
    expect(selected).to_have_count(1)
    expect(selected.locator(".attnlib")).to_have_count(1)
    notebook.page.keyboard.press("Tab")
    wait(figure.locator(".strip input:focus")).to_have_count(1)
    notebook.cells.nth(1).locator(".cm-content").click()
    notebook.page.keyboard.press("Escape")
    notebook.page.keyboard.press("b")  # the same key outside does what it does
    wait(notebook.cells).to_have_count(3)


# Every widget, in one notebook: how it is made, what Python sets, which key moves what.


class Row(NamedTuple):
    """How a widget is made in a notebook, a trait for Python to set, and a control to press."""

    make: str
    put: str
    control: str = "input[type=range]"
    key: str = "ArrowRight"


ROWS = {
    "AttentionHeatmap": Row(
        "AttentionHeatmap(torch.eye(3), 'abc')", "query = 0", ".map", "ArrowDown"
    ),
    "BlockWalk": Row("BlockWalk()", "query = 2", "input[type=radio]:checked"),
    "CacheDials": Row(
        "CacheDials({name: MODELS[name] for name in ('gpt-oss-120b', 'Kimi K3')})",
        "users = 48",
    ),
    "CacheExplorer": Row(
        "CacheExplorer({'A': Geometry(2, 8, 8, 16), 'B': Geometry(4, 8, 2, 16)})",
        "context = 12345",
        "select",
        "ArrowDown",
    ),
    "CacheGrowth": Row(
        "CacheGrowth(Geometry(4, 8, 2, 16), name='A', context=2048)", "context = 4096"
    ),
    "DeviceSplit": Row("DeviceSplit()", "ranks = 4", "input[type=radio]:checked"),
    "HeadSharing": Row("HeadSharing(8, 4)", "n_kv_heads = 2"),
    "HeadlineDissector": Row(
        "HeadlineDissector()", "baseline = 'mha'", "input[type=radio]:checked"
    ),
    "MlaStepper": Row("MlaStepper()", "step = 2"),
    "ModelPlane": Row("ModelPlane(MODELS)", "context = 1024"),
    "RopeDial": Row("RopeDial(torch.ones(4), torch.ones(4))", "query_position = 20"),
    "ScalingExplorer": Row(
        "ScalingExplorer({D: torch.randn(8, D) @ torch.randn(D, 8) for D in (4, 16, 64)})",
        "scale = '1/D'",
    ),
    "WindowExplorer": Row("WindowExplorer()", "window = 6"),
}


def test_table_has_every_widget():
    assert set(ROWS) == set(widgets.__all__) - {"Widget", "page_model"}


def test_every_widget_lives(open_notebook):
    cells = [
        "import torch\nfrom attnlib import MODELS, Geometry\nfrom attnlib.book.widgets import *"
    ]
    for name, row in ROWS.items():
        cells += [
            f"widget = {row.make}\nwidget",
            f"widget.{row.put}\nbefore = widget.state()",
            f"print('{name} moved:', widget.state() != before)",
        ]
    notebook = open_notebook(cells)
    notebook.run(0)
    for index, (name, row) in enumerate(ROWS.items()):
        figure = notebook.figure(3 * index + 1)
        shown = figure.inner_html()
        notebook.run(3 * index + 2)
        wait(figure).not_to_have_js_property("innerHTML", shown)
        figure.locator(row.control).first.press(row.key)
        notebook.prints(3 * index + 3, f"{name} moved: True")
    assert notebook.cells.count() == len(cells) + 1  # JupyterLab adds one after the last


# What is stored


def stored_notebook() -> str:
    """Return a notebook whose widget ran elsewhere, as the chapters are stored."""
    space: dict = {}
    exec(HEATMAP, space)
    made = notebook_of(["widget"])
    html = {"text/html": space["widget"].html(), "text/plain": "AttentionHeatmap()"}
    output = nbformat.v4.new_output("execute_result", data=html, execution_count=1)
    made.cells[0].update(execution_count=1, outputs=[output])
    return nbformat.writes(made)


def test_untrusted_notebook_shows_the_table(open_notebook, truth):
    notebook = open_notebook(stored_notebook())
    output = notebook.cells.nth(0).locator(".jp-OutputArea-output")
    wait(output.locator("table")).to_be_visible()
    row = output.get_by_role("row").last
    numbers = [f"{weight:.2f}" for weight in truth["weights"][0, 5].tolist()]
    expect(row.locator("td")).to_have_text([*numbers, "1.000"])
    assert output.locator("script, style, input, button, figure").count() == 0


def test_trusted_notebook_draws_before_anything_runs(open_notebook, lab, truth):
    text = stored_notebook()
    notary = NotebookNotary(data_dir=str(lab.notebooks.parent / "data"))
    notary.sign(nbformat.reads(text, as_version=4))
    notebook = open_notebook(text)
    figure = notebook.cells.nth(0).locator(".attnlib-widget figure")
    wait(figure).to_have_count(1)
    cursor = figure.get_by_role("slider", name="query")
    cursor.click(position={"x": 5, "y": 5})
    for key in ("ArrowDown", "b", "ArrowDown"):
        notebook.page.keyboard.press(key)
    assert_reads(figure, truth["weights"], truth["words"], head=0, query=2)
    assert notebook.cells.count() == 1
    summary = notebook.cells.nth(0).get_by_text("As a table")
    summary.press("Enter")
    expect(notebook.cells.nth(0).locator(".attnlib-fallback table")).to_be_visible()
