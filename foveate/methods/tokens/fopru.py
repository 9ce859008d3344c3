"""Prune visual tokens before the LLM by attention among patches: keep the best patches or rows.

Jiang et al., "FoPru: Focal Pruning for Efficient Large Vision-Language Models", 2024, arXiv
2411.14164.

Rule: A is the attention among patches in the last but one layer of the vision encoder, mean over
heads. The significance of patch j is the attention that it receives or gives,

    sum_i A_ij or sum_i A_ji

whichever has the larger variance over the patches of a crop or frame. "rank" keeps the best patches
of each crop or frame. "row" keeps the best rows of patches by their mean, so that lines of text are
kept whole.

Needs: the attention map of one layer of the vision encoder, computed in chunks of rows.

Cost: the whole attention map of one layer, computed once more.

Differences: no official code is known. Without a [CLS] token every row of A sums to the same value,
so the attention that a patch receives is used. Ratios are rounded half to even, ties go to the
upper left. "rank" drops newline tokens. "row" ranks the rows of the stitched image, keeps the
newline token at the end of each kept row, and keeps at least one row of the overview, of the image
and of each frame.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.FoPru(keep=0.25, strategy="row")):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from foveate.budget import Keep
from foveate.errors import BudgetError
from foveate.method import register
from foveate.methods.tokens.base import ScoredTokens, is_everything
from foveate.ops.grouped import chosen, means, sums, top_per_group
from foveate.ops.rows import planes, row_of_tokens
from foveate.ops.transfer import on_device
from foveate.parts import Widths
from foveate.signals import Need, Signals, VisionAttention
from foveate.tokens import Grid, VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class FoPru(ScoredTokens):
    """FoPru; the docstring of its module states the rule.

    Attributes:
        strategy: "rank" keeps the best patches, "row" the best rows of patches.
        score: "variance" for whichever of the two varies more, "received", "given", or "cls" for
            [CLS] attention.
        layer: layer of the vision encoder, 0-based, negative from the end.
    """

    slug = "fopru"
    paper = "arXiv 2411.14164"
    drops_special = True
    per_view = True

    keep: Keep = 0.25
    strategy: Literal["rank", "row"] = "rank"
    score: Literal["variance", "received", "given", "cls"] = "variance"
    layer: int = -2

    @property
    def needs(self) -> tuple[Need, ...]:
        return (VisionAttention(rows="cls" if self.score == "cls" else "mutual", layer=self.layer),)

    def count(self, grid: Grid) -> int:
        if self.strategy == "rank" or is_everything(self.keep, grid.n):
            return super().count(grid)
        n = sum(k * plane.tokens for k, plane in zip(self.rows(grid), planes(grid), strict=True))
        if isinstance(self.keep, int) and n != self.keep:
            raise BudgetError(
                f"keep={self.keep} is not a whole number of rows of patches; use keep={n}, a "
                "ratio, or strategy='rank'."
            )
        return n

    def rows(self, grid: Grid) -> list[int]:
        """Rows to keep of each plane: overview and image, or frames."""
        share = self.keep / grid.n if isinstance(self.keep, int) else self.keep
        return [max(1, round(min(1.0, share) * plane.rows)) for plane in planes(grid)]

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.tower * (1 if self.score == "cls" else n)

    def scores(self, tokens: VisualTokens, signals: Signals) -> Tensor:
        views = max(1, len(tokens.extent().views))
        return significance(signals[self.needs[0]], tokens.view, self.score, views)

    def choose(self, scores: Tensor, tokens: VisualTokens, keep: int) -> Tensor:
        if self.strategy == "rank":
            return super().choose(scores, tokens, keep)
        extent = planes(tokens.extent())
        row, plane_of_row = row_of_tokens(tokens, extent)
        patch_row = row.masked_fill(tokens.special[0], -1)
        value = means(scores, patch_row, len(plane_of_row))
        budget = on_device(self.rows(tokens.extent()), scores.device)
        best = top_per_group(value, plane_of_row, budget)
        return chosen(best[:, row] & (row >= 0), keep)


def significance(attention: Tensor, view: Tensor, score: str, views: int | None = None) -> Tensor:
    """Scores (B, N) from mutual attention (B, 2, H, N), or (B, H, N) for "cls".

    views: number of crops or frames; without it, it is read from the device, which syncs.
    """
    if score == "cls":
        return attention.mean(1)
    gets, gives = attention.float().mean(2).unbind(1)
    if score != "variance":
        return gets if score == "received" else gives
    views = int(view.max()) + 1 if views is None else views
    wins = _spread(gets, view, views) > _spread(gives, view, views)
    return torch.where(wins.gather(1, view.clamp(min=0)), gets, gives)


def _spread(x: Tensor, view: Tensor, views: int) -> Tensor:
    """Variance (B, V) in each crop or frame; exactly 0 for constants, despite rounding."""
    mean = means(x, view, views)
    off = x - mean.gather(1, view.clamp(min=0))
    variance = sums(off.square(), view, views) / sums(torch.ones_like(x), view, views).clamp(min=1)
    return variance.masked_fill(variance < 1e-12 * mean.square(), -1)
