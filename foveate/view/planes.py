"""From a trace to tables of cells: what became of the token at every place of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Plane:
    """The tokens of one temporal step or view, each in its cell of a rows x columns table.

    Attributes:
        t: the step.
        holder: (rows, columns), the token that holds each cell, -1 where it was dropped.
        slots: (rows, columns), how many cells of the whole item that token holds, over all planes.
        slot: (rows, columns), the slot of the item that lies in each cell.
    """

    t: int
    holder: np.ndarray
    slots: np.ndarray
    slot: np.ndarray

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.holder.shape

    @property
    def kept(self) -> int:
        """Tokens that hold at least one cell of this plane."""
        return len(np.unique(self.holder[self.holder >= 0]))


def planes(trace: Any, assign: Any = None) -> list[Plane]:
    """One plane per temporal step of a `Trace`, ascending; special tokens have no place in them.

    assign: (S,) tensor, the token that holds each slot; by default the trace's own, which is that
    after the last layer.
    """
    assign = trace.assign if assign is None else assign
    patch = np.flatnonzero(~trace.layout.special.numpy())
    position = trace.layout.position.numpy()[patch]
    assign = assign.numpy()[patch]
    count = np.bincount(assign[assign >= 0], minlength=1)
    size = np.where(assign < 0, 0, count[assign])
    made = []
    for t in np.unique(position[:, 0]):
        here = position[:, 0] == t
        rows, columns = position[here, 1], position[here, 2]
        shape = (rows.max() + 1, columns.max() + 1)
        holder, slots, slot = np.full(shape, -1), np.zeros(shape, int), np.full(shape, -1)
        holder[rows, columns] = assign[here]
        slots[rows, columns] = size[here]
        slot[rows, columns] = patch[here]
        made.append(Plane(int(t), holder, slots, slot))
    return made
