"""Prune visual tokens before the LLM: keep every n-th patch in reading order (baseline).

A baseline without a paper: a content-aware method should beat it.

Rule: of the n patches in reading order, keep those at the middles of k equal runs:

    floor((2 i + 1) n / 2 k), i = 0 .. k - 1

Newline tokens are dropped.

Needs: nothing besides the tokens.

Cost: none.

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
    """Evenly spaced pruning; it has no parameters of its own."""

    slug = "uniform"
    drops_special = True

    keep: Keep = 0.25

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        n = max(tokens.extent().patches, keep)
        middle = (torch.arange(keep, device=tokens.features.device) * 2 + 1) * n // (2 * keep)
        patches_first = tokens.special.long().argsort(dim=1, stable=True)
        return patches_first[:, middle]
