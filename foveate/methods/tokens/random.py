"""Random: keep patches drawn at random, because every rule must at least beat chance.

A baseline without a paper: "random" stands in the tables of most papers on visual tokens.

Kept = the k patches with the largest u_j, u_j uniform in [0, 1) and drawn for every item anew.
Newlines are dropped; kept tokens stay in reading order.

Needs nothing. Cost: one random number per token. The draw depends on the seed and on the picture
alone: no global random state, and a picture in a batch keeps what it keeps by itself.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.Random(keep=0.25, seed=1)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget import Keep
from foveate.method import register
from foveate.methods.tokens.base import TokensMethod
from foveate.ops.draws import draws
from foveate.ops.select import top_k
from foveate.signals import Signals
from foveate.tokens import VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class Random(TokensMethod):
    """seed: another seed draws anew."""

    slug = "random"
    drops_special = True

    keep: Keep = 0.25
    seed: int = 0

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        signs = tokens.features.float().mean(1) > 0
        # The signs of its mean feature tell a picture from others; the host doesn't wait for them.
        marks = draws(torch.arange(signs.shape[1], device=signs.device), self.seed)
        picture = (signs * (marks * 2**31).long()).sum(1, keepdim=True)
        steps = torch.arange(tokens.n, device=signs.device)
        return top_k(draws(picture + steps, self.seed), keep, tokens.patch)
