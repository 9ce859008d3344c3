"""Prune tiled images before the LLM: the overview sets each crop's budget and guides selection.

Liu et al., "Compression with Global Guidance: Towards Training-free High-Resolution MLLMs
Acceleration", AAAI 2026, arXiv 2501.05179.

Rule: r is the retention ratio, N the number of patches of the overview, P the number of crops, and
s the [CLS] attention logits of the last layer of the vision encoder, mean over heads. The overview
keeps its int(N r) best patches. Crop j keeps this share of its patches:

    min(1, r (1 + e_j - 1/P))

where e is a softmax over the crops: the sum of the overview's logits in the region that each crop
shows, divided by the temperature tau. A crop keeps the patches with the largest

    s_j / |s_j| + g_j / |g_j|

where s_j are the logits of crop j, g_j is the part of the overview's logits that shows the crop,
resized to its patches, and |.| is the Euclidean norm. All newline tokens are kept. Order: the
overview by score, then the crops.

Needs: [CLS] attention logits of the last layer of the vision encoder.

Cost: one [CLS] row of logits.

Differences: tokens that rounding leaves unused are given to the crops. Kept tokens keep their
positions in padded images too (`placement="official"` puts them into the first cells of each crop).
In vision encoders without a [CLS] token, the mean of all rows of logits replaces s.

Notes: with a ratio, the newline tokens are kept in addition to the budget. An int counts newline
tokens too, and drops them where it is too small for all of them. An image that is encoded as one
crop keeps its best patches. Frames, and crops without an overview, share the budget evenly, in
reading order.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.GlobalCom2(keep=0.25)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from foveate.budget import Keep, resolve
from foveate.errors import InvalidParameter
from foveate.method import register
from foveate.methods.tokens.base import TokensMethod, is_everything
from foveate.ops.allocate import per_view_top_k, share_evenly
from foveate.ops.grouped import apportion, chosen, sums, top_per_group
from foveate.ops.tiles import Tiles, is_stitched, tiles
from foveate.ops.transfer import on_device
from foveate.parts import Widths
from foveate.signals import Need, Signals, VisionAttention
from foveate.tokens import Grid, VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class GlobalCom2(TokensMethod):
    """GlobalCom²; the docstring of its module states the rule.

    Attributes:
        keep: tokens that enter the LLM; an int is a count per image or video, newline tokens
            included; a float in (0, 1] is r, the retention ratio of patches, and newline tokens are
            kept in addition.
        temperature: tau of the budgets of crops, above 0; higher values make them more even.
        thumbnail_order: order of the overview's tokens: "score" is best first, "raster" reading
            order.
        placement: "true" keeps tokens at their places in padded images, "official" puts them into
            the first cells of each crop.
    """

    slug = "globalcom2"
    paper = "arXiv 2501.05179"

    keep: Keep = 0.25
    temperature: float = 10.0
    thumbnail_order: Literal["score", "raster"] = "score"
    placement: Literal["true", "official"] = "true"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise InvalidParameter(
                f"temperature={self.temperature!r} is not valid: use a number above 0."
            )

    @property
    def needs(self) -> tuple[Need, ...]:
        return (VisionAttention(layer=-1, logits=True),)

    def left(self, grid: Grid, n: int) -> Grid:
        return Grid(1, 1, n - grid.special, special=grid.special)

    def count(self, grid: Grid) -> int:
        if is_everything(self.keep, grid.n):
            return grid.n
        counted = isinstance(self.keep, int)
        n = resolve(self.keep, grid.n if counted else grid.patches)
        n += 0 if counted else grid.special
        if not is_stitched(grid):
            share_evenly(_patches(n, grid.special), grid.views or (grid.patches,))
        return n

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.tower

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        score, layout = signals[self.needs[0]].mean(1), tiles(tokens)
        special = tokens.extent().special
        free = _patches(keep, special)
        kept = tokens.special & (free < keep)
        if layout is None:
            signals.record(score)
            best = per_view_top_k(score, tokens.by_view(), free)
            return chosen(kept.scatter(1, best, True), keep)
        best = self.best(score, layout, free, special, signals.record)
        return self.in_order(chosen(best | kept, keep), score, layout)

    def best(
        self,
        score: Tensor,
        layout: Tiles,
        free: int,
        special: int,
        record: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Which patches of a stitched image are kept, (B, N) bool: `free` of them.

        record: called with the scores (B, N) that rank them.
        """
        size, caps = int(layout.sizes[0]), layout.sizes[1:]
        ratio = self.keep if isinstance(self.keep, float) else free / (score.shape[1] - special)
        full = max(int(size * ratio), free - int(caps.sum()))
        base = layout.overview(score)
        weights = crop_scales(base, layout.crops, ratio, self.temperature) * caps
        crops = self.rounded(weights, caps, free - full)
        budgets = torch.cat([crops.new_full((len(crops), 1), full), crops], 1)
        budgets = on_device(budgets, score.device)
        ranking = guided(score, base, layout)
        if record is not None:
            record(ranking)
        return top_per_group(ranking, layout.group, budgets)

    def rounded(self, shares: Tensor, caps: Tensor, total: int) -> Tensor:
        """Tokens (B, P) of each crop from its ratio, `total` in sum and at most `caps` (P,)."""
        return apportion(shares, caps, total)

    def in_order(self, index: Tensor, score: Tensor, layout: Tiles) -> Tensor:
        """Indices (B, K) in the order in which the LLM reads them."""
        place = torch.arange(len(layout.group), device=index.device)
        if self.placement == "official":
            width, newline = layout.crops[1] * layout.side + 1, layout.group < 0
            crop, local = layout.group - 1, layout.local
            row = crop // layout.crops[1] * layout.side + local // layout.side
            column = crop % layout.crops[1] * layout.side + local % layout.side
            row = torch.where(newline, newline.cumsum(0) - 1, row)
            column = torch.where(newline, width - 1, column)
            cell = layout.side**2 + row * width + column
            place = torch.where(layout.group == 0, place, cell)
        place = place.expand(len(score), -1)
        if self.thumbnail_order == "score":
            best = score.masked_fill(layout.group != 0, float("-inf"))
            order = best.argsort(dim=1, descending=True, stable=True)
            steps = torch.arange(order.shape[1], device=order.device).expand_as(order)
            rank = torch.empty_like(order).scatter_(1, order, steps)
            place = torch.where(layout.group == 0, rank - len(layout.group), place)
        return index.gather(1, place.gather(1, index).argsort(dim=1, stable=True))


