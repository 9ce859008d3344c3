"""Colours of pictures: paper and ink, one colour per merged token, and the scale of scores."""

from __future__ import annotations

import colorsys
from functools import lru_cache

import numpy as np

PAPER = (250, 250, 248)
INK = (38, 38, 42)
FAINT = (112, 112, 118)

_GOLDEN = 0.618033988749895
"""Steps of the golden ratio around the colour wheel keep neighbouring numbers far apart."""

_STEPS = 256


_FEW = (
    *((215, 25, 28), (0, 90, 200), (245, 150, 0), (0, 140, 70), (150, 40, 180), (0, 180, 220)),
    *((120, 70, 20), (230, 70, 160)),
)
"""Colours that are easy to tell apart, for the first tokens."""


def group_colours(count: int) -> np.ndarray:
    """Bright colours (count + 1, 3) by number of token; the last one stands for no token."""
    wheel = [
        [255 * x for x in colorsys.hls_to_rgb(i * _GOLDEN % 1, (0.5, 0.62, 0.42)[i % 3], 0.85)]
        for i in range(count + 1)
    ]
    few = min(count + 1, len(_FEW))
    return np.array([*_FEW[:few], *wheel[few:]], np.float32)


def scale(values: np.ndarray) -> np.ndarray:
    """Colours (..., 3), 0 to 255, of values (...) in [0, 1]: dark violet, red, light yellow.

    Perceptually uniform: equal steps of the value are equal distances in the colour space OKLab.
    """
    place = np.clip(values, 0, 1) * (_STEPS - 1)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, _STEPS - 1)
    share = (place - low)[..., None]
    table = _table()
    return table[low] * (1 - share) + table[high] * share


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    """The scale as (256, 3) sRGB values."""
    # From dark violet over red to light yellow: lightness rises all the way.
    at = np.linspace(0, 1, 4 * _STEPS)
    lightness = 0.16 + 0.81 * at
    hue = np.radians(np.interp(at, (0, 0.3, 0.6, 1), (285, 340, 395, 468)))
    chroma = np.interp(at, (0, 0.25, 0.6, 1), (0.07, 0.17, 0.17, 0.10))
    curve = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], 1)
    # Colours that screens cannot show lose chroma, not lightness.
    for _ in range(60):
        outside = ((_linear(curve) < 0) | (_linear(curve) > 1)).any(1)
        curve[outside, 1:] *= 0.97
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    even = np.linspace(0, length[-1], _STEPS)
    curve = np.stack([np.interp(even, length, curve[:, c]) for c in range(3)], 1)
    rgb = _linear(curve).clip(0, 1)
    return 255 * np.where(rgb <= 0.0031308, 12.92 * rgb, 1.055 * rgb ** (1 / 2.4) - 0.055)


def _linear(oklab: np.ndarray) -> np.ndarray:
    """OKLab (n, 3) as linear sRGB (n, 3), outside 0 to 1 where a screen has no such colour."""
    to_cone = np.array(
        [
            [1, 0.3963377774, 0.2158037573],
            [1, -0.1055613458, -0.0638541728],
            [1, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    return (oklab @ to_cone.T) ** 3 @ to_rgb.T
