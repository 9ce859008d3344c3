"""Pictures of what a model looked at."""

from foveate.view.overlay import overlay
from foveate.view.planes import Plane, planes
from foveate.view.seen import seen
from foveate.view.sheet import side_by_side

__all__ = ["Plane", "overlay", "planes", "seen", "side_by_side"]
