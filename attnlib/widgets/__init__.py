"""Widgets of the book: figures that answer, with a kernel and on a page without one.

Importing this package loads ipywidgets and anywidget; ``import attnlib`` does not.
"""

from attnlib.widgets.base import Widget
from attnlib.widgets.dial import RopeDial
from attnlib.widgets.dissector import HeadlineDissector
from attnlib.widgets.explorer import CacheExplorer
from attnlib.widgets.heatmap import AttentionHeatmap
from attnlib.widgets.plane import ModelPlane
from attnlib.widgets.scaling import ScalingExplorer
from attnlib.widgets.sharing import HeadSharing
from attnlib.widgets.stepper import MlaStepper

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
