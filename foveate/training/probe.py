"""Parts that look and change nothing, or let everything go: what recipes see of a base model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from foveate.method import Method
from foveate.parts import BoundaryState, LayersPart


@dataclass(frozen=True, kw_only=True, repr=False)
class Probe(Method, LayersPart):
    """Calls `seen[k](state)` at boundary k; the columns that it gives stay, None for all."""

    slug = "probe"

    positions: str = "original"
    seen: dict[int, Callable[[BoundaryState], Tensor | None]] = field(default_factory=dict)

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return tuple(sorted(self.seen))

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor | None:
        return self.seen[k](state)
