"""Controls that know more than a method may: they bound what a table can mean.

They are methods like any other, but of no use outside of the bench, and not in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveate.benchmarks.evidence import EvidenceBoxes, importance, overlap
from foveate.method import Method
from foveate.methods.tokens.base import TokensMethod
from foveate.parts import BoundaryState, LayersPart
from foveate.signals import Signals
from foveate.tokens import Grid, VisualTokens


@dataclass(frozen=True, kw_only=True, repr=False)
class Oracle(TokensMethod):
    """Evidence tokens first, the rest of the budget spread evenly: what a choice could be worth.

    evidence: where the evidence of the batch lies. background: keep at least the share of tokens
    without evidence that the picture has, as far as every box can have a token.
    """

    slug = "oracle"
    drops_special = True

    positions: str = "original"
    evidence: EvidenceBoxes = field(default_factory=EvidenceBoxes, compare=False)
    background: bool = False

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        rows = []
        for boxes in self.evidence.boxes:
            score = _score(boxes, tokens, self.evidence.size)
            held = int((score > 0).sum())
            most = held
            if self.background:
                most = max(len(boxes), round(keep * held / tokens.n))
            order = score.argsort(descending=True, stable=True)[: min(held, most, keep)]
            rows.append(_filled(order, score, keep))
        return torch.stack(rows).to(tokens.features.device)


@dataclass(frozen=True, kw_only=True, repr=False)
class EvidenceRemoved(TokensMethod):
    """Evidence tokens dropped, all others kept: what the encoder has leaked to its neighbours.

    The batch's items must hold equally many evidence tokens, `evidence.dropped`.
    """

    slug = "anti_oracle"

    positions: str = "original"
    evidence: EvidenceBoxes = field(default_factory=EvidenceBoxes, compare=False)

    def count(self, grid: Grid) -> int:
        return grid.n - self.evidence.dropped

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        scores = [_score(boxes, tokens, self.evidence.size) for boxes in self.evidence.boxes]
        least = torch.stack(scores).argsort(dim=1, stable=True)[:, :keep]
        return least.sort(1).values.to(tokens.features.device)


@dataclass(frozen=True, kw_only=True, repr=False)
class DropAllTokens(Method, LayersPart):
    """No visual tokens from decoder layer k on: what the layers before k have already fetched."""

    slug = "late_blind"

    positions: str = "original"
    k: int = 1

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return (self.k,)

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor | None:
        return ~state.visual


def _score(boxes, tokens: VisualTokens, size: int) -> Tensor:
    """Importance (N,) of the tokens of one picture."""
    return importance(overlap(boxes, tokens.position[0].cpu(), tokens.grid, size))


def _filled(chosen: Tensor, score: Tensor, keep: int) -> Tensor:
    """Ascending indices (keep,): `chosen`, and of the tokens without evidence evenly many more."""
    others = score == 0
    others[chosen] = False
    pool = others.nonzero()[:, 0]
    missing = keep - len(chosen)
    if missing > len(pool):
        # Evidence fills the picture: what it was not asked to give comes back in.
        spare = torch.ones(len(score), dtype=torch.bool)
        spare[chosen] = spare[pool] = False
        pool = torch.cat([pool, spare.nonzero()[: missing - len(pool), 0]])
    middle = (torch.arange(missing) * 2 + 1) * len(pool) // (2 * max(missing, 1))
    return torch.cat([chosen, pool[middle]]).sort().values
