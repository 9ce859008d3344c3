"""Pool visual tokens before the LLM: average neighbouring patches on a regular grid (baseline).

A baseline without a paper. Many models pool like this between vision encoder and LLM.

Rule: each crop or frame of h x w tokens, of which k are to be kept, is split into bands of rows,
and each band into cells, so that there are exactly k cells, as close to square as possible. Each
output token is the mean of one cell. Crops and frames share the budget in proportion to their
tokens. Newline tokens are dropped.

Needs: nothing besides the tokens.

Cost: one addition per token.

Notes: where another method has already dropped tokens, the rest does not form a grid. Then runs of
equal length in reading order are averaged.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.GridPool(keep=0.25)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from foveate.budget import Keep
from foveate.method import register
from foveate.methods.tokens.base import TokensMethod
from foveate.ops.allocate import share_in_proportion
from foveate.ops.pool import grid_cells, reading_rank, sides
from foveate.ops.transfer import on_device
from foveate.signals import Signals
from foveate.tokens import Grid, VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class GridPool(TokensMethod):
    """Average pooling to exactly `keep` tokens; it has no parameters of its own."""

    slug = "grid_pool"
    drops_special = True
    drawn_as = "pooled"

    keep: Keep = 0.25

    def count(self, grid: Grid) -> int:
        n = super().count(grid)
        if n < grid.n:
            share_in_proportion(n, grid.views or (grid.patches,))
        return n

    def reduce(self, tokens: VisualTokens, signals: Signals, keep: int) -> VisualTokens:
        position, members = tokens.on_host()
        cell = torch.full((tokens.n,), -1)
        made = 0
        shares = share_in_proportion(keep, [len(m) for m in members])
        for slots, share in zip(members, shares, strict=True):
            if share:
                cell[slots] = grid_cells(*sides(position[slots]), share) + made
                made += share
        assign = reading_rank(cell, keep)[cell.clamp(min=0)].masked_fill(cell < 0, -1)
        assign = on_device(assign, tokens.features.device)
        return tokens.merge(assign.expand(tokens.assign.shape[0], -1), keep)
