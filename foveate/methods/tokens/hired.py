"""Prune tiled images before the LLM: a budget per crop by content, selection by [CLS] attention.

Arif et al., "HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution
Vision-Language Models in Resource-Constrained Environments", 2024, arXiv 2408.10945.

Rule: the budget is T tokens, a is `alpha`, and the overview has N patches. The overview gets int(T
a) tokens. Its int(N (1 - a)) patches with the highest [CLS] attention in the first layer of the
vision encoder are marked. c_p is the number of marks in the region of the overview that crop p
shows. Crop p gets this share of the remaining budget:

    c_p / (sum of c over all crops)

Overview and crops keep their patches with the highest [CLS] attention, summed over heads, in the
layer whose output the projector reads. Order: the overview, then the stitched image. Newline tokens
are dropped.

Needs: [CLS] attention of two layers of the vision encoder.

Cost: one [CLS] attention row in each of the two layers.

Differences: tokens that rounding or a full crop leaves unused go to the other crops, and padding is
never selected. In vision encoders without a [CLS] token, received attention replaces it.

Notes: an image that is encoded as one crop keeps its best patches. Frames of a video, and crops
without an overview, share the budget evenly.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.HiRED(keep=0.2)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from foveate.budget import Keep
from foveate.errors import InvalidParameter
from foveate.method import register
from foveate.methods.tokens.base import TokensMethod, is_everything
from foveate.ops.allocate import per_view_top_k, share_evenly
from foveate.ops.grouped import apportion, chosen, sums, top_per_group
from foveate.ops.select import top_mask
from foveate.ops.tiles import Tiles, is_stitched, tiles
from foveate.ops.transfer import on_device
from foveate.parts import Widths
from foveate.signals import Need, Signals, VisionAttention
from foveate.tokens import Grid, VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class HiRED(TokensMethod):
    """HiRED; the docstring of its module states the rule.

    Attributes:
        alpha: a, the overview's share of the budget, in [0, 1].
        mark_ratio: share of the overview's patches to mark, in [0, 1]; None is 1 - alpha.
        regions: region of a crop in the overview: "flat" is an equal run of patches in reading
            order, as in the official code; "grid" is the part of the image that the crop shows.
        content: content of a region: "count" counts marks, "mass" sums the attention of all its
            patches.
    """

    slug = "hired"
    paper = "arXiv 2408.10945"
    drops_special = True
    coincides = MappingProxyType(
        {"fastervlm": "an image without tiles is one view, and both then keep the same tokens"}
    )

    keep: Keep = 0.2
    alpha: float = 0.5
    mark_ratio: float | None = None
    regions: Literal["flat", "grid"] = "flat"
    content: Literal["count", "mass"] = "count"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("alpha", "mark_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InvalidParameter(f"{name}={value!r} is not valid: use 0 <= {name} <= 1.")

    @property
    def needs(self) -> tuple[Need, ...]:
        return (VisionAttention(layer=0), VisionAttention())

    def count(self, grid: Grid) -> int:
        n = super().count(grid)
        if not is_everything(self.keep, grid.n) and not is_stitched(grid):
            share_evenly(n, grid.views or (grid.patches,))
        return n

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * 2 * n * widths.tower

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        return chosen(self.kept(tokens, signals, keep), keep)

    def kept(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        """Which tokens are kept, (B, N) bool."""
        first, last = (signals[need].sum(1) for need in self.needs)
        signals.record(last)
        layout = tiles(tokens)
        if layout is None:
            best = per_view_top_k(last, tokens.by_view(), keep)
            return torch.zeros_like(last, dtype=torch.bool).scatter_(1, best, True)
        size, *caps = layout.sizes.tolist()
        full = max(self.overview_share(keep, size), keep - sum(caps))
        shares = self.crop_shares(first, layout, keep - full)
        crops = self.rounded(shares, torch.tensor(caps), keep - full)
        budgets = torch.cat([crops.new_full((len(crops), 1), full), crops], 1)
        budgets = on_device(budgets, last.device)
        return top_per_group(last, layout.group, budgets)

    def rounded(self, shares: Tensor, caps: Tensor, total: int) -> Tensor:
        """Tokens (B, P) of each crop from its share, `total` in sum and at most `caps` (P,)."""
        return apportion(shares, caps, total)

    def overview_share(self, total: int, size: int) -> int:
        """Tokens of an overview of `size` patches, of `total` in all."""
        return min(int(total * self.alpha), size)

    def crop_shares(self, first: Tensor, layout: Tiles, rest: int) -> Tensor:
        """Unrounded share of each crop, (B, P), of `rest` tokens, by the content of its region."""
        content = layout.overview(first).flatten(1)
        rows, columns = layout.crops
        cell = torch.arange(layout.side**2, device=first.device)
        if self.regions == "flat":
            region = cell * (rows * columns) // layout.side**2
        else:
            row, column = cell // layout.side, cell % layout.side
            region = row * rows // layout.side * columns + column * columns // layout.side
        if self.content == "count":
            ratio = 1 - self.alpha if self.mark_ratio is None else self.mark_ratio
            marks = torch.full_like(content[:, 0], int(layout.side**2 * ratio))
            content = top_mask(content, marks, torch.ones_like(content, dtype=torch.bool)).float()
        content = sums(content, region, rows * columns)
        return content / content.sum(1, keepdim=True).clamp(min=1e-30) * rest
