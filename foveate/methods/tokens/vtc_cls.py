"""VTC-CLS: keep the patches that the class token attends to most, summed over late vision layers.

Wang et al., "[CLS] Token Tells Everything Needed for Training-free Efficient MLLMs", 2024, arXiv
2412.05819.

Score of patch j = sum over vision layers l = s ... L - 2 of the mean over heads of
softmax(q_cls k^T / sqrt(d))_j: an ensemble over depth, steadier than one layer, because the class
tokens of different layers look at different content. The last layer never counts. Every crop of a
tiled picture and every frame keeps the same number; newlines are dropped; reading order stays.

Needs one row of attention in each of those layers. Cost: one query row per layer.
Departs from the official code where a tower has no class token: the attention that patches receive
stands in. `layer` counts from the end, so that s = 16 of 24 layers fits towers of any depth.

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
from foveate.methods.tokens.base import TokensMethod
from foveate.ops.allocate import per_view_top_k
from foveate.parts import Widths
from foveate.signals import Need, Signals, VisionAttention
from foveate.tokens import VisualTokens

REDUCE = {"sum": Tensor.sum, "mean": Tensor.mean, "max": Tensor.amax, "min": Tensor.amin}


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class VTCCLS(TokensMethod):
    """layer: first vision layer s of the slice [s : -1]; -8 is layer 16 of 24.

    reduce: "sum", "mean", "max" or "min" over layers.
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

    def select(self, tokens: VisualTokens, signals: Signals, keep: int) -> Tensor:
        return per_view_top_k(self.score(signals[self.needs[0]]), tokens.by_view(), keep)
