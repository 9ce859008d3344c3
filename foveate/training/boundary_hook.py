"""A method for recipes: call functions with the state between decoder layers of the base model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from foveate.method import Method
from foveate.parts import BoundaryState, LayersPart


@dataclass(frozen=True, kw_only=True, repr=False)
class BoundaryHook(Method, LayersPart):
    """Records states during a forward pass and, on request, drops tokens.

    Attributes:
        positions: "original" keeps the position ids of the remaining tokens.
        hooks: functions by boundary. `hooks[k](state)` runs at boundary k, before layer k. It
            returns the tokens to keep, bool (B, N), or None to keep all.
    """

    slug = "boundary_hook"

    positions: str = "original"
    hooks: dict[int, Callable[[BoundaryState], Tensor | None]] = field(default_factory=dict)

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return tuple(sorted(self.hooks))

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor | None:
        return self.hooks[k](state)
