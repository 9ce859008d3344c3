"""Merge similar tokens in every block of the vision encoder (bipartite matching).

Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, arXiv 2210.09461.

Rule: between attention and MLP of each block, tokens are split into those at even and at odd
places. Each even token is paired with the odd token whose key (mean over heads) has the largest
cosine. The r most similar pairs become their mean, weighted by the number of patches that each
token stands for. In later blocks, log(size) is added to the attention logits of a key that stands
for `size` patches:

    softmax(q k^T / sqrt(d) + log(size))

where q are queries, k keys, and d is the head width.

The [CLS] token is never merged.

Needs: the keys of every block of the vision encoder.

Cost: one similarity matrix of even x odd keys per block. Later blocks run on fewer tokens, which
saves more than that.

Differences: r follows from `keep` by default, as evenly over the blocks as possible, so that each
crop or frame leaves the vision encoder with exactly its budget.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.ToMe(keep=0.5)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget import Keep, resolve
from foveate.errors import BudgetError, InvalidParameter, UnsupportedCall
from foveate.method import Method, register
from foveate.methods.encoders.base import out_of_reach, view_shares, views_of
from foveate.ops.matching import (
    bipartite_soft_matching,
    kth_bipartite_soft_matching,
    next_merges,
    schedule,
)
from foveate.parts import BlockState, EncodersPart, Widths
from foveate.tokens import Grid


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class ToMe(Method, EncodersPart):
    """Token Merging; the docstring of its module states the rule.

    Attributes:
        keep: tokens that enter the LLM; an int is a count per crop or frame, a float in (0, 1] a
            retention ratio.
        r: merges per block, instead of `keep`: an int for every block, a pair (r, inflection) with
            a float inflection from -1.0 (falling over depth) to 1.0 (rising), or a tuple with one
            count per block.
        kth: instead of `keep`, merge once, in the first block: every patch joins the most similar
            of each kth patch, so that n patches become n // kth. At least 1.
        prop_attn: add log(size) to the attention logits of merged tokens; use False for vision
            encoders that were trained with merging.
    """

    slug = "tome"
    paper = "arXiv 2210.09461"
    even = True

    keep: Keep = 0.5
    r: int | tuple[int, ...] | tuple[int, float] | None = None
    kth: int | None = None
    prop_attn: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.r is not None and min(schedule(self.r, 2)) < 0:
            raise InvalidParameter(f"r={self.r!r} is not valid: use counts of 0 or more.")
        if self.kth is not None and (self.kth < 1 or self.r is not None):
            raise InvalidParameter(
                f"kth={self.kth!r}, r={self.r!r} are not valid: use a kth of 1 or more, and no r "
                "with it."
            )

    @property
    def proportional(self) -> bool:  # type: ignore[override]
        return self.prop_attn

    def shares(self, grid: Grid) -> tuple[int, ...] | None:
        if self.r is not None:
            return None
        if self.kth is None:
            return view_shares(self.keep, grid)
        views = views_of(grid)
        self._groups(max(views))
        return tuple(max(1, n // self.kth) if n else 0 for n in views)

    def count(self, grid: Grid) -> int:
        if self.r is not None:
            raise UnsupportedCall(
                f"With r={self.r!r} the number of tokens depends on the depth of the vision "
                "encoder and is not known in advance; use keep=... instead of r."
            )
        return super().count(grid)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        if self.kth is not None:
            return 2 * keep * (n - keep) * widths.head
        pairs = 0
        for block in range(widths.blocks):
            pairs += (n // 2) * (n - n // 2)
            n -= (n - keep) // (widths.blocks - block)
        return 2 * pairs * widths.head

    def merge(self, block: int, blocks: int, state: BlockState) -> tuple[Tensor, int] | None:
        n = state.hidden.shape[1] - state.class_token - state.distill_token
        if self.kth is not None:
            return self._each_kth(state) if block == 0 and self.kth > 1 else None
        if self.r is not None:
            r = self.merges(blocks)[block]
        else:
            target = resolve(self.keep, state.entered)
            r = next_merges(n, target, blocks - block)
            if r is None:
                raise out_of_reach(self.keep, n, blocks - block)
        assign, count = bipartite_soft_matching(
            state.keys.mean(1), r, state.class_token, state.distill_token
        )
        return None if count == state.hidden.shape[1] else (assign, count)

    def merges(self, blocks: int) -> list[int]:
        """Number of merges in each of `blocks` blocks by `r`."""
        return schedule(self.r or 0, blocks)

    def _groups(self, n: int) -> int:
        """Tokens that `kth` makes of n patches."""
        if self.kth > n:
            raise BudgetError(
                f"kth={self.kth} is out of range: there are {n} patches; use at most {n}."
            )
        return n // self.kth

    def _each_kth(self, state: BlockState) -> tuple[Tensor, int, Tensor]:
        """Merge every patch into the most similar of each kth patch."""
        skip = int(state.class_token) + int(state.distill_token)
        keys, size = state.keys.mean(1)[:, skip:], state.size[:, skip:]
        count = self._groups(keys.shape[1])
        assign, _ = kth_bipartite_soft_matching(keys, self.kth)
        # Patches after the last full group are assigned to its token with weight 0.
        share = size.masked_fill(assign < 0, 0)
        assign = assign.masked_fill(assign < 0, count - 1)
        total = size.new_zeros(len(size), count).scatter_add_(1, assign, share)
        share = share / total.gather(1, assign)
        first = torch.arange(skip, device=assign.device).expand(len(assign), -1)
        return (
            torch.cat([first, assign + skip], 1),
            count + skip,
            torch.cat([share.new_ones(len(share), skip), share], 1),
        )
