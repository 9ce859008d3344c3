"""Prune visual tokens before the LLM: keep those with the highest [CLS] attention.

Zhang et al., "[CLS] Attention is All You Need for Training-Free Visual Token Pruning: Make VLM
Inference Faster", 2024, arXiv 2412.01818.

Rule: the score of patch j is its [CLS] attention in the block of the vision encoder whose output
the projector reads, mean over heads:

    score_j = mean over heads of softmax(q_cls k^T / sqrt(d))_j

where q_cls is the query of the [CLS] token, k are the keys, and d is the head width. Every crop of
a tiled image and every frame keeps the same number of patches. Newline tokens are dropped. Kept
tokens stay in reading order.

Needs: [CLS] attention of one block of the vision encoder.

Cost: the [CLS] attention row of one block; where received attention replaces it, the whole
attention map of that block, in chunks of rows.

Differences: in vision encoders without a [CLS] token, the mean attention that a patch receives from
all others replaces it (`score="received"`), as the authors advise.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.FasterVLM(keep=0.25)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from foveate.budget import Keep
from foveate.method import register
from foveate.methods.tokens.base import ScoredTokens
from foveate.parts import Widths
from foveate.signals import Need, Signals, VisionAttention
from foveate.tokens import VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class FasterVLM(ScoredTokens):
    """FasterVLM; the docstring of its module states the rule.

    Attributes:
        score: "cls" for [CLS] attention, "received" for the attention that a patch receives, "auto"
            for "cls" where the vision encoder has a [CLS] token and "received" elsewhere.
    """

    slug = "fastervlm"
    paper = "arXiv 2412.01818"
    drops_special = True
    per_view = True

    keep: Keep = 0.25
    score: Literal["cls", "received", "auto"] = "auto"

    @property
    def needs(self) -> tuple[Need, ...]:
        return (VisionAttention(rows=self.score),)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.tower * (n if self.score == "received" else 1)

    def scores(self, tokens: VisualTokens, signals: Signals) -> Tensor:
        return signals[self.needs[0]].mean(1)
