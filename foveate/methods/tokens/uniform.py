"""Uniform: keep every so-many-th patch, because spreading evenly needs no knowledge at all.

A baseline without a paper: what any choice of tokens by content has to beat.

Kept = patches number floor((2 i + 1) n / 2 k) of the n in reading order, i = 0 .. k - 1: the
middles of k equal runs. Newlines are dropped.

Needs nothing. Cost: none.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.Uniform(keep=0.25)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget import Keep
from foveate.method import register
from foveate.methods.tokens.base import TokensMethod
from foveate.signals import Signals
from foveate.tokens import VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class Uniform(TokensMethod):
    """No parameters besides the budget."""

    slug = "uniform"
    drops_special = True

    keep: Keep = 0.25

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        n = max(tokens.extent().patches, keep)
        middle = (torch.arange(keep, device=tokens.features.device) * 2 + 1) * n // (2 * keep)
        patches_first = tokens.special.long().argsort(dim=1, stable=True)
        return patches_first[:, middle]
