"""Controls that know the evidence boxes, which no method can: upper and lower references.

They implement the method interface but are not in the catalogue.
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
    """Keeps evidence tokens first and fills the budget evenly: an upper reference.

    Attributes:
        evidence: the evidence boxes of the current batch.
        background: also keep background tokens, in the proportion of the image, as far as every
            box keeps one token. Default False.
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
    """Drops the evidence tokens and keeps all others: a lower reference.

    It shows how much evidence the vision encoder has spread to other tokens. All items of a batch
    must have the same number of evidence tokens.

    Attributes:
        evidence: the evidence boxes of the current batch, with `dropped` tokens per image.
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
    """Drops all visual tokens before decoder layer k.

    It shows how much visual information the layers before k have already moved to text tokens.
    """

    slug = "late_blind"

    positions: str = "original"
    k: int = 1

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return (self.k,)

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor | None:
        return ~state.visual


def _score(boxes, tokens: VisualTokens, size: int) -> Tensor:
    """Importance (N,) of the tokens of one image."""
    return importance(overlap(boxes, tokens.position[0].cpu(), tokens.grid, size))


def _filled(chosen: Tensor, score: Tensor, keep: int) -> Tensor:
    """Ascending indices (keep,): `chosen`, filled with evenly spaced tokens without evidence."""
    others = score == 0
    others[chosen] = False
    pool = others.nonzero()[:, 0]
    missing = keep - len(chosen)
    if missing > len(pool):
        # Too few tokens without evidence: use evidence tokens that were not chosen.
        spare = torch.ones(len(score), dtype=torch.bool)
        spare[chosen] = spare[pool] = False
        pool = torch.cat([pool, spare.nonzero()[: missing - len(pool), 0]])
    middle = (torch.arange(missing) * 2 + 1) * len(pool) // (2 * max(missing, 1))
    return torch.cat([chosen, pool[middle]]).sort().values
