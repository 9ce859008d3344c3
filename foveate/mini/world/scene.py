"""The content of an image before rendering.

Lengths are in pixels of the canvas, x to the right, y down. Boxes are (x0, y0, x1, y1).
"""

import math
from dataclasses import asdict, dataclass

from . import font
from .vocabulary import REGIONS, SIZES

Box = tuple[float, float, float, float]

# Object sides in units of one patch side.
SIZE_RANGES = {"tiny": (0.6, 0.9), "small": (1.0, 1.5), "medium": (2.0, 3.0), "large": (4.0, 6.0)}


@dataclass(frozen=True)
class Canvas:
    """A square image of ``size`` pixels with patches of ``patch`` pixels."""

    size: int = 64
    patch: int = 8

    @property
    def grid(self) -> int:
        """Patches per side."""
        return self.size // self.patch


@dataclass(frozen=True)
class Background:
    """``kind`` is flat, gradient, noise or checker; ``first`` and ``second`` are RGB in 0..1.

    A place of `places.PLACES` is also a kind, with its own colours and a weather.
    """

    kind: str
    first: tuple[float, float, float]
    second: tuple[float, float, float]
    seed: int = 0
    weather: str = "clear"


@dataclass(frozen=True)
class Object:
    """One shape: its square has side ``extent``, centre (x, y), turned by ``angle`` radians."""

    shape: str
    colour: str
    x: float
    y: float
    extent: float
    texture: str = "plain"
    angle: float = 0.0

    @property
    def box(self) -> Box:
        """Bounding box of the rotated square that holds the shape."""
        half = self.extent / 2 * (abs(math.cos(self.angle)) + abs(math.sin(self.angle)))
        return self.x - half, self.y - half, self.x + half, self.y + half


@dataclass(frozen=True)
class Text:
    """A string in capitals; (x, y) is the top left corner, ``scale`` pixels make a dot."""

    string: str
    colour: str
    x: int
    y: int
    scale: int = 1

    @property
    def box(self) -> Box:
        right = self.x + font.width(self.string, self.scale)
        return self.x, self.y, right, self.y + font.GLYPH_HEIGHT * self.scale


@dataclass(frozen=True)
class Panel:
    """An upright rectangle of whole pixels in one RGB colour (0..1): a bar of a chart, a line."""

    x0: int
    y0: int
    x1: int
    y1: int
    colour: tuple[float, float, float]

    @property
    def box(self) -> Box:
        return self.x0, self.y0, self.x1, self.y1


@dataclass(frozen=True)
class Scene:
    """A whole image. Drawing order: background, panels, objects in their order, text."""

    canvas: Canvas
    background: Background
    objects: tuple[Object, ...] = ()
    texts: tuple[Text, ...] = ()
    panels: tuple[Panel, ...] = ()

    def to_dict(self) -> dict:
        """The scene as plain JSON types."""
        return asdict(self)


def region(x: float, y: float, size: int) -> str:
    """Name of the third-by-third region that holds a point."""
    column = min(2, max(0, int(3 * x / size)))
    row = min(2, max(0, int(3 * y / size)))
    return REGIONS[3 * row + column]


def clear_of_borders(x: float, y: float, canvas: Canvas) -> bool:
    """Whether a point is a quarter of a patch away from the lines between regions."""
    lines = (canvas.size / 3, 2 * canvas.size / 3)
    return all(abs(v - line) >= canvas.patch / 4 for v in (x, y) for line in lines)


def size_class(extent: float, patch: int) -> str:
    """Nearest size word for a side in pixels; sides between two classes go to the nearer one."""
    share = extent / patch

    def gap(name: str) -> float:
        low, high = SIZE_RANGES[name]
        return max(low - share, share - high, 0.0)

    return min(SIZES, key=gap)
