"""Base of methods before the LLM: scorer -> allocator -> selector -> reducer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from foveate.budget import Keep, resolve
from foveate.contract_checks import check_scores, check_select
from foveate.method import Method
from foveate.ops.allocate import per_view_top_k, share_evenly
from foveate.ops.select import top_k
from foveate.parts import TokensPart
from foveate.signals import Signals
from foveate.tokens import Grid, VisualTokens


@dataclass(frozen=True, kw_only=True)
class TokensMethod(Method, TokensPart):
    """A method with one part before the LLM. Subclasses implement `reduce`, or just `select`.

    Two class attributes: with `drops_special`, newline tokens are dropped as soon as anything is,
    so that `keep` is a ratio of the patches. With `per_view`, every crop or frame gets an even
    share of the budget.

    Attributes:
        keep: tokens that enter the LLM; an int is a count per image or video, a float in (0, 1] a
            retention ratio.
    """

    drops_special: ClassVar[bool] = False
    per_view: ClassVar[bool] = False

    def count(self, grid: Grid) -> int:
        """keep=1.0 keeps newline tokens too, so that it changes nothing."""
        if is_everything(self.keep, grid.n):
            return grid.n
        n = resolve(self.keep, grid.patches if self.drops_special else grid.n)
        if self.per_view:
            share_evenly(n, grid.views or (grid.patches,))
        return n

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        """Indices (B, keep) of the kept tokens, in output order."""
        raise NotImplementedError

    def reduce(self, tokens: VisualTokens, signals: Signals, keep: int) -> VisualTokens:
        return tokens.take(check_select(self, self.select(tokens, signals, keep), tokens, keep))


@dataclass(frozen=True, kw_only=True)
class ScoredTokens(TokensMethod):
    """A method that scores every token and keeps those with the largest scores.

    Subclasses implement `scores`. Kept tokens stay in reading order; ties go to the first token.
    With `per_view`, every crop or frame keeps the best of its own patches. Otherwise the item's
    patches are ranked together, and newlines are kept only when no patch is left.
    """

    def scores(self, tokens: VisualTokens, signals: Signals) -> Tensor:
        """One score per token, (B, N) float; larger is kept. Those of newlines are not read."""
        raise NotImplementedError

    def choose(self, scores: Tensor, tokens: VisualTokens, keep: int) -> Tensor:
        """Indices (B, keep) of the tokens that are kept, in output order, from scores (B, N)."""
        if self.per_view:
            return per_view_top_k(scores, tokens.by_view(), keep)
        return top_k(scores, keep, tokens.patch)

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        scores = check_scores(self, self.scores(tokens, signals), tokens.size)
        signals.record(scores)
        return self.choose(scores, tokens, keep)


def is_everything(keep: Keep, n: int) -> bool:
    """Whether `keep` keeps all `n` tokens, so that nothing may change."""
    return keep == n if isinstance(keep, int) else keep == 1.0
