"""Draw on a picture which of its patches the language model got to see, and which were merged."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from foveate.errors import InvalidParameter
from foveate.view.planes import Plane, planes
from foveate.view.sheet import side_by_side

_SIDE = 480
"""Pixels that the longer side of a small picture is blown up to."""

_CELL = 12
"""Pixels that a cell shall at least have, as far as `_LARGEST` allows."""

_LARGEST = 1200
_DIM = 0.22
"""Brightness that a dropped patch is left with: enough to see what was there."""

_MEAN = 0.5
"""Share of the group's mean colour in the patches of a merged token: averaged, as the token is."""

_TINT = 0.2
"""Share of the group's own colour, which tells groups apart that look alike."""

_LINE = 0.5
"""Share of white in the frame of a kept patch: shows on dark pictures, where dimming does not."""

_GOLDEN = 0.618033988749895
"""Steps of the golden ratio around the colour wheel keep neighbouring numbers far apart."""


def overlay(
    image: Image.Image | Sequence[Image.Image], trace: Any, *, finest: bool = False
) -> Image.Image:
    """The picture with kept patches in full light, merged ones tinted by group, dropped ones dim.

    image: the part of the picture that the model saw (see `seen`), or the frames of a video.
    trace: one of `att.report.traces`. Where the item has several planes (the overview and the tiles
    of a picture, the frames of a video) they stand side by side with captions; `finest` draws only
    the one with the most cells.
    """
    all_planes = planes(trace)
    frames = [image] if isinstance(image, Image.Image) else list(image)
    if not frames:
        raise InvalidParameter("There is no picture to draw on; give an image or a list of frames.")
    if not all_planes:
        return frames[0].convert("RGB")
    if finest:
        all_planes = [max(all_planes, key=lambda plane: plane.holder.size)]
    steps = max(plane.t for plane in all_planes) + 1
    panels = [
        _panel(frames[plane.t * len(frames) // steps].convert("RGB"), plane) for plane in all_planes
    ]
    if len(panels) == 1:
        return panels[0]
    name = "view" if len(frames) == 1 else "step"
    captions = [
        f"{name} {plane.t}: {plane.holder.size} patches in {plane.kept} tokens"
        for plane in all_planes
    ]
    # A long video becomes a film strip, not a wall.
    height = None if len(panels) <= 4 else 240
    return side_by_side(panels, captions, columns=4, height=height)


def _panel(image: Image.Image, plane: Plane) -> Image.Image:
    image = _enlarged(image, plane.shape)
    pixels = np.asarray(image, np.float32)
    rows, columns = plane.shape
    row = np.arange(image.height) * rows // image.height
    column = np.arange(image.width) * columns // image.width
    holder = plane.holder[row[:, None], column]
    merged = plane.slots[row[:, None], column] > 1
    grey = pixels.mean(2, keepdims=True)
    drawn = np.where(holder[..., None] < 0, _DIM * (0.4 * pixels + 0.6 * grey), pixels)
    colours = _colours(int(plane.holder.max()) + 1)[holder]
    averaged = (1 - _MEAN - _TINT) * pixels + _MEAN * _means(pixels, holder) + _TINT * colours
    drawn = np.where(merged[..., None], averaged, drawn)
    drawn = _lines(drawn, row, column, holder, merged, colours)
    return Image.fromarray(np.rint(drawn).clip(0, 255).astype(np.uint8))


def _means(pixels: np.ndarray, holder: np.ndarray) -> np.ndarray:
    """For every pixel the mean colour of all pixels of its token."""
    labels = holder.ravel() + 1
    count = np.bincount(labels).clip(min=1)
    flat = pixels.reshape(-1, 3)
    means = np.stack([np.bincount(labels, flat[:, c]) / count for c in range(3)], 1)
    return means[labels].reshape(pixels.shape)


def _lines(drawn, row, column, holder, merged, colours):
    """Thin light frames around kept patches, outlines in their colour around merged groups."""
    width = 1 if min(drawn.shape[0] / (row[-1] + 1), drawn.shape[1] / (column[-1] + 1)) < 24 else 2
    cell = row[:, None] * (column[-1] + 1) + column
    frame = _border(cell, 1) & (holder >= 0) & ~merged
    # Groups meet: each draws its own side, so that both outlines show.
    outline = _border(np.where(merged, holder, -1 - cell), width) & merged
    drawn = np.where(frame[..., None], (1 - _LINE) * drawn + _LINE * 255, drawn)
    return np.where(outline[..., None], colours, drawn)


def _border(labels: np.ndarray, width: int) -> np.ndarray:
    """Pixels within `width` of another label below or to the right, or above or to the left."""
    near = np.zeros(labels.shape, bool)
    for step in range(1, width + 1):
        down = labels[step:] != labels[:-step]
        across = labels[:, step:] != labels[:, :-step]
        near[:-step] |= down
        near[step:] |= down
        near[:, :-step] |= across
        near[:, step:] |= across
    return near


def _colours(count: int) -> np.ndarray:
    """Bright colours (count + 1, 3) by number of token; the last one is never seen."""
    wheel = [
        colorsys.hls_to_rgb(i * _GOLDEN % 1, (0.5, 0.62, 0.42)[i % 3], 0.85)
        for i in range(count + 1)
    ]
    return np.array(wheel, np.float32) * 255


def _enlarged(image: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """Large enough for cells to be told apart, no larger than a screen."""
    longer = max(image.size)
    cells = max(shape[0] / image.height, shape[1] / image.width)
    side = min(max(_SIDE, _CELL * cells * longer, longer), _LARGEST)
    scale = side / longer
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