def _patches(keep: int, special: int) -> int:
    """Patches among `keep` tokens: newline tokens are kept unless they would take all."""
    return keep - special if keep > special else keep


def crop_scales(base: Tensor, crops: tuple[int, int], ratio: float, temperature: float) -> Tensor:
    """Retention ratio (B, P) of each crop from the overview's map (B, h, w)."""
    (h, w), (rows, columns) = base.shape[1:], crops
    row = (torch.arange(h) // max(1, h // rows)).clamp(max=rows - 1)
    column = (torch.arange(w) // max(1, w // columns)).clamp(max=columns - 1)
    block = on_device((row[:, None] * columns + column).flatten(), base.device)
    total = sums(base.flatten(1), block, rows * columns).cpu().double()
    e = ((total - total.amax(1, keepdim=True)) / temperature).exp()
    e = e / (e.sum(1, keepdim=True) + 1e-8)
    return (ratio * (1 + e - e.mean(1, keepdim=True))).clamp(max=1)


def guided(score: Tensor, base: Tensor, layout: Tiles) -> Tensor:
    """Scores (B, N): as they are for the overview, plus the overview's at that place for crops."""
    inside = layout.group > 0
    resized = interpolate(base[:, None].float(), size=layout.extent, mode="bilinear")[:, 0]
    row, column = layout.place.clamp(min=0).T
    world = resized[:, row.clamp(max=layout.extent[0] - 1), column.clamp(max=layout.extent[1] - 1)]
    parts = []
    for x in (score.float(), world):
        norm = sums(x.square(), layout.group, len(layout.sizes)).sqrt().clamp(min=1e-12)
        parts.append(x / norm[:, layout.group])
    return torch.where(inside, parts[0] + parts[1], score.float())
