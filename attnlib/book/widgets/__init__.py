"""Widgets of the book: figures that answer, with a kernel and on a page without one.

Importing this package loads ipywidgets and anywidget; ``import attnlib`` does not.
"""

from attnlib.book.widgets.base import Widget
from attnlib.book.widgets.dial import RopeDial
from attnlib.book.widgets.dissector import HeadlineDissector
from attnlib.book.widgets.explorer import CacheExplorer
from attnlib.book.widgets.heatmap import AttentionHeatmap
from attnlib.book.widgets.plane import ModelPlane
from attnlib.book.widgets.scaling import ScalingExplorer
from attnlib.book.widgets.sharing import HeadSharing
from attnlib.book.widgets.stepper import MlaStepper

__all__ = [
    "AttentionHeatmap",
    "CacheExplorer",
    "HeadSharing",
    "HeadlineDissector",
    "MlaStepper",
    "ModelPlane",
    "RopeDial",
    "ScalingExplorer",
    "Widget",
]
