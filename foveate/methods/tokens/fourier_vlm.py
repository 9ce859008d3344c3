"""Compress visual tokens before the LLM: keep their low spatial frequencies (2-D DCT).

"Fourier-VLM: Compressing Vision Tokens in the Frequency Domain for Large Vision-Language Models",
2025, arXiv 2508.06038.

Rule: every crop or frame x of h x w patches becomes r_h x r_w tokens. A 2-D DCT-II is taken per
channel, and the block of low frequencies is transformed back:

    IDCT(DCT(x)[:r_h, :r_w])

This equals A_h x A_w^T with two small matrices: A_h (r_h x h) and A_w (r_w x w). It runs before the
projector where that works on single patches, and after it elsewhere. Newline tokens are dropped.

Needs: the features before the projector.

Cost: two products with these small matrices.

Differences: models that were not tuned with the method can be used. The orthogonal DCT multiplies
constants by sqrt(h w / r_h r_w); `preserve_mean` undoes that (use False with models that were tuned
with the official code). Where the budget does not factor into r_h x r_w, the rows have two
different widths. `reserve` and `ratio` are the official ways to give the size.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.FourierVLM(keep=0.25)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Literal

import torch
from torch import Tensor

from foveate.budget import Keep
from foveate.errors import BudgetError, InvalidParameter
from foveate.method import register
from foveate.methods.tokens.base import TokensMethod, is_everything
from foveate.ops.allocate import share_in_proportion
from foveate.ops.dct import low_pass
from foveate.ops.pool import band_cells, cell_rows, reading_rank, sides
from foveate.ops.transfer import on_device
from foveate.parts import Widths
from foveate.signals import Need, ProjectorInput, Signals
from foveate.tokens import Grid, VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class FourierVLM(TokensMethod):
    """Fourier-VLM; the docstring of its module states the rule.

    Attributes:
        reserve: rows and columns that every crop or frame keeps, instead of `keep`; one number for
            both, or a pair (rows, columns), from 1 on.
        ratio: share of its rows and of its columns that every frame keeps, instead of `keep`, in
            (0, 1].
        norm: "ortho" for the orthogonal DCT, None for the plain one.
        preserve_mean: leave constant images as they are; use False with models that were tuned with
            the official code.
    """

    slug = "fourier_vlm"
    paper = "arXiv 2508.06038"
    drops_special = True
    drawn_as = "low-pass"

    keep: Keep = 0.25
    reserve: int | tuple[int, int] | None = None
    ratio: float | None = None
    norm: Literal["ortho"] | None = "ortho"
    preserve_mean: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reserve is not None and not min(self._reserved()) >= 1:
            raise InvalidParameter(f"reserve={self.reserve!r} is not valid: use 1 or more.")
        if self.ratio is not None and not 0 < self.ratio <= 1:
            raise InvalidParameter(f"ratio={self.ratio!r} is not valid: use 0 < ratio <= 1.")

    @property
    def needs(self) -> tuple[Need, ...]:
        return (ProjectorInput(),)

    def count(self, grid: Grid) -> int:
        views = grid.views or (grid.patches,)
        if self.reserve is not None:
            whole = grid.patches == grid.t * grid.h * grid.w
            shapes = [(grid.h, grid.w) if whole else _square(n) for n in views if n]
            return sum(sum(self._bands(shape, 0)) for shape in shapes)
        if self.ratio is not None:
            if grid.patches != grid.t * grid.h * grid.w:
                raise BudgetError(
                    f"ratio={self.ratio} needs whole frames, but this image is tiled; use keep=..."
                )
            return grid.t * sum(self._bands((grid.h, grid.w), 0))
        n = super().count(grid)
        if not is_everything(self.keep, grid.n):
            share_in_proportion(n, views)
        return n

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * (n * isqrt(keep) + keep * isqrt(n)) * (widths.tower or widths.model)

    def reduce(self, tokens: VisualTokens, signals: Signals, keep: int) -> VisualTokens:
        x, (position, members) = signals[ProjectorInput()], tokens.on_host()
        shares = share_in_proportion(keep, [len(m) for m in members])
        alike: dict[tuple, list[Tensor]] = {}
        for slots, share in zip(members, shares, strict=True):
            if share:
                shape = sides(position[slots])
                bands = tuple(self._bands(shape, share))
                alike.setdefault((shape, bands), []).append(slots)
        cell, made, vectors = torch.full((tokens.n,), -1), 0, []
        for (shape, bands), own in alike.items():
            views = torch.stack(own)
            own_x = x[:, on_device(views, x.device)]
            low = low_pass(own_x.unflatten(2, shape), bands, self.norm)
            gain = on_device(self._gain(shape, bands).to(low.dtype), low.device)
            vectors.append((low * gain).flatten(1, 2))
            first = made + torch.arange(len(own))[:, None] * sum(bands)
            cell[views] = band_cells(shape[0], shape[1], bands) + first
            made += len(own) * sum(bands)
        rank = reading_rank(cell, made)
        assign = rank[cell.clamp(min=0)].masked_fill(cell < 0, -1)
        order = on_device(rank.argsort(), x.device)
        features = torch.cat(vectors, 1).to(x.dtype)[:, order]
        return tokens.merge(
            on_device(assign, x.device).expand(len(x), -1),
            made,
            signals.project(features).to(tokens.features.dtype),
        )

    def _bands(self, shape: tuple[int, int], share: int) -> list[int]:
        """Columns of each new row of a grid."""
        if self.reserve is not None:
            rows, columns = self._reserved()
            if rows > shape[0] or columns > shape[1]:
                raise BudgetError(
                    f"reserve={self.reserve} is out of range: a crop or frame has {shape[0]} x "
                    f"{shape[1]} patches; use at most ({shape[0]}, {shape[1]}), or keep=..."
                )
            return [columns] * rows
        if self.ratio is not None:
            rows, columns = (max(int(n * self.ratio), 1) for n in shape)
            return [columns] * rows
        return cell_rows(shape[0], shape[1], share)

    def _reserved(self) -> tuple[int, int]:
        """Rows and columns of `reserve`."""
        return self.reserve if isinstance(self.reserve, tuple) else (self.reserve, self.reserve)

    def _gain(self, shape: tuple[int, int], bands: Sequence[int]) -> Tensor:
        """Factors (K, 1) that leave constant images unchanged."""
        if not self.preserve_mean:
            return torch.ones(1, 1)
        area = torch.tensor([len(bands) * b / prod(shape) for b in bands for _ in range(b)])
        return (area if self.norm is None else area.sqrt())[:, None]


def _square(n: int) -> tuple[int, int]:
    """Sides of a square of at most n patches: what a crop can hold before its shape is known."""
    return isqrt(n), isqrt(n)
