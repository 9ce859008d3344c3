"""Measure which heads attend to images, for YOPO's `headmask`.

measure = HeadRatios()
with foveate.attach(model, measure):
    for inputs in samples:
        model(**inputs)
method = foveate.YOPO(headmask=measure.mask(threshold=0.2))
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from foveate.attention_call import Attend, AttentionCall
from foveate.method import Method
from foveate.parts import RulePart

# Query rows whose attention is computed at a time.
BLOCK = 128


@dataclass(frozen=True, kw_only=True, repr=False)
class HeadRatios(Method, RulePart):
    """Measure which heads attend to images while prompts run; the output does not change.

    For every head: the attention that visual keys receive, divided by what all other keys receive.
    """

    slug = "head_ratios"
    reduces = False

    found: list[Tensor] = field(default_factory=list, compare=False)

    def ratios(self) -> Tensor:
        """(S, L, H) of the S prompts so far, L layers and H heads."""
        return torch.cat(self.found, 0)

    def mask(
        self, threshold: float, votes: int = 40, first: int = 2
    ) -> tuple[tuple[int, ...], ...]:
        """Heads to keep, 1, and to mask, 0, by layer: YOPO's `headmask`.

        Args:
            threshold: ratio above which a sample votes for a head.
            votes: a head is kept where more samples than this vote for it. 0, with one sample up to
                the first decoded token, is the rule of the other released models.
            first: number of first layers that keep all heads.
        """
        stays = (self.ratios() > threshold).sum(0) > votes
        stays[:first] = True
        return tuple(map(tuple, stays.int().tolist()))

    def attend(self, call: AttentionCall, proceed: Attend) -> Tensor:
        if call.prefill:
            if call.layer == 0:
                shape = (len(call.query), call.layers, call.query.shape[1])
                self.found.append(torch.zeros(shape, device=call.query.device))
            self.found[-1][:, call.layer] = _ratio(call)
        return proceed(call)


def _ratio(call: AttentionCall) -> Tensor:
    """Ratio (B, H) of one call, some rows at a time."""
    b, heads, n, _ = call.query.shape
    key = call.key.repeat_interleave(heads // call.key.shape[1], 1)
    total = torch.zeros(b, heads, key.shape[2], device=key.device)
    for block in torch.arange(n, device=key.device).split(BLOCK):
        part = call.rows(block.expand(b, -1))
        logits = (part.query @ key.mT).float() * part.scaling
        seen = logits.masked_fill(~part.seen(), float("-inf")).softmax(-1)
        total += (seen * part.queries.valid[:, None, :, None]).sum(2)
    visual = call.keys.visual[:, None]
    return (total * visual).sum(-1) / (total * ~visual).sum(-1)
