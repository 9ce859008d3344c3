"""Keep the patches with the highest [CLS] attention before the LLM; merge all others into a few.

Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language Models", CVPR 2025,
arXiv 2412.04467.

Rule: dominant tokens are the [CLS] token and the patches with the highest [CLS] attention, summed
over heads (received attention where the encoder has no [CLS] token). m patches remain. They are
merged into c contextual tokens: of the m patches in reading order every s-th is a target, s =
floor(m / c), and each other patch joins the target whose key has the largest cosine to its own:

    contextual = x_target + mean(x_joined)

x are the features before the projector: merging runs on them, and the projector follows. `keep`
counts all tokens that are passed on: the [CLS] token, the other dominant tokens and the contextual
tokens. Crops and frames share it evenly. Newline tokens are dropped.

Order: [CLS] token, dominant tokens in reading order, contextual tokens. For a tiled image: its
overview in this order, then the dominant patches of all crops in the order of the stitched image,
their [CLS] tokens, their contextual tokens.

Needs: [CLS] attention and keys of the encoder block whose output the projector reads, and the
features before the projector.

Cost: the [CLS] attention row of that block, and one similarity matrix of patches x targets (cosines
of keys).

Differences: in vision encoders without a [CLS] token, patches are ranked by received attention, and
no [CLS] token is passed on. The official code appends one newline token to an image that is encoded
as a single crop; here newline tokens are dropped in this case too.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.VisionZip(keep=16, contextual=2)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget import Keep
from foveate.errors import BudgetError, InvalidParameter
from foveate.method import register
from foveate.methods.tokens.base import TokensMethod
from foveate.ops.allocate import share_evenly, view_batches
from foveate.ops.contextual import dominant_contextual, joining_weights
from foveate.ops.gather import rows_at, rows_summed
from foveate.ops.tiles import is_stitched
from foveate.ops.transfer import on_device
from foveate.parts import Widths
from foveate.signals import ClassState, Need, ProjectorInput, Signals, VisionAttention, VisionKeys
from foveate.tokens import Grid, VisualTokens

CLASS, DOMINANT, CONTEXTUAL = range(3)
CONTEXTUAL_SHARE = 10 / 64


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class VisionZip(TokensMethod):
    """VisionZip; the docstring of its module states the rule.

    Attributes:
        keep: tokens that enter the LLM, the [CLS] token and contextual tokens included; an int is a
            count per image or video, a float in (0, 1] a retention ratio.
        contextual: merged tokens of each crop or frame, 0 or more; None is 10 of every 64 tokens of
            its budget.
        mean_preserving: True makes a contextual token the mean of all its members; False is the
            official sum of target and mean, which about doubles its norm.
    """

    slug = "visionzip"
    paper = "arXiv 2412.04467"
    drops_special = True
    per_view = True

    keep: Keep = 64
    contextual: int | None = None
    mean_preserving: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contextual is not None and not self.contextual >= 0:
            raise InvalidParameter(
                f"contextual={self.contextual!r} is not valid: use 0 or more, or None."
            )

    @property
    def needs(self) -> tuple[Need, ...]:
        return (VisionAttention(), VisionKeys(), ProjectorInput(), ClassState())

    def count(self, grid: Grid) -> int:
        n = super().count(grid)
        if n < grid.n:
            for share in share_evenly(n, grid.views or (grid.patches,)):
                if 0 < share <= self._contextual(share):
                    raise BudgetError(
                        f"contextual={self.contextual} leaves no dominant token in a budget of "
                        f"{share} per crop or frame; use contextual={share - 1} or a larger keep."
                    )
        return n

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.tower + 2 * n * self._contextual(keep) * widths.head

    def reduce(self, tokens: VisualTokens, signals: Signals, keep: int) -> VisualTokens:
        score = signals[VisionAttention()].sum(1)
        signals.record(score)
        keys = signals[VisionKeys()].mean(1)
        rows, states = signals[ProjectorInput()], signals[ClassState()]
        b = len(rows)
        assign = torch.full((b, tokens.n), -1, device=rows.device)
        slots, merged, view, role = [], [], [], []
        members = tokens.by_view()
        for numbers, own, share in view_batches(
            members, share_evenly(keep, list(map(len, members)))
        ):
            contextual = self._contextual(share)
            dominant = share - contextual - (states is not None)
            group, at, vectors = compress(
                *(x[:, own].flatten(0, 1) for x in (rows, score, keys)),
                dominant=dominant,
                contextual=contextual,
                mean_preserving=self.mean_preserving,
            )
            made = len(role) + torch.arange(len(own), device=own.device)[:, None] * at.shape[1]
            group = group.view(b, *own.shape)
            assign[:, own] = torch.where(group < 0, group, group + made)
            slots.append(own.expand(b, -1, -1).gather(2, at.view(b, len(own), -1)).flatten(1))
            merged.append(vectors.reshape(b, -1, vectors.shape[-1]))
            view += [number for number in numbers for _ in range(at.shape[1])]
            role += ([DOMINANT] * dominant + [CONTEXTUAL] * contextual) * len(own)
        at = torch.cat(slots, 1)
        features = rows_at(tokens.features, at)
        contextual = [i for i, r in enumerate(role) if r == CONTEXTUAL]
        if contextual:
            features[:, on_device(contextual, at.device)] = signals.project(
                torch.cat(merged, 1)
            ).to(features.dtype)
        out = tokens.merge(assign, len(role), features, at)
        if states is not None:
            held = [number for number, slots in enumerate(members) if len(slots)]
            out = out.add(signals.project(states[:, on_device(held, at.device)]))
            view, role = view + held, role + [CLASS] * len(held)
        return out.take(reading_order(out.index, view, role, is_stitched(tokens.grid)))

    def _contextual(self, share: int) -> int:
        return round(share * CONTEXTUAL_SHARE) if self.contextual is None else self.contextual


def compress(
    x: Tensor,
    score: Tensor,
    keys: Tensor,
    dominant: int,
    contextual: int,
    mean_preserving: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Dominant and contextual tokens of one view each: x (B, N, C), score (B, N), keys (B, N, d).

    Returns for every patch the new token that holds it (B, N), -1 for none, dominant ones first;
    for every new token its patch (B, K); and the contextual vectors (B, K - dominant, C).
    """
    group, at = dominant_contextual(score, keys, dominant, contextual)
    weighted = x.float() * joining_weights(group, at, mean_preserving)[..., None]
    total = rows_summed(weighted, group, at.shape[1])
    return group, at, total[:, dominant:].to(x.dtype)


def reading_order(slot: Tensor, view: Sequence[int], role: Sequence[int], stitched: bool) -> Tensor:
    """The order (B, M) in which the LLM reads new tokens whose patches are `slot` (B, M)."""
    views, roles = on_device([view, role], slot.device)
    zone, within = views * 3 + roles, slot.clamp(min=0)
    if stitched:
        crops = on_device([4, 3, 5], slot.device)[roles]
        zone = torch.where(views > 0, crops, roles)
        within = torch.where(roles == DOMINANT, slot, views)
    return (zone * (slot.amax() + len(view) + 1) + within).argsort(dim=1, stable=True)
