"""What methods that merge inside the vision encoder have in common."""

from __future__ import annotations

from foveate.budget import Keep, resolve
from foveate.errors import BudgetError
from foveate.tokens import Grid


def view_shares(keep: Keep, grid: Grid) -> tuple[int, ...]:
    """Patches of each crop or frame that leave the vision encoder; an int is a count for each.

    A crop that the model family cuts to fewer patches than the count keeps all of them.
    """
    views = views_of(grid)
    resolve(keep, max(views))
    return tuple(
        resolve(min(keep, n) if isinstance(keep, int) else keep, n) if n else 0 for n in views
    )


def views_of(grid: Grid) -> tuple[int, ...]:
    """Patches of each crop or frame."""
    return grid.views or (grid.h * grid.w,) * grid.t


def out_of_reach(keep: Keep, n: int, blocks: int) -> BudgetError:
    """The error for a budget that `blocks` blocks cannot reach from n tokens."""
    least = n
    for _ in range(blocks):
        least -= least // 2
    return BudgetError(
        f"keep={keep} is out of reach: {blocks} blocks, each of which merges at most half of the "
        f"tokens, turn {n} tokens into {least}; use at least that many."
    )
