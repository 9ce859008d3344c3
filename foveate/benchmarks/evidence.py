"""Which visual tokens contain the evidence for the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveate.mini.world.item import Item
from foveate.mini.world.scene import Box
from foveate.tokens import Grid

# A token contains evidence if a box covers at least this share of its cell, or of the box itself.
# Boxes are slightly larger than the drawn object, so a smaller overlap is background.
CELL_SHARE = 0.12


@dataclass
class EvidenceBoxes:
    """The evidence boxes of the current batch; the benchmark sets them before each call.

    Attributes:
        boxes: evidence boxes in pixels, per image.
        size: width and height of the images in pixels.
        dropped: number of evidence tokens per image, equal for all images of the batch.
    """

    boxes: list[tuple[Box, ...]] = field(default_factory=list)
    size: int = 0
    dropped: int = 0

    def set_items(self, items: Sequence[Item]) -> None:
        """Use the boxes of these items, in the order of the batch."""
        self.boxes = [reference_boxes(item) for item in items]
        self.size = items[0].media["size"]


def reference_boxes(item: Item) -> tuple[Box, ...]:
    """The boxes that the oracle keeps: the evidence, and for counting tasks all objects.

    With the counted objects alone, counting is less accurate than with random tokens: the model
    compares them with the other objects.
    """
    if item.task in COUNTING:
        return tuple(o.box for o in item.scene.objects)
    return item.evidence


COUNTING = frozenset({"I4"})


def overlap(boxes: Sequence[Box], position: Tensor, grid: Grid, size: int) -> Tensor:
    """Share (K, N) of each token's cell that each of K boxes covers; 0 if it is too small.

    Args:
        boxes: K boxes (x0, y0, x1, y1) in pixels.
        position: (N, 3), (t, h, w) of the tokens in `grid`.
        grid: the token grid, which spans the whole image.
        size: width and height of the image in pixels.
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
    """Score (N,) from shares (K, N): first the best cell of each box, then the second best.

    Ranking the cells per box keeps tokens of every object, also beside a much larger one. Cells
    outside all boxes have score 0.
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
    """Number of tokens that contain evidence of an item."""
    shares = overlap(reference_boxes(item), position, grid, item.media["size"])
    return int((importance(shares) > 0).sum())
