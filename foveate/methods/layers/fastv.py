"""Prune visual tokens once inside the LLM: keep those with the highest last-token attention.

Chen et al., "An Image is Worth 1/2 Tokens After Layer 2: Plug-and-Play Inference Acceleration for
Large Vision-Language Models", ECCV 2024, arXiv 2403.06764.

Rule: the score of visual token j is the attention A_{last, j} that the last prompt token pays it in
LLM layer k - 1:

    score_j = mean over heads of A_{last, j}

The `keep` tokens with the largest scores are kept from layer k on, at their original positions. All
visual tokens of a sample are ranked together. k = 0 keeps a random subset.

Needs: one row of attention in LLM layer k - 1.

Cost: one row of attention.

Differences: with several images in a sample, the official code ranks those of the first one only.

Notes: the method is known to favour tokens late in the prompt, which is the lower part of an image.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.FastV(keep=0.5, k=1)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget import FROM_LAYER, Keep
from foveate.errors import InvalidParameter
from foveate.method import Method, register
from foveate.methods.layers.base import ScoredLayers, beyond_depth
from foveate.ops.transfer import on_device
from foveate.parts import BoundaryState, Widths
from foveate.signals import DecoderAttention, Need


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class FastV(Method, ScoredLayers):
    """FastV; the docstring of its module states the rule.

    Attributes:
        keep: tokens from LLM layer k on; an int is a count per image or video, a float in (0, 1] a
            retention ratio, 1 - R of the paper.
        k: the first LLM layer with fewer tokens, 0-based; 0 keeps a random subset.
        seed: seed of the random subset at k = 0.
    """

    slug = "fastv"
    paper = "arXiv 2403.06764"
    prompt_agnostic = False
    keep_means = FROM_LAYER

    keep: Keep = 0.5
    positions: str = "original"
    k: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.k >= 0:
            raise InvalidParameter(f"k={self.k!r} is not a decoder layer: use 0 or more.")

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DecoderAttention(layer=self.k - 1),) if self.k else ()

    def boundaries(self, layers: int) -> tuple[int, ...]:
        if self.k >= layers:
            raise beyond_depth("k", self.k, layers)
        return (self.k,)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.model

    def scores(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        if self.k:
            return state.signals[self.needs[0]].mean(1)
        # By rank among the visual tokens, so that the draw does not depend on the batch.
        generator = torch.Generator().manual_seed(self.seed)
        draw = torch.rand(state.visual.shape[1], generator=generator)
        rank = state.visual.long().cumsum(1).sub(1).clamp(min=0)
        return on_device(draw, rank.device)[rank]
