"""Dividing grids of tokens into cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from foveate.budget import split_evenly


def cell_rows(h: int, w: int, cells: int) -> list[int]:
    """Cells in each band of rows when h x w tokens become `cells`, as near square as can be.

    The bands differ by at most one cell; no band has more than w.
    """
    fits = range(-(-cells // w), min(h, cells) + 1)
    # A cell is h / r tall and w * r / cells wide: the ratio nearest to 1 wins, fewer rows on ties.
    rows = min(fits, key=lambda r: abs(math.log(h * cells / (w * r * r))))
    return split_evenly(cells, rows)


def grid_cells(h: int, w: int, cells: int) -> Tensor:
    """Cell (h * w,) of every token of a grid in raster order; exactly `cells` cells, none empty."""
    return band_cells(h, w, cell_rows(h, w, cells))


def band_cells(h: int, w: int, cells: Sequence[int]) -> Tensor:
    """Cell (h * w,) of every token where the rows are divided into bands of so many cells each."""
    widths = torch.tensor(cells)
    start = widths.cumsum(0) - widths
    band = torch.arange(h) * len(widths) // h
    column = torch.arange(w) * widths[band][:, None] // w
    return (start[band][:, None] + column).reshape(-1)


def sides(position: Tensor) -> tuple[int, int]:
    """Rows and columns of the tokens at positions (N, 3) given as (t, h, w), in raster order.

    One row of all tokens where they fill no rectangle.
    """
    low, high = position[:, 1:].amin(0), position[:, 1:].amax(0)
    h, w = (high - low + 1).tolist()
    return (h, w) if h * w == len(position) else (1, len(position))


def reading_rank(cell: Tensor, count: int) -> Tensor:
    """Rank (count,) of every cell among all by its first member in `cell` (N,), -1 for none.

    Cells of stitched crops interleave in reading order.
    """
    steps = torch.arange(len(cell))
    first = steps.new_full((count + 1,), len(cell))
    first.scatter_reduce_(0, cell.masked_fill(cell < 0, count), steps, "amin")
    return first[:count].argsort().argsort()
