"""What JupyterLab stores of a widget: the figure, and not the link to a kernel that is gone.

An output of a widget has two carriers: a link to the live model, which JupyterLab prefers, and
HTML with the same figure. A saved link outlives its kernel, and a reader who opens the notebook
again would meet "model not found". So the server drops the link when it saves; the page that is
open keeps its live widget. Installing ``attnlib[book]`` switches this on, in every Jupyter
server of that environment.
"""

from __future__ import annotations

from typing import Any

LIVE = "application/vnd.jupyter.widget-view+json"
FIGURE = 'class="attnlib-widget"'


def keep_figures(model: dict[str, Any], **context: object) -> None:
    """Drop the links to live models from outputs that have the figure too.

    Args:
        model: what is to be saved, as ``jupyter_server`` gives it to a hook; changed in place.
        **context: what else a hook is given; not used.
    """
    content = model.get("content")
    if model.get("type") != "notebook" or not isinstance(content, dict):
        return
    for cell in content.get("cells", []):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if LIVE in data and FIGURE in as_text(data.get("text/html", "")):
                del data[LIVE]


def as_text(html: str | list[str]) -> str:
    """Return HTML as one text; notebooks may store it line by line.

    Args:
        html: a text or its lines.

    Returns:
        The text.
    """
    return html if isinstance(html, str) else "".join(html)


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """Tell Jupyter's server which module to load."""
    return [{"module": "attnlib.book.saving"}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Add the hook to a Jupyter server, beside those of the user."""
    server.contents_manager.register_pre_save_hook(keep_figures)
