"""Prune visual tokens before the LLM: keep the most diverse set (greedy max-min distance).

Alvar et al., "DivPrune: Diversity-based Visual Token Pruning for Large Multimodal Models", CVPR
2025, arXiv 2503.02175.

Rule: the first token is the one whose nearest neighbour is farthest. Each further token j is the
one farthest from the kept set S, the largest

    min_{i in S} (1 - cos(x_i, x_j))

where x are the projected features. All tokens of an image or video, newline tokens included, are
one pool. Kept tokens stay in reading order.

Needs: the projected features. No attention, no text.

Cost: one similarity matrix of all pairs of tokens, then one comparison of a row of it per kept
token.

Differences: only where the official code is undefined. Similarities are float32 whatever the dtype
of the model. Duplicates of a kept token come last instead of being kept twice. Zero vectors are
allowed.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.DivPrune(keep=0.1)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget import Keep, resolve
from foveate.errors import BudgetError
from foveate.method import register
from foveate.methods.tokens.base import TokensMethod, is_everything
from foveate.ops.allocate import share_evenly, view_batches
from foveate.ops.farthest import farthest_point
from foveate.parts import Widths
from foveate.signals import Signals
from foveate.tokens import Grid, VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class DivPrune(TokensMethod):
    """DivPrune; the docstring of its module states the rule.

    Attributes:
        keep: tokens that enter the LLM; an int is a count per image or video, a float in (0, 1] a
            retention ratio. The default is the paper's.
        per_crop: select within each crop or frame, each with an even share of the budget; newline
            tokens are dropped.
        protect: always keep the newline tokens; they count towards the budget.
    """

    slug = "divprune"
    paper = "arXiv 2503.02175"

    keep: Keep = 0.098
    per_crop: bool = False
    protect: bool = False

    def count(self, grid: Grid) -> int:
        if is_everything(self.keep, grid.n):
            return grid.n
        n = resolve(self.keep, grid.patches if self.per_crop and not self.protect else grid.n)
        free = n - grid.special if self.protect else n
        if free < 1:
            raise BudgetError(
                f"keep={self.keep} leaves no patch besides the {grid.special} newline tokens that "
                f"protect=True keeps; use at least keep={grid.special + 1}."
            )
        if self.per_crop:
            share_evenly(free, grid.views or (grid.patches,))
        return n

    def left(self, grid: Grid, n: int) -> Grid:
        special = grid.special if self.protect else 0
        return Grid(1, 1, n - special, special=special)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return n * n * widths.model

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        special = tokens.extent().special
        spared = special if self.protect else 0
        kept = [tokens.special.long().argsort(dim=1, descending=True, stable=True)[:, :spared]]
        if self.per_crop:
            members = tokens.by_view()
            shares = share_evenly(keep - spared, [len(m) for m in members])
            for _, slots, share in view_batches(members, shares):
                picks = farthest_point(tokens.features[:, slots].flatten(0, 1), share)
                local = slots.repeat(len(tokens.features), 1).gather(1, picks)
                kept.append(local.view(len(tokens.features), -1))
        else:
            mask = tokens.patch if spared else None
            kept.append(farthest_point(tokens.features, keep - spared, mask=mask))
        return torch.cat(kept, 1).sort(1).values
