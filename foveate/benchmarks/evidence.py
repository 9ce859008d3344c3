"""Which tokens of a picture hold the evidence of its question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveate.mini.world.item import Item
from foveate.mini.world.scene import Box
from foveate.tokens import Grid

# What a box covers less of than this share of a token's cell, or of itself, holds no evidence:
# boxes are a little wider than the ink inside them.
CELL_SHARE = 0.12


@dataclass
class EvidenceBoxes:
    """Where the evidence of the pictures in the running batch lies; whoever asks sets it.

    boxes: per picture its evidence boxes in pixels. size: side of the pictures in pixels.
    dropped: tokens without which the anti-oracle must do, the same for all of the batch.
    """

    boxes: list[tuple[Box, ...]] = field(default_factory=list)
    size: int = 0
    dropped: int = 0

    def point(self, items: Sequence[Item]) -> None:
        """Look at the pictures of these items, in this order."""
        self.boxes = [reference_boxes(item) for item in items]
        self.size = items[0].media["size"]


def reference_boxes(item: Item) -> tuple[Box, ...]:
    """What the oracle keeps: the evidence, and for counting all objects.

    With the counted objects alone counting gets worse than with tokens drawn at random: it
    compares them with the rest of the picture.
    """
    if item.task in COUNTING:
        return tuple(o.box for o in item.scene.objects)
    return item.evidence


COUNTING = frozenset({"I4"})


def overlap(boxes: Sequence[Box], position: Tensor, grid: Grid, size: int) -> Tensor:
    """Share (K, N) of the cell of each token that each of K boxes covers, 0 where it is too little.

    position (N, 3): (t, h, w) of the tokens in `grid`, which spans the picture of `size` pixels.
    """
    if not boxes:
        return torch.zeros(0, len(position))
    x0, y0, x1, y1 = torch.tensor(boxes, dtype=torch.float32).T[..., None]
    cell = torch.tensor([size / grid.w, size / grid.h])
    left, top = position[:, 2] * cell[0], position[:, 1] * cell[1]
    w = torch.minimum(x1, left + cell[0]) - torch.maximum(x0, left)
    h = torch.minimum(y1, top + cell[1]) - torch.maximum(y0, top)
    area = w.clamp(min=0) * h.clamp(min=0)
    whole = float(cell.prod())
    least = CELL_SHARE * ((x1 - x0) * (y1 - y0)).clamp(max=whole)
    share = torch.where(area >= least, area / whole, 0.0)
    return share.masked_fill((position[:, 0] < 0)[None], 0.0)


def importance(shares: Tensor) -> Tensor:
    """Score (N,) from shares (K, N): first the best cell of each box, then the second ones.

    0 marks cells outside of all boxes. Going round the boxes, no object is forgotten over another
    one's many cells.
    """
    if not len(shares):
        return torch.zeros(shares.shape[1])
    order = shares.argsort(dim=1, descending=True, stable=True)
    place = torch.empty_like(order).scatter_(
        1, order, torch.arange(shares.shape[1]).expand_as(order)
    )
    score = 1 / (1.0 + place) + 1e-4 * shares
    return torch.where(shares > 0, score, 0.0).amax(0)


def evidence_cells(item: Item, grid: Grid, position: Tensor) -> int:
    """How many tokens hold evidence of an item."""
    shares = overlap(reference_boxes(item), position, grid, item.media["size"])
    return int((importance(shares) > 0).sum())
