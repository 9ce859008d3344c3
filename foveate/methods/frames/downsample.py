"""Downsample: make the picture smaller before it is encoded, because that saves the encoder too.

A baseline without a paper: the plain alternative to every choice among tokens.

Rows x columns of tokens in place of h x w: the largest product not above the budget among the
shapes whose aspect ratio is within `stretch` of the picture's (the nearest ratio where none is).

Needs a family whose vision tower takes pictures of several sizes. Cost: less than nothing: the
encoder runs on fewer patches. The budget is an upper limit here, not a count: tokens come in whole
rows and columns, and the tower's own patch grid may round them further.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.Downsample(keep=0.25)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from foveate.budget import Keep, resolve
from foveate.errors import BudgetError, InvalidParameter
from foveate.method import Method, register
from foveate.parts import FramesPart
from foveate.tokens import Grid


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class Downsample(Method, FramesPart):
    """stretch: how far the aspect ratio may go to come nearer to the budget, at least 1."""

    slug = "downsample"
    drawn_as = "smaller"

    keep: Keep = 0.25
    stretch: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stretch >= 1:
            raise InvalidParameter(
                f"stretch={self.stretch!r} allows no shape; use 1.0 for the picture's own aspect "
                "ratio, or more."
            )

    def count(self, grid: Grid) -> int:
        """Tokens of `shape`; the whole grid where it stays as it is."""
        h, w = self.shape(grid)
        return grid.n if (h, w) == (grid.h, grid.w) else grid.t * h * w

    def shape(self, grid: Grid) -> tuple[int, int]:
        area = resolve(self.keep, grid.patches) * grid.h * grid.w // grid.patches
        if area < 1:
            raise BudgetError(
                f"keep={self.keep} leaves some of {grid.t} frames without a token; "
                f"use at least keep={grid.t}."
            )
        sides = product(range(1, grid.h + 1), range(1, grid.w + 1))
        shapes = [(rows, columns) for rows, columns in sides if rows * columns <= area]

        def bent(shape: tuple[int, int]) -> float:
            ratio = shape[0] * grid.w / (shape[1] * grid.h)
            return max(ratio, 1 / ratio)

        limit = max(self.stretch, min(map(bent, shapes)))
        return max((s for s in shapes if bent(s) <= limit), key=lambda s: (s[0] * s[1], -bent(s)))
