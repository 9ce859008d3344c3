"""Dividing grids of tokens into cells."""

from __future__ import annotations

import math

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
    widths = torch.tensor(cell_rows(h, w, cells))
    start = widths.cumsum(0) - widths
    band = torch.arange(h) * len(widths) // h
    column = torch.arange(w) * widths[band][:, None] // w
    return (start[band][:, None] + column).reshape(-1)
