"""Prune visual tokens before the LLM by [CLS] attention, summed over late layers of the encoder.

Wang et al., "[CLS] Token Tells Everything Needed for Training-free Efficient MLLMs", 2024, arXiv
2412.05819.

Rule: the score of patch j is its [CLS] attention, summed over the layers l = s .. L - 2 of the L
layers of the vision encoder, counted from 0:

    score_j = sum over l of the mean over heads of softmax(q_cls k^T / sqrt(d))_j

where q_cls is the query of the [CLS] token, k are the keys of layer l, and d is the head width. The
sum over several layers is more stable than one layer, because the [CLS] tokens of different layers
attend to different content. The last layer is left out. Every crop of a tiled image and every frame
keeps the same number of patches. Newline tokens are dropped. Kept tokens stay in reading order.

Needs: [CLS] attention of each of those layers of the vision encoder.

Cost: one [CLS] attention row per layer.

Differences: in vision encoders without a [CLS] token, received attention replaces it. `layer` is
counted from the end, so that the paper's s = 16 of 24 layers fits encoders of any depth.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.VTCCLS(keep=16)):
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

REDUCE = {"sum": Tensor.sum, "mean": Tensor.mean, "max": Tensor.amax, "min": Tensor.amin}


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class VTCCLS(ScoredTokens):
    """VTC-CLS; the docstring of its module states the rule.

    Attributes:
        layer: s, the first layer of the slice [s : -1] of the vision encoder; -8 is layer 16 of 24.
        reduce_layers: how scores of layers are combined: "sum", "mean", "max" or "min".
    """

    slug = "vtc_cls"
    paper = "arXiv 2412.05819"
    drops_special = True
    per_view = True

    keep: Keep = 0.25
    layer: int = -8
    reduce_layers: Literal["sum", "mean", "max", "min"] = "sum"

    @property
    def needs(self) -> tuple[Need, ...]:
        return (VisionAttention(layer=(self.layer, -1)),)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.tower * len(range(widths.blocks)[self.layer : -1])

    def score(self, attention: Tensor) -> Tensor:
        """Scores (B, N) from the attention (B, L, H, N) of the layers in the slice."""
        return REDUCE[self.reduce_layers](attention.mean(2), 1)

    def scores(self, tokens: VisualTokens, signals: Signals) -> Tensor:
        return self.score(signals[self.needs[0]])
