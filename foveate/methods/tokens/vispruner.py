"""Prune visual tokens before the LLM: half by highest [CLS] attention, half by lowest similarity.

Zhang et al., "Beyond Text-Visual Attention: Exploiting Visual Cues for Effective Token Pruning in
VLMs", ICCV 2025, arXiv 2412.01818.

Rule: T tokens are kept of a crop or frame, and r is `important_ratio`. The int(T r) patches with
the highest [CLS] attention, mean over heads, are kept as important tokens. The other patches are
reduced to T - int(T r) diverse tokens in rounds. The first round sorts them by attention, highest
first, and splits the list into even and odd places. Each patch i at an even place is compared with
those at odd places:

    similarity_i = max over odd j of cos(x_i, x_j)

where x are the features before the projector. The 8 (`round_size`) most similar even patches are
dropped. The next round splits the remaining even patches, most similar first, followed by the odd
ones. Crops and frames share the budget evenly. Newline tokens are dropped. Kept tokens stay in
reading order.

Needs: [CLS] attention of the encoder block whose output the projector reads, and the features
before the projector.

Cost: the [CLS] attention row of that block, and one similarity matrix of all pairs of patches.

Differences: lists of odd length, on which the official code fails, are split, and a round removes
at most the smaller half. In vision encoders without a [CLS] token, received attention replaces it.

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
from foveate.ops.farthest import BLOCK, PAIRS, gram
from foveate.parts import Widths
from foveate.signals import Need, ProjectorInput, Signals, VisionAttention
from foveate.tokens import VisualTokens

NEAREST = 32


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class VisPruner(TokensMethod):
    """VisPruner; the docstring of its module states the rule.

    Attributes:
        keep: tokens that enter the LLM; an int is a count per image or video, a float in (0, 1] a
            retention ratio. The default is 128 of 576.
        important_ratio: r, the share of the budget that is selected by attention, in [0, 1].
        round_size: tokens that one round removes, at least 1.
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
                f"important_ratio={self.important_ratio!r} is not valid: use a ratio from 0 to 1."
            )
        if not self.round_size >= 1:
            raise InvalidParameter(f"round_size={self.round_size!r} is not valid: use 1 or more.")

    @property
    def needs(self) -> tuple[Need, ...]:
        return (VisionAttention(), ProjectorInput())

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.tower + n * n * widths.tower * (self.important_ratio < 1)

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        score, x = signals[VisionAttention()].mean(1), signals[ProjectorInput()]
        signals.record(score)
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
    """The k (B, k) of the indices `left` (B, R) into x (B, N, C) that remain after all rounds."""
    if len(x) > 1 and x.shape[1] ** 2 > PAIRS:
        rows = zip(x.split(1), left.split(1), strict=True)
        return torch.cat([unlike(own, some, k, round_size) for own, some in rows])
    near = Nearest(normalize(x.float(), dim=-1))
    while (m := min(round_size, left.shape[1] - k, left.shape[1] // 2)) > 0:
        even, odd = left[:, ::2], left[:, 1::2]
        order = near.twins(even, odd).argsort(dim=1, descending=True, stable=True)[:, m:]
        left = torch.cat([even.gather(1, order), odd], 1)
    return left[:, :k]


class Nearest:
    """For each of some tokens the most similar of others, in x (B, N, C) with rows of length 1.

    All pairs (B, N, N) are stored; for too many tokens, only the nearest ones of each.
    """

    def __init__(self, x: Tensor):
        self.x, self.most = x, min(NEAREST, x.shape[1])
        self.alike = gram(x) if x.shape[1] ** 2 <= PAIRS else None
        # Finding the rows to recompute would sync with the GPU in every round.
        self.whole = x.is_cuda and self.alike is not None
        if not self.whole:
            step = max(1, BLOCK // (len(x) * x.shape[1]))
            blocks = (x[:, i : i + step] @ x.mT for i in range(0, x.shape[1], step))
            blocks = blocks if self.alike is None else self.alike.split(step, 1)
            found = [block.topk(self.most, dim=2) for block in blocks]
            self.value, self.near = (torch.cat(parts, 1) for parts in zip(*found, strict=True))

    def twins(self, even: Tensor, odd: Tensor) -> Tensor:
        """The largest cosine (B, E) of each of `even` (B, E) with one of `odd` (B, O)."""
        rows = torch.arange(len(even), device=even.device)[:, None]
        is_odd = torch.zeros(self.x.shape[:2], dtype=torch.bool, device=even.device)
        is_odd.scatter_(1, odd, True)
        if self.whole:
            step = max(1, BLOCK // (len(even) * self.x.shape[1]))
            parts = (
                block.masked_fill(~is_odd[:, None], float("-inf")).amax(2)
                for block in self.alike.split(step, 1)
            )
            return torch.cat([*parts], 1).gather(1, even)
        # One of the nearest is nearly always odd; then no row is recomputed.
        other = is_odd[rows[..., None], self.near[rows, even]]
        twin = self.value[rows, even].masked_fill(~other, float("-inf")).amax(2)
        row, place = (~other.any(2)).nonzero(as_tuple=True)
        own = even[row, place]
        far = self.x[0, own] @ self.x[0].mT if self.alike is None else self.alike[row, own]
        twin[row, place] = far.masked_fill(~is_odd[row], float("-inf")).amax(1)
        return twin
