"""Rows of patches: of single views, of frames, and of an overview with its stitched image."""

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
    """One plane of patches.

    Attributes:
        rows: Number of rows.
        width: Patches per row.
        lined: Whether a newline token follows each row.
    """

    rows: int
    width: int
    lined: bool

    @property
    def tokens(self) -> int:
        """Tokens of one row, with its newline."""
        return self.width + self.lined


def planes(grid: Grid) -> list[Plane]:
    """The planes of an item in reading order.

    Raises `UnsupportedCall` where tokens were dropped before.
    """
    if is_stitched(grid):
        side, rest = isqrt(grid.views[0]), sum(grid.views[1:])
        # The stitched image may be lower or narrower than the overview, so try each height.
        for height in (grid.special, grid.h, rest // grid.w):
            width = rest // max(1, height)
            extent = max(height, side), max(width, side)
            if height * width == rest and extent == (grid.h, grid.w):
                return [Plane(side, side, False), Plane(height, width, grid.special == height)]
    elif grid.patches == grid.t * grid.h * grid.w:
        lined = grid.special == grid.t * grid.h
        return [Plane(grid.h, grid.w, lined)] * grid.t
    raise UnsupportedCall(
        "Whole rows of patches can be kept only if no other method dropped tokens before; use "
        "strategy='rank', or attach this method alone."
    )


def row_of_tokens(tokens: VisualTokens, extent: list[Plane]) -> tuple[Tensor, Tensor]:
    """Row (N,) of every token, -1 for special tokens without a row; plane (R,) of each row."""
    device = tokens.position.device
    rows = torch.tensor([plane.rows for plane in extent])
    first = on_device(rows.cumsum(0) - rows, device)
    t, h, _ = tokens.position[0].T
    special = tokens.special[0]
    row = torch.where(special, -1, first[t.clamp(min=0)] + h)
    lined = on_device([plane.lined for plane in extent], device)
    # A newline belongs to the row before it.
    before = row.cummax(0).values
    plane = on_device(torch.arange(len(extent)).repeat_interleave(rows), device)
    return torch.where(special & lined[plane[before.clamp(min=0)]], before, row), plane
