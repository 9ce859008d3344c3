"""Prune visual tokens inside the LLM: keep those least similar to a few pivot tokens.

Wen et al., "Stop Looking for Important Tokens in Multimodal Language Models: Duplication Matters
More", 2025, arXiv 2502.11494.

Rule: pivots are a few visual tokens, and a few text tokens after the image: those with the largest
L1 norm of their key in LLM layer k - 1. Visual pivots are kept. Each pivot p in turn keeps the same
number of further visual tokens j, among those that no earlier pivot has kept: the ones with the
smallest

    cos(x_p, x_j)

where x are the hidden states that enter layer k (`pruning_loc`), after the final norm. Positions do
not change.

Needs: the keys of LLM layer k - 1. No attention.

Cost: one row of cosines per pivot.

Differences: the order of pivots in the official code is that of a Python set of numbers; here
visual pivots come first, both kinds in order of falling norm. What is left of the budget is divided
exactly. All visual tokens of a sample are selected together; text pivots are taken from the text
after the last of them.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.DART(keep=0.25)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from foveate.budget import FROM_LAYER, Keep
from foveate.errors import InvalidParameter
from foveate.method import Method, register
from foveate.methods.layers.base import beyond_depth, rows_budget
from foveate.ops.gather import rows_at
from foveate.ops.select import top_mask
from foveate.parts import BoundaryState, LayersPart, Widths
from foveate.signals import DecoderKeys, Need


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class DART(Method, LayersPart):
    """DART; the docstring of its module states the rule.

    Attributes:
        keep: tokens from LLM layer k on; k is `pruning_loc`; an int is a count per image or video,
            a float in (0, 1] a retention ratio, 1 - R of the paper.
        pruning_loc: k, the first LLM layer with fewer tokens, 0-based, at least 1.
        pivot_image_token: number of visual pivots, at least 1.
        pivot_text_token: number of text pivots, 0 or more.
    """

    slug = "dart"
    paper = "arXiv 2502.11494"
    prompt_agnostic = False
    keep_means = FROM_LAYER

    keep: Keep = 0.2222
    positions: str = "original"
    pruning_loc: int = 2
    pivot_image_token: int = 4
    pivot_text_token: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.pruning_loc >= 1:
            raise InvalidParameter(f"pruning_loc={self.pruning_loc!r} is not valid: use 1 or more.")
        for name, least in (("pivot_image_token", 1), ("pivot_text_token", 0)):
            if not getattr(self, name) >= least:
                raise InvalidParameter(
                    f"{name}={getattr(self, name)!r} is not valid: use {least} or more."
                )

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DecoderKeys(layer=self.pruning_loc - 1),)

    def boundaries(self, layers: int) -> tuple[int, ...]:
        if self.pruning_loc >= layers:
            raise beyond_depth("pruning_loc", self.pruning_loc, layers)
        return (self.pruning_loc,)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * (self.pivot_image_token + self.pivot_text_token) * widths.model

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Tensor | None:
        if isinstance(self.keep, float) and self.keep == 1:
            return None
        norms = state.signals[self.needs[0]].float().abs().sum((1, 3))
        budget = rows_budget(self.keep, state)
        pivots = self.pivots(norms, state, budget)
        kept = unlike(state.norm(state.hidden).float(), *pivots, state.visual, budget)
        return kept | ~state.visual

    def pivots(
        self, norms: Tensor, state: BoundaryState, budget: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Columns (B, P) of the pivots, which of them exist, and which are visual."""
        visual = state.visual
        seen = visual.flip(1).cumsum(1).flip(1) > 0
        text = state.valid & ~visual & ~seen & visual.any(1, keepdim=True)
        columns, there = [], []
        limits = budget.clamp(max=self.pivot_image_token), self.pivot_text_token
        for mask, most, limit in zip(
            (visual, text), (self.pivot_image_token, self.pivot_text_token), limits, strict=True
        ):
            order = norms.masked_fill(~mask, float("-inf"))
            order = order.argsort(dim=1, descending=True, stable=True)[:, :most]
            rank = torch.arange(order.shape[1], device=order.device)
            held = mask.sum(1).clamp(max=limit)
            columns.append(order)
            there.append(rank < held[:, None])
        index, there = torch.cat(columns, 1), torch.cat(there, 1)
        return index, there, there & visual.gather(1, index)


def unlike(
    x: Tensor, pivots: Tensor, there: Tensor, stays: Tensor, visual: Tensor, budget: Tensor
) -> Tensor:
    """(B, N) bool: `budget` (B,) columns of x (B, N, D): pivots, and those least similar to them.

    pivots (B, P), in the order in which they select. there, stays (B, P) bool: pivots that exist,
    and those that are kept. visual (B, N) bool: columns to select from.
    """
    kept = torch.zeros_like(visual, dtype=torch.uint8)
    kept = kept.scatter_add_(1, pivots, stays.to(kept.dtype)) > 0
    # Cosines: dividing the products by the norms avoids a copy of all states.
    alike = normalize(rows_at(x, pivots), dim=-1) @ x.mT
    alike = alike / x.norm(dim=-1).clamp(min=1e-12)[:, None]
    left = budget - stays.sum(1)
    place, number = there.long().cumsum(1) - 1, there.sum(1).clamp(min=1)
    # An even share for each pivot; the first ones take the remainder.
    shares = left[:, None] // number[:, None] + (place < (left % number)[:, None]).long()
    for i in range(pivots.shape[1]):
        share = shares[:, i] * there[:, i]
        kept = kept | top_mask(-alike[:, i], share, visual & ~kept)
    return kept
