"""The book's widgets: interactive figures, with a kernel and on a page without one.

Importing this package loads anywidget and ipywidgets, of the extra ``attnlib[book]``; ``import
attnlib`` does not.
"""

from attnlib.book import missing_extra

try:
    import anywidget  # noqa: F401  # fail here with a message that helps
    import ipywidgets  # noqa: F401
except ModuleNotFoundError as error:
    raise missing_extra(error) from error

from attnlib.book.widgets.base import Widget
from attnlib.book.widgets.blocks import BlockWalk
from attnlib.book.widgets.devices import DeviceSplit
from attnlib.book.widgets.dial import RopeDial
from attnlib.book.widgets.dials import CacheDials
from attnlib.book.widgets.dissector import HeadlineDissector
from attnlib.book.widgets.explorer import CacheExplorer
from attnlib.book.widgets.growth import CacheGrowth
from attnlib.book.widgets.heatmap import AttentionHeatmap
from attnlib.book.widgets.pagemodel import page_model
from attnlib.book.widgets.plane import ModelPlane
from attnlib.book.widgets.scaling import ScalingExplorer
from attnlib.book.widgets.sharing import HeadSharing
from attnlib.book.widgets.stepper import MlaStepper
from attnlib.book.widgets.window import WindowExplorer

__all__ = [
    "AttentionHeatmap",
    "BlockWalk",
    "CacheDials",
    "CacheExplorer",
    "CacheGrowth",
    "DeviceSplit",
    "HeadSharing",
    "HeadlineDissector",
    "MlaStepper",
    "ModelPlane",
    "RopeDial",
    "ScalingExplorer",
    "Widget",
    "WindowExplorer",
    "page_model",
]
