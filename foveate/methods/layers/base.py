"""The layers stage: budgets of a sample's rows, which may hold several visual items."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from foveate.budget import Keep, resolve
from foveate.parts import BoundaryState


def items_per_row(state: BoundaryState) -> list[int]:
    """Visual items of each row of the batch."""
    return (state.item.amax(1) + 1).tolist()


def rows_budget(keep: Keep, state: BoundaryState) -> Tensor:
    """Visual tokens (B,) that each row keeps of those that entered layer 0; counts are per item."""
    budgets = []
    for entered, items in zip(state.entered.tolist(), items_per_row(state), strict=True):
        asked = keep * items if isinstance(keep, int) else keep
        budgets.append(resolve(asked, entered) if entered else 0)
    return torch.tensor(budgets, device=state.hidden.device)


def item_batches(state: BoundaryState) -> Iterator[tuple[Tensor, Tensor]]:
    """Visual items that have equally many columns, together: rows (M,) and columns (M, n)."""
    row, column = state.visual.nonzero(as_tuple=True)
    number = state.item[row, column]
    items = int(number.max()) + 1 if len(number) else 1
    key = row * items + number
    order = key.argsort(stable=True)
    lengths = key.bincount().tolist()
    alike: dict[int, list[Tensor]] = {}
    for part in order.split([n for n in lengths if n]):
        alike.setdefault(len(part), []).append(part)
    for parts in alike.values():
        if len(parts[0]):
            own = torch.stack(parts)
            yield row[own[:, 0]], column[own]
