"""VisPruner: keep half of the budget for attended patches, half for patches unlike each other.

Zhang et al., "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in
VLMs", ICCV 2025, arXiv 2412.01818.

Important: the int(T r) patches of largest class attention, mean over heads. Diverse: the others,
best first, are split into even and odd places; the 8 even ones with the largest
max_j cos(x_i, x_j) to an odd one go; what stays, most similar first, then the odd ones, is split
again, until T - int(T r) are left. x are features before the projector. Reading order stays.

Needs attention of the block that the projector reads, and the projector's input. Cost: one query
row, half of X X^T once. Crops and frames share the budget evenly; newlines are dropped.
Departs from the official code where that fails: lists of odd length are split, and a round removes
at most the smaller half. Where a tower has no class token received attention stands in.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.VisPruner(keep=16)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from foveate.budget import Keep
from foveate.errors import InvalidParameter
from foveate.method import register
from foveate.methods.tokens.base import TokensMethod
from foveate.ops.allocate import share_evenly, view_batches
from foveate.ops.farthest import gram
from foveate.parts import Widths
from foveate.signals import Need, ProjectorInput, Signals, VisionAttention
from foveate.tokens import VisualTokens

NEAREST = 32


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class VisPruner(TokensMethod):
    """keep: 128 of 576 by default. important_ratio: r, the attended share.

    round_size: patches removed between two splits.
    """

    slug = "vispruner"
    paper = "arXiv 2412.01818"
    drops_special = True
    per_view = True

    keep: Keep = 0.2222
    important_ratio: float = 0.5
    round_size: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.important_ratio <= 1:
            raise InvalidParameter(
                f"important_ratio={self.important_ratio!r} is no share; use 0 to 1."
            )
        if not self.round_size >= 1:
            raise InvalidParameter(f"round_size={self.round_size!r} is too few; use 1 or more.")

    @property
    def needs(self) -> tuple[Need, ...]:
        return (VisionAttention(), ProjectorInput())

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.tower + n * n * widths.tower * (self.important_ratio < 1)

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        score, x = signals[VisionAttention()].mean(1), signals[ProjectorInput()]
        members, picks = tokens.by_view(), []
        for _, slots, share in view_batches(members, share_evenly(keep, list(map(len, members)))):
            local = self._pick(score[:, slots].flatten(0, 1), x[:, slots].flatten(0, 1), share)
            picks.append(slots.repeat(len(x), 1).gather(1, local).view(len(x), -1))
        return torch.cat(picks, 1).sort(1).values

    def _pick(self, score: Tensor, x: Tensor, keep: int) -> Tensor:
        """Indices (B, keep) in one view each: score (B, N), x (B, N, C)."""
        important = int(keep * self.important_ratio)
        order = score.argsort(dim=1, descending=True, stable=True)
        best, rest = order[:, :important], order[:, important:]
        if keep == important:
            return best
        return torch.cat([best, unlike(x, rest, keep - important, self.round_size)], 1)


def unlike(x: Tensor, left: Tensor, k: int, round_size: int) -> Tensor:
    """The k (B, k) of the indices `left` (B, R) into x (B, N, C) that survive rounds of removal."""
    alike = gram(normalize(x.float(), dim=-1))
    rows = torch.arange(len(x), device=x.device)[:, None]
    if not x.is_cuda:
        # Most often one of the nearest is among the odd ones, and no row has to be read again.
        value, near = alike.topk(min(NEAREST, x.shape[1]), dim=2)
    while (m := min(round_size, left.shape[1] - k, left.shape[1] // 2)) > 0:
        even, odd = left[:, ::2], left[:, 1::2]
        is_odd = torch.zeros(alike.shape[:2], dtype=torch.bool, device=x.device)
        is_odd.scatter_(1, odd, True)
        if x.is_cuda:
            # To find the rows where none is would stop a GPU in every round.
            twin = alike.masked_fill(~is_odd[:, None], float("-inf")).amax(2).gather(1, even)
        else:
            other = is_odd[rows[..., None], near[rows, even]]
            twin = value[rows, even].masked_fill(~other, float("-inf")).amax(2)
            row, place = (~other.any(2)).nonzero(as_tuple=True)
            far = alike[row, even[row, place]].masked_fill(~is_odd[row], float("-inf"))
            twin[row, place] = far.amax(1)
        order = twin.argsort(dim=1, descending=True, stable=True)[:, m:]
        left = torch.cat([even.gather(1, order), odd], 1)
    return left[:, :k]
