"""The sixteen shapes as signed distance fields over the square [-1, 1] x [-1, 1] (y down).

Each shape is a function of two coordinate arrays; negative is inside. All shapes are sampled once
into an atlas, so that every shape renders equally fast.
"""

from functools import cache

import numpy as np

from .vocabulary import SHAPES

REACH = 1.25  # the atlas covers [-REACH, REACH] squared
SAMPLES = 161


def circle(x, y, cx=0.0, cy=0.0, r=0.95):
    return np.hypot(x - cx, y - cy) - r


def box(x, y, x0, y0, x1, y1):
    dx = np.abs(x - (x0 + x1) / 2) - (x1 - x0) / 2
    dy = np.abs(y - (y0 + y1) / 2) - (y1 - y0) / 2
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)


def polygon(x, y, corners):
    """Exact distance to a closed polygon; the sign by counting crossings to the right."""
    distance = np.full(x.shape, np.inf)
    inside = np.zeros(x.shape, dtype=bool)
    for (ax, ay), (bx, by) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = bx - ax, by - ay
        t = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        distance = np.minimum(distance, np.hypot(x - ax - t * ex, y - ay - t * ey))
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < ax + (y - ay) * ex / ey)
    return np.where(inside, -distance, distance)


def _wheel(radii: list[float], turn: float = 0.0):
    """Corners at equal angles with the given radii, the first one straight up."""
    angles = 2 * np.pi * np.arange(len(radii)) / len(radii) - np.pi / 2 + turn
    corners = zip(np.cos(angles) * radii, np.sin(angles) * radii, strict=True)
    return [(float(x), float(y)) for x, y in corners]


def _square(x, y):
    return box(x, y, -0.82, -0.82, 0.82, 0.82)


def _triangle(x, y):
    return polygon(x, y, [(0.0, -1.0), (0.96, 0.82), (-0.96, 0.82)])


def _cross(x, y):
    return np.minimum(box(x, y, -0.95, -0.3, 0.95, 0.3), box(x, y, -0.3, -0.95, 0.3, 0.95))


def _ring(x, y):
    return np.abs(circle(x, y, r=0.7)) - 0.25


def _diamond(x, y):
    return polygon(x, y, [(0.0, -1.0), (0.72, 0.0), (0.0, 1.0), (-0.72, 0.0)])


def _star(x, y):
    return polygon(x, y, _wheel([1.0, 0.42] * 5))


def _heart(x, y):
    lobes = np.minimum(circle(x, y, -0.45, -0.38, 0.5), circle(x, y, 0.45, -0.38, 0.5))
    tip = polygon(x, y, [(-0.9, -0.18), (0.0, -0.45), (0.9, -0.18), (0.0, 0.95)])
    return np.minimum(lobes, tip)


def _bar(x, y):
    return box(x, y, -1.0, -0.32, 1.0, 0.32)


def _arch(x, y):
    outer = np.minimum(circle(x, y, 0, 0, 0.92), box(x, y, -0.92, 0, 0.92, 0.92))
    inner = np.minimum(circle(x, y, 0, 0, 0.42), box(x, y, -0.42, 0, 0.42, 1.2))
    return np.maximum(outer, -inner)


def _arrow(x, y):
    head = [(0.1, -0.85), (1.0, 0.0), (0.1, 0.85)]
    return np.minimum(polygon(x, y, head), box(x, y, -1.0, -0.28, 0.2, 0.28))


def _moon(x, y):
    return np.maximum(circle(x, y), -circle(x, y, 0.42, -0.12, 0.78))


def _hexagon(x, y):
    upper = [(-1.0, 0.0), (-0.5, -0.72), (0.5, -0.72)]
    return polygon(x, y, upper + [(-cx, -cy) for cx, cy in upper])


def _drop(x, y):
    tip = polygon(x, y, [(0.0, -1.0), (0.54, 0.2), (-0.54, 0.2)])
    return np.minimum(circle(x, y, 0, 0.38, 0.58), tip)


def _gear(x, y):
    teeth = polygon(x, y, _wheel([1.0, 1.0, 0.66, 0.66] * 6, turn=-np.pi / 24))
    return np.maximum(teeth, -circle(x, y, r=0.28))


def _key(x, y):
    bow = np.abs(circle(x, y, -0.56, -0.12, 0.3)) - 0.14
    shaft = box(x, y, -0.2, -0.26, 1.0, 0.02)
    bits = np.minimum(box(x, y, 0.4, -0.2, 0.6, 0.5), box(x, y, 0.8, -0.2, 1.0, 0.5))
    return np.minimum(np.minimum(bow, shaft), bits)


FIELDS = {
    "square": _square,
    "circle": circle,
    "triangle": _triangle,
    "cross": _cross,
    "ring": _ring,
    "diamond": _diamond,
    "star": _star,
    "heart": _heart,
    "bar": _bar,
    "arch": _arch,
    "arrow": _arrow,
    "moon": _moon,
    "hexagon": _hexagon,
    "drop": _drop,
    "gear": _gear,
    "key": _key,
}

# A hollow version of a shape that is already a thin line could not be told from the plain one.
THIN = frozenset({"ring", "key", "arch", "gear", "moon", "cross", "bar"})


@cache
def atlas() -> np.ndarray:
    """float32 (16, SAMPLES, SAMPLES): distance of every shape on a grid over [-REACH, REACH]."""
    axis = np.linspace(-REACH, REACH, SAMPLES)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    # Rounding to 2^-14 hides last-bit differences between maths libraries.
    fields = np.stack([FIELDS[name](x, y) for name in SHAPES])
    return (np.round(fields * 16384) / 16384).astype(np.float32)
