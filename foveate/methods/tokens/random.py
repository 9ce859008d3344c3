"""Prune visual tokens before the LLM: keep a random subset (baseline).

A baseline without a paper: "random" is in the tables of most papers on visual token pruning.

Rule: keep the k patches j with the largest u_j, where u_j is uniform in [0, 1) and drawn for every
image or video. Newline tokens are dropped. Kept tokens stay in reading order.

Needs: nothing besides the tokens.

Cost: one random number per token.

Notes: the draw depends only on the seed and on the image. There is no global random state, and an
image keeps the same tokens in a batch as alone.

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
from foveate.methods.tokens.base import ScoredTokens
from foveate.ops.draws import draws
from foveate.signals import Signals
from foveate.tokens import VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class Random(ScoredTokens):
    """Random pruning.

    Attributes:
        seed: seed of the draw, any int; another seed keeps another subset.
    """

    slug = "random"
    drops_special = True

    keep: Keep = 0.25
    seed: int = 0

    def scores(self, tokens: VisualTokens, signals: Signals) -> Tensor:
        signs = tokens.features.float().mean(1) > 0
        # Seeded with the signs of the image's mean features, without a host sync.
        marks = draws(torch.arange(signs.shape[1], device=signs.device), self.seed)
        picture = (signs * (marks * 2**31).long()).sum(1, keepdim=True)
        steps = torch.arange(tokens.n, device=signs.device)
        return draws(picture + steps, self.seed)
