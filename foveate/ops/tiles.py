"""Positions of the tokens of tiled images: an overview and crops."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from foveate.ops.transfer import on_device
from foveate.tokens import Grid, VisualTokens


def is_stitched(grid: Grid) -> bool:
    """Whether an item is an overview with crops of one larger image, and not single frames."""
    return len(grid.views) > 1 and grid.patches != grid.t * grid.h * grid.w


@dataclass(frozen=True)
class Tiles:
    """Positions of the tokens of a tiled image.

    Attributes:
        group: (N,) int, 0 for the overview, 1, 2, ... for crops row by row, -1 for newlines.
        sizes: Tokens of each group, on the CPU.
        local: (N,) int, index of the token in its group.
        place: (N, 2) int, row and column in the overview or in the stitched image.
        side: Tokens along one side of the overview.
        crops: Rows and columns of crops.
        extent: Rows and columns of the stitched image in tokens.
        base: (n,) int, the overview's tokens.
        cells: (n,) int, their cells in the overview's map.
    """

    group: Tensor
    sizes: Tensor
    local: Tensor
    place: Tensor
    side: int
    crops: tuple[int, int]
    extent: tuple[int, int]
    base: Tensor
    cells: Tensor

    def overview(self, scores: Tensor) -> Tensor:
        """Scores (B, N) of the overview as a map (B, side, side); dropped cells get the mean."""
        values = scores[:, self.base]
        canvas = values.mean(1, keepdim=True).repeat(1, self.side**2)
        canvas[:, self.cells] = values
        return canvas.unflatten(1, (self.side, self.side))


def tiles(tokens: VisualTokens) -> Tiles | None:
    """The tiles of a stitched image; None for single views, frames, and crops without overview."""
    if not is_stitched(tokens.grid):
        return None
    device, layout = tokens.features.device, tokens.layout
    if layout is None or tokens.grid is not layout.grid:
        return _tiles(*tokens.on_host(), tokens, device)
    return layout.once(("tiles", device), lambda: _tiles(*tokens.on_host(), tokens, device))


def _tiles(
    position: Tensor, members: list[Tensor], tokens: VisualTokens, device: torch.device
) -> Tiles | None:
    """Tiles of tokens at `position` (N, 3) with the views `members`, both on the CPU."""
    held = [m for m in members[1:] if len(m)]
    if not held or not len(members[0]):
        return None
    members, side = [members[0], *held], isqrt(tokens.grid.views[0])
    sizes = torch.tensor([len(m) for m in members])
    slots = torch.cat(members)
    group = torch.full((tokens.n,), -1)
    group[slots] = torch.arange(len(members)).repeat_interleave(sizes)
    local = torch.zeros_like(group)
    local[slots] = torch.cat([torch.arange(len(m)) for m in members])
    place = position[:, 1:]
    starts = [int(place[m[0], 0]) for m in held]
    columns = starts.count(starts[0])
    if len(held) % columns:
        columns = len(held)
    height, width = (place[group > 0].amax(0) + 1).tolist()
    row, column = place[members[0]].T
    sent = (group, local, place, members[0], row * side + column)
    group, local, place, base, cells = (on_device(x, device) for x in sent)
    return Tiles(
        group,
        sizes,
        local,
        place,
        side,
        (len(held) // columns, columns),
        (height, width),
        base,
        cells,
    )
