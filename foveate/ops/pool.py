"""Divides token grids into cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foveate.budget import split_evenly


def cell_rows(h: int, w: int, cells: int) -> list[int]:
    """Cells in each band of rows, when h x w tokens are divided into `cells` almost square cells.

    The bands differ by at most one cell. No band has more than w cells.
    """
    fits = range(-(-cells // w), min(h, cells) + 1)
    # With r bands a cell is h / r tall and w * r / cells wide. Take the ratio nearest to 1, and the
    # fewest bands on ties.
    rows = min(fits, key=lambda r: abs(math.log(h * cells / (w * r * r))))
    return split_evenly(cells, rows)


def grid_cells(h: int, w: int, cells: int) -> Tensor:
    """Cell (h * w,) of every token of a grid in raster order; exactly `cells`, none empty."""
    return band_cells(h, w, cell_rows(h, w, cells))


def band_cells(h: int, w: int, cells: Sequence[int]) -> Tensor:
    """Cell (h * w,) of every token, when the rows are divided into bands with these cell counts."""
    widths = torch.tensor(cells)
    start = widths.cumsum(0) - widths
    band = torch.arange(h) * len(widths) // h
    column = torch.arange(w) * widths[band][:, None] // w
    return (start[band][:, None] + column).reshape(-1)


def sides(position: Tensor) -> tuple[int, int]:
    """Rows and columns of the tokens at positions (N, 3), given as (t, h, w) in raster order.

    (1, N) where they do not fill a rectangle.
    """
    low, high = position[:, 1:].amin(0), position[:, 1:].amax(0)
    h, w = (high - low + 1).tolist()
    return (h, w) if h * w == len(position) else (1, len(position))


def reading_rank(cell: Tensor, count: int) -> Tensor:
    """Rank (count,) of every cell by its first member in `cell` (N,); -1 for no cell.

    Needed because the cells of stitched crops interleave in reading order.
    """
    steps = torch.arange(len(cell))
    first = steps.new_full((count + 1,), len(cell))
    first.scatter_reduce_(0, cell.masked_fill(cell < 0, count), steps, "amin")
    return first[:count].argsort().argsort()
