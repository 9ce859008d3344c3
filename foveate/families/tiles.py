"""Tiled images: an overview, then crops stitched to one grid without padding, with newlines."""

from __future__ import annotations

from functools import lru_cache

import torch
from transformers.models.llava_next.modeling_llava_next import (
    get_anyres_image_grid_shape,
    unpad_image,
)

from foveate.families.base import raster
from foveate.families.grids import bilinear
from foveate.families.specials import joined, newline_behind, newlines
from foveate.tokens import Layout


def tiled(config, size: list[int], most: int | None = None) -> tuple[Layout, int]:
    """Layout of an image of `size` (height, width), and its number of views.

    Args:
        config: Config of the inner model.
        size: (height, width) in pixels.
        most: A stitched grid with more than about this many crops is downscaled to it. None: never.
    """
    vision = config.vision_config
    tiles = get_anyres_image_grid_shape(size, config.image_grid_pinpoints, vision.image_size)
    side = vision.image_size // vision.patch_size
    return stitched(side, tiles, _window(side, tiles, tuple(size)), most), 1 + tiles[0] * tiles[1]


@lru_cache(maxsize=4096)
def _window(side: int, tiles: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the stitched grid without padding."""
    height, width = (n * side for n in tiles)
    cells = unpad_image(torch.arange(height * width).view(1, height, width), size)[0]
    # An image that is far wider or taller than its grid of crops can leave no cell.
    top, left = divmod(int(cells[0, 0]), width) if cells.numel() else (0, 0)
    return (top, left, *cells.shape)


@lru_cache(maxsize=128)
def stitched(
    side: int, tiles: tuple[int, int], window: tuple[int, int, int, int], most: int | None = None
) -> Layout:
    """Overview (t=0), then the window of the stitched crops (t=1), a newline after each row.

    Args:
        side: Tokens along one side of a crop.
        tiles: Rows and columns of crops. They are the views 1, 2, ... row by row.
        window: Top, left, height and width of the part without padding.
        most: See `tiled`.
    """
    top, left, height, width = window
    if not height * width:
        return joined(raster(1, side, side), newlines(height))
    rows, columns = tiles
    patches = torch.arange(rows * columns * side * side).view(rows, columns, side, side)
    patches = patches.transpose(1, 2).reshape(rows * side, columns * side) + side * side
    patches = patches[top : top + height, left : left + width]
    middle, sources, weights = patches, patches.reshape(-1, 1), None
    ratio = (height * width / (most * side**2)) ** 0.5 if most else 0.0
    if ratio > 1.1:
        shape = int(height // ratio), int(width // ratio)
        cells, weights = bilinear(height, width, *shape)
        sources = torch.where(cells < 0, cells, patches.flatten()[cells])
        middle = patches[_centres(height, shape[0])[:, None], _centres(width, shape[1])]
    height, width = middle.shape
    grid = Layout(
        position=raster(1, height, width).position + torch.tensor([1, 0, 0]),
        view=middle.flatten() // (side * side),
        special=torch.zeros(height * width, dtype=torch.bool),
        rows=sources,
        weights=weights,
    )
    return joined(raster(1, side, side), newline_behind(grid, width))


def _centres(n: int, new: int) -> torch.Tensor:
    """The cell (new,) of `n` that contains the centre of each of `new` wider cells."""
    return (torch.arange(new) * 2 + 1) * n // (2 * new)
