"""An overview and the crops of one picture: which token belongs to which, and how they lie."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from foveate.ops.transfer import on_device
from foveate.tokens import Grid, VisualTokens


def is_stitched(grid: Grid) -> bool:
    """Whether an item is an overview and crops stitched to a larger picture, not single frames."""
    return len(grid.views) > 1 and grid.patches != grid.t * grid.h * grid.w


@dataclass(frozen=True)
class Tiles:
    """How the tokens of a stitched picture lie.

    group (N,): 0 for the overview, 1, 2, ... for crops row by row, -1 for newlines. sizes: tokens
    of each, on the CPU. local (N,): the token's number in its group. place (N, 2): its row and
    column in the overview or in the stitched picture. side: tokens along the overview. crops: rows
    and columns of crops. extent: rows and columns of the stitched picture. base, cells (n,): the
    overview's tokens, and the cell of its map where each lies.
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
        """The overview's part of `scores` (B, N) as a map (B, side, side), dropped cells mean."""
        values = scores[:, self.base]
        canvas = values.mean(1, keepdim=True).repeat(1, self.side**2)
        canvas[:, self.cells] = values
        return canvas.unflatten(1, (self.side, self.side))


def tiles(tokens: VisualTokens) -> Tiles | None:
    """The tiles of stitched pictures, None for single views, frames, and crops without overview."""
    if not is_stitched(tokens.grid):
        return None
    device, layout = tokens.features.device, tokens.layout
    if layout is None or tokens.grid is not layout.grid:
        return _tiles(*tokens.on_host(), tokens, device)
    return layout.once(("tiles", device), lambda: _tiles(*tokens.on_host(), tokens, device))


def _tiles(
    position: Tensor, members: list[Tensor], tokens: VisualTokens, device: torch.device
) -> Tiles | None:
    """Tiles of tokens at `position` (N, 3), of which views have `members`, both on the CPU."""
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
