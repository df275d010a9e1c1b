"""Widgets of the book: figures that answer, with a kernel and on a page without one.

Importing this package loads ipywidgets and anywidget; ``import attnlib`` does not.
"""

from attnlib.widgets.base import Widget
from attnlib.widgets.heatmap import AttentionHeatmap

__all__ = ["AttentionHeatmap", "Widget"]
