"""Base of methods that reduce tokens before the LLM and again inside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from foveate.budget import MEAN_OVER_LAYERS, resolve
from foveate.methods.tokens.base import TokensMethod, is_everything
from foveate.ops.allocate import share_evenly
from foveate.tokens import Grid


@dataclass(frozen=True, kw_only=True)
class ProgressiveMethod(TokensMethod):
    """A method whose `keep` is a mean over LLM layers, so that methods compare at equal cost.

    `held`, a class attribute, is the mean over the LLM layers of the share of the tokens that
    entered, by the paper's own schedule. keep / held tokens enter; where that would be more than
    all, all enter, and more are kept later.

    Attributes:
        keep: mean over all LLM layers; an int is a count per image or video, a float in (0, 1] a
            retention ratio.
    """

    held: ClassVar[float]
    keep_means = MEAN_OVER_LAYERS

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
        """Mean over the LLM layers of the ratio kept of a row's `entered` tokens."""
        if isinstance(self.keep, float):
            return max(self.held, self.keep)
        return min(1.0, self.keep * items / entered) if entered else 1.0
