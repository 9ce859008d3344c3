"""Rows of patches: of single views, of frames, and of an overview and its stitched picture."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from foveate.errors import UnsupportedCall
from foveate.ops.tiles import is_stitched
from foveate.ops.transfer import on_device
from foveate.tokens import Grid, VisualTokens


@dataclass(frozen=True)
class Plane:
    """rows: rows of patches in one plane. width: patches in a row. lined: newline behind each."""

    rows: int
    width: int
    lined: bool

    @property
    def tokens(self) -> int:
        """Tokens of one row, its newline included."""
        return self.width + self.lined


def planes(grid: Grid) -> list[Plane]:
    """The planes of an item in reading order; `UnsupportedCall` where its rows are gone."""
    if is_stitched(grid):
        side, rest = isqrt(grid.views[0]), sum(grid.views[1:])
        # The picture may be lower or narrower than the overview, which the extent then tells.
        for height in (grid.special, grid.h, rest // grid.w):
            width = rest // max(1, height)
            extent = max(height, side), max(width, side)
            if height * width == rest and extent == (grid.h, grid.w):
                return [Plane(side, side, False), Plane(height, width, grid.special == height)]
    elif grid.patches == grid.t * grid.h * grid.w:
        lined = grid.special == grid.t * grid.h
        return [Plane(grid.h, grid.w, lined)] * grid.t
    raise UnsupportedCall(
        "Rows of patches can be kept only where no other method dropped any before; use "
        "strategy='rank'."
    )


def row_of_tokens(tokens: VisualTokens, extent: list[Plane]) -> tuple[Tensor, Tensor]:
    """Row (N,) of every token, -1 for specials that belong to none, and the plane (R,) of a row."""
    device = tokens.position.device
    rows = torch.tensor([plane.rows for plane in extent])
    first = on_device(rows.cumsum(0) - rows, device)
    t, h, _ = tokens.position[0].T
    special = tokens.special[0]
    row = torch.where(special, -1, first[t.clamp(min=0)] + h)
    lined = on_device([plane.lined for plane in extent], device)
    # A newline stands behind the row that it ends.
    before = row.cummax(0).values
    plane = on_device(torch.arange(len(extent)).repeat_interleave(rows), device)
    return torch.where(special & lined[plane[before.clamp(min=0)]], before, row), plane
