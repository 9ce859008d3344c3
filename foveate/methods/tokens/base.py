"""Base of methods before the LLM: scorer -> allocator -> selector -> reducer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from foveate.budget import Keep, resolve
from foveate.contract_checks import check_select
from foveate.method import Method
from foveate.ops.allocate import share_evenly
from foveate.parts import TokensPart
from foveate.signals import Signals
from foveate.tokens import Grid, VisualTokens


@dataclass(frozen=True, kw_only=True)
class TokensMethod(Method, TokensPart):
    """A method with one part before the LLM. Subclasses give `reduce`, or just `select`.

    Two class attributes: with `drops_special`, newline tokens are dropped as soon as anything is,
    so that `keep` is a ratio of the patches. With `per_view`, every crop or frame gets an even
    share of the budget.
    """

    drops_special: ClassVar[bool] = False
    per_view: ClassVar[bool] = False

    def count(self, grid: Grid) -> int:
        """keep=1.0 keeps the newlines too: it is always the identity."""
        if is_everything(self.keep, grid.n):
            return grid.n
        n = resolve(self.keep, grid.patches if self.drops_special else grid.n)
        if self.per_view:
            share_evenly(n, grid.views or (grid.patches,))
        return n

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        """Indices (B, keep) of the tokens that survive, in output order."""
        raise NotImplementedError

    def reduce(self, tokens: VisualTokens, signals: Signals, keep: int) -> VisualTokens:
        return tokens.take(check_select(self, self.select(tokens, signals, keep), tokens, keep))


def is_everything(keep: Keep, n: int) -> bool:
    """Whether `keep` asks for all `n` tokens, so that nothing may change."""
    return keep == n if isinstance(keep, int) else keep == 1.0
