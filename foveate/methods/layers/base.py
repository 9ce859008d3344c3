"""The layers stage: budgets of a sample's rows, which may hold several visual items."""

from __future__ import annotations

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
