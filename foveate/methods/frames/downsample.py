"""Resize the image before the vision encoder so that it gives fewer visual tokens (baseline).

A baseline without a paper: the simple alternative to all token selection.

Rule: the image is resized so that it gives fewer rows and columns of tokens. Among the shapes whose
aspect ratio is within `stretch` of the image's own, it takes the largest product of rows and
columns that fits the budget. If no such shape fits, it takes the nearest aspect ratio.

Needs: a model family whose vision encoder takes images of several sizes.

Cost: none. The vision encoder is faster too, because it runs on fewer patches.

Notes: the budget is an upper limit here, not an exact count. Tokens come in whole rows and columns,
and the patch grid of the vision encoder may round them further.

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
    """Resizing before the vision encoder.

    Attributes:
        keep: tokens that enter the LLM, at most; an int is a count per image or video, a float in
            (0, 1] a retention ratio.
        stretch: largest factor by which the aspect ratio may change to get closer to the budget, at
            least 1.0; 1.0 keeps the aspect ratio of the image.
    """

    slug = "downsample"
    drawn_as = "smaller"

    keep: Keep = 0.25
    stretch: float = 1.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.stretch >= 1:
            raise InvalidParameter(
                f"stretch={self.stretch!r} is not valid: use 1.0 for the aspect ratio of the "
                "image, or more."
            )

    def count(self, grid: Grid) -> int:
        """Tokens of `shape`; the whole grid where it does not change."""
        h, w = self.shape(grid)
        return grid.n if (h, w) == (grid.h, grid.w) else grid.t * h * w

    def shape(self, grid: Grid) -> tuple[int, int]:
        area = resolve(self.keep, grid.patches) * grid.h * grid.w // grid.patches
        if area < 1:
            raise BudgetError(
                f"keep={self.keep} is less than one token for each of {grid.t} frames; "
                f"use at least keep={grid.t}."
            )
        sides = product(range(1, grid.h + 1), range(1, grid.w + 1))
        shapes = [(rows, columns) for rows, columns in sides if rows * columns <= area]

        def bent(shape: tuple[int, int]) -> float:
            ratio = shape[0] * grid.w / (shape[1] * grid.h)
            return max(ratio, 1 / ratio)

        limit = max(self.stretch, min(map(bent, shapes)))
        return max((s for s in shapes if bent(s) <= limit), key=lambda s: (s[0] * s[1], -bent(s)))
