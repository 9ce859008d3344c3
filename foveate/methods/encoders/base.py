"""What methods share that merge inside the vision tower."""

from __future__ import annotations

from foveate.budget import Keep, resolve
from foveate.errors import BudgetError
from foveate.methods.tokens.base import is_everything
from foveate.tokens import Grid


def count_of_views(keep: Keep, grid: Grid) -> int:
    """Tokens of an item whose crops or frames each leave the tower with `keep` of their patches."""
    if is_everything(keep, grid.n):
        return grid.n
    views = grid.views or (grid.h * grid.w,) * grid.t
    return sum(resolve(keep, n) for n in views if n) + grid.special


def out_of_reach(keep: Keep, n: int, blocks: int) -> BudgetError:
    """The error for a budget that `blocks` blocks can't reach from n tokens."""
    least = n
    for _ in range(blocks):
        least -= least // 2
    return BudgetError(
        f"keep={keep} can't be reached: {blocks} blocks that halve {n} tokens at most leave "
        f"{least}; use at least that many."
    )
