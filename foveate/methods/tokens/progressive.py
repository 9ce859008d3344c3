"""Methods that reduce tokens in front of the language model and go on reducing inside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from foveate.budget import resolve
from foveate.methods.tokens.base import TokensMethod, is_everything
from foveate.ops.allocate import share_evenly
from foveate.tokens import Grid


@dataclass(frozen=True, kw_only=True)
class ProgressiveMethod(TokensMethod):
    """keep: mean share or count over all decoder layers, so that methods compare at equal cost.

    held: mean over the decoder layers of the share of what enters the first one, by the paper's own
    schedule. keep / held enters; where that would be more than all, all enter, and more stay later.
    """

    held: ClassVar[float]

    def count(self, grid: Grid) -> int:
        if is_everything(self.keep, grid.n):
            return grid.n
        patches = grid.patches if self.drops_special else grid.n
        mean = self.keep * patches if isinstance(self.keep, float) else resolve(self.keep, patches)
        if mean / self.held >= patches:
            return grid.n
        n = max(1, round(mean / self.held))
        if self.per_view:
            share_evenly(n, grid.views or (grid.patches,))
        return n

    def share(self, entered: int, items: int) -> float:
        """Mean over the decoder layers of the share that stays of a row's `entered` tokens."""
        if isinstance(self.keep, float):
            return max(self.held, self.keep)
        return min(1.0, self.keep * items / entered) if entered else 1.0
