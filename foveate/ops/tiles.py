"""An overview and the crops of one picture: which token belongs to which, and how they lie."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from foveate.tokens import Grid, VisualTokens


def is_stitched(grid: Grid) -> bool:
    """Whether an item is an overview and crops stitched to a larger picture, not single frames."""
    return len(grid.views) > 1 and grid.patches != grid.t * grid.h * grid.w


@dataclass(frozen=True)
class Tiles:
    """How the tokens of a stitched picture lie.

    group (N,): 0 for the overview, 1, 2, ... for crops row by row, -1 for newlines. sizes: tokens
    of each. local (N,): the token's number in its group. place (N, 2): its row and column in the
    overview or in the stitched picture. side: tokens along the overview. crops: rows and columns
    of crops. extent: rows and columns of the stitched picture.
    """

    group: Tensor
    sizes: Tensor
    local: Tensor
    place: Tensor
    side: int
    crops: tuple[int, int]
    extent: tuple[int, int]

    def overview(self, scores: Tensor) -> Tensor:
        """The overview's part of `scores` (B, N) as a map (B, side, side), dropped cells mean."""
        own = self.group == 0
        values = scores[:, own]
        row, column = self.place[own].T
        canvas = values.mean(1, keepdim=True).repeat(1, self.side**2)
        canvas[:, row * self.side + column] = values
        return canvas.unflatten(1, (self.side, self.side))


def tiles(tokens: VisualTokens) -> Tiles | None:
    """The tiles of stitched pictures, None for single views, frames, and crops without overview."""
    members = tokens.by_view()
    held = [m for m in members[1:] if len(m)]
    if not is_stitched(tokens.grid) or not held or not len(members[0]):
        return None
    members = [members[0], *held]
    device = tokens.position.device
    sizes = torch.tensor([len(m) for m in members], device=device)
    slots = torch.cat(members)
    group = torch.full((tokens.n,), -1, device=device)
    group[slots] = torch.arange(len(members), device=device).repeat_interleave(sizes)
    local = torch.zeros_like(group)
    local[slots] = torch.cat([torch.arange(len(m), device=device) for m in members])
    place = tokens.position[0, :, 1:]
    starts = place[torch.stack([m[0] for m in held]), 0].tolist()
    columns = starts.count(starts[0])
    if len(held) % columns:
        columns = len(held)
    height, width = (place[group > 0].amax(0) + 1).tolist()
    return Tiles(
        group,
        sizes,
        local,
        place,
        isqrt(tokens.grid.views[0]),
        (len(held) // columns, columns),
        (height, width),
    )
