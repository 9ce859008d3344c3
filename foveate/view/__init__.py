"""Pictures of what a method did: kept and merged patches, scores, and tokens layer by layer."""

from foveate.view.heatmap import heatmap_sheet
from foveate.view.overlay import overlay
from foveate.view.planes import Plane, planes
from foveate.view.report_sheet import overlay_sheet
from foveate.view.seen import seen, seen_by_item
from foveate.view.sheet import Head, side_by_side
from foveate.view.views import Views

__all__ = [
    "Head",
    "Plane",
    "Views",
    "heatmap_sheet",
    "overlay",
    "overlay_sheet",
    "planes",
    "seen",
    "seen_by_item",
    "side_by_side",
]
