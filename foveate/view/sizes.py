"""How large pictures are drawn: cells can be told apart, and the sheet still fits a screen."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

_SIDE = 480
"""Pixels that the longer side of a small picture is enlarged to."""

_CELL = 12
"""Pixels that a cell shall at least have, as far as `_LARGEST` allows."""

_SMALL_CELL = 6
"""The same for pictures that share a sheet."""

_LARGEST = 1200


_LONGEST = 12
"""How many times its shorter side a picture is drawn long at most."""


def legible(image: Image.Image) -> Image.Image:
    """The picture, stretched where it is so narrow that its cells could not be seen."""
    width, height = image.size
    size = (max(width, -(-height // _LONGEST)), max(height, -(-width // _LONGEST)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def columns_for(images: Sequence[Image.Image], columns: int) -> int:
    """How many of `columns` pictures fit beside one another; wide ones stand below each other."""
    ratio = max(image.width / image.height for image in images)
    return columns if ratio <= 3 else max(1, min(columns, int(_LONGEST / ratio)))


def enlarged(image: Image.Image, shape: tuple[int, int]) -> Image.Image:
    """The picture, alone on its sheet. shape: rows and columns of its cells."""
    longer = max(image.size)
    cells = max(shape[0] / image.height, shape[1] / image.width)
    side = min(max(_SIDE, _CELL * cells * longer, longer), _LARGEST)
    scale = side / longer
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)


def panel_height(
    images: Sequence[Image.Image], shapes: Sequence[tuple[int, int]], columns: int
) -> int:
    """Height that pictures get which share a sheet, `columns` in a row."""
    ratios = [image.width / image.height for image in images]
    rows = [ratios[i : i + columns] for i in range(0, len(ratios), columns)]
    fits = _LARGEST / max(sum(row) for row in rows)
    cells = max(
        _SMALL_CELL * max(down, across / ratio)
        for ratio, (down, across) in zip(ratios, shapes, strict=True)
    )
    height = max(min(fits, _SIDE), cells, 96)
    return max(1, round(min(height, _LARGEST, 2 * fits)))


def to_height(image: Image.Image, height: int) -> Image.Image:
    """The picture at another height, in its own proportions."""
    size = (max(1, round(image.width * height / image.height)), height)
    return image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
