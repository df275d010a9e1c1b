"""What JupyterLab stores of a widget: the figure, without a link to a kernel that is gone."""

import json
from pathlib import Path

import pytest

from attnlib.book import saving
from attnlib.book.widgets import AttentionHeatmap

ROOT = Path(__file__).resolve().parents[2]


def notebook(data: dict) -> dict:
    """Return a notebook with one output, as a hook is given it."""
    cell = {"cell_type": "code", "outputs": [{"output_type": "execute_result", "data": data}]}
    text = {"cell_type": "markdown", "source": "text"}
    return {"type": "notebook", "content": {"cells": [text, cell]}}


def kept(data: dict) -> dict:
    """Return the data of that output after the hook."""
    model = notebook(data)
    saving.keep_figures(model, path="a.ipynb", contents_manager=None)
    return model["content"]["cells"][1]["outputs"][0]["data"]


@pytest.fixture
def bundle() -> dict:
    """What a widget of this book shows."""
    widget = AttentionHeatmap([[1.0, 0.0], [0.5, 0.5]], ["a", "b"])
    return dict(widget._repr_mimebundle_()[0])


@pytest.mark.parametrize("is_split", [False, True])
def test_a_figure_loses_its_link_and_nothing_else(bundle, is_split):
    assert saving.LIVE in bundle
    if is_split:  # as nbformat stores it
        bundle["text/html"] = bundle["text/html"].splitlines(keepends=True)
    expected = {kind: data for kind, data in bundle.items() if kind != saving.LIVE}
    assert kept(bundle) == expected


def test_widgets_of_others_are_left_alone():
    other = {saving.LIVE: {"model_id": "1"}, "text/html": "<b>other</b>", "text/plain": "x"}
    assert kept(dict(other)) == other


@pytest.mark.parametrize("model", [{"type": "file", "content": "text"}, {"type": "notebook"}])
def test_what_is_no_notebook_is_left_alone(model):
    before = json.dumps(model)
    saving.keep_figures(model)
    assert json.dumps(model) == before


def test_the_server_loads_the_hook():
    """Catches a module that is renamed without the file that names it to Jupyter."""
    file = ROOT / "attnlib" / "book" / "jupyter" / "attnlib.json"
    named = json.loads(file.read_text("utf-8"))["ServerApp"]["jpserver_extensions"]
    assert named == {
        point["module"]: True for point in saving._jupyter_server_extension_points()
    }
    assert saving.__name__ in named
