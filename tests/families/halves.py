"""Methods with no idea of their own: every second visual token goes, or goes around layers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.method import Method
from foveate.methods.tokens.base import TokensMethod
from foveate.ops.packed import Packed, pack_chosen, pack_tokens
from foveate.parts import BoundaryState, CachesPart, CacheState, Detour, DetourPart, LayersPart
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
    positions: str = "original"
    k: int = 2

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return (self.k,)

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor | None:
        if self.keep == 1.0:
            return state.valid
        rank = state.visual.long().cumsum(1) - 1
        return ~state.visual | (rank % 2 == 0)


@dataclass(frozen=True, kw_only=True, repr=False)
class Held(Method, CachesPart):
    """Keep every column of the cache in a store, in `bits` for every second one and for others."""

    slug = "held"

    bits: tuple[int, int] = (16, 16)
    gap: int | None = 3

    def hold(self, state: CacheState) -> Packed:
        assert (state.attention is None) == bool(state.visual.any())
        chosen = (state.valid.long().cumsum(1) % 2 == 0) & state.valid
        return pack_tokens(state.keys, state.values, state.valid, chosen, self.bits)


@dataclass(frozen=True, kw_only=True, repr=False)
class HalfHeld(Method, CachesPart):
    """Evict every second visual column, the even ones in even layers; all text stays."""

    slug = "half_held"

    def hold(self, state: CacheState) -> Packed | None:
        rank = state.visual.long().cumsum(1) - 1
        odd = (rank % 2 != state.layer % 2) & state.visual
        return pack_chosen(state.keys, state.values, state.valid & ~odd, 16)


@dataclass(frozen=True, kw_only=True, repr=False)
class HalfAround(Method, DetourPart):
    """Of each row every second visual column, from the i-th on, runs through layer i of `at`."""

    slug = "half_around"

    keep: float = 0.5
    at: tuple[int, ...] = (1,)
    gate: float | None = None

    def layers(self, layers: int) -> tuple[int, ...]:
        return self.at

    def runs(self, i: int, layers: int, state: BoundaryState) -> Detour | None:
        rank = state.visual.long().cumsum(1) - 1
        run = state.valid if self.keep == 1.0 else (rank + i) % 2 == 0
        gate = None if self.gate is None else torch.full(run.shape, self.gate)
        return Detour(run, gate)
