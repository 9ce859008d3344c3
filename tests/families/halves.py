"""Two methods with no idea of their own: they drop every second visual token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.method import Method
from foveate.methods.tokens.base import TokensMethod
from foveate.parts import BoundaryState, LayersPart
from foveate.signals import Signals
from foveate.tokens import Grid, VisualTokens


@dataclass(frozen=True, kw_only=True, repr=False)
class Half(TokensMethod):
    """Keep every second token of each item, from `start` on; keep=1.0 keeps all."""

    slug = "half"

    keep: float = 0.5
    start: int = 0
    positions: str = "original"

    def count(self, grid: Grid) -> int:
        return grid.n if self.keep == 1.0 else len(range(self.start, grid.n, 2))

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        index = torch.arange(self.start, tokens.n, 2, device=tokens.features.device)
        return index.expand(tokens.features.shape[0], -1)


@dataclass(frozen=True, kw_only=True, repr=False)
class HalfAt(Method, LayersPart):
    """Keep every second visual column of each row at boundary k; keep=1.0 keeps all."""

    slug = "half_at"

    keep: float = 0.5
    k: int = 2

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return (self.k,)

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor | None:
        if self.keep == 1.0:
            return state.valid
        rank = state.visual.long().cumsum(1) - 1
        return ~state.visual | (rank % 2 == 0)
