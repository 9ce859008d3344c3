"""Prune inside the LLM in stages, by how layers change each token and by attention from the text.

Li et al., "TransPrune: Token Transition Pruning for Efficient Large Vision-Language Model", CVPR
2026, arXiv 2507.20630.

Rule: a_t and b_t are input and output of the attention, or of the MLP, of a layer for token t. The
transition of the token there is

    |b_t| / |a_t| softmax over t of (1 - cos(a_t, b_t))

TTV is its sum over attention and MLP and over a window of layers. IGA is the mean attention from
the text after the image, with the queries and keys of the pruning layer. Before each pruning layer
the tokens are ranked by

    alpha TTV + (1 - alpha) IGA

both normalised to sum 1 over the visual tokens. Of the n tokens that entered the LLM, floor(n r_s)
are kept from the s-th pruning layer on; the ratios r_s follow from `keep`. Positions are renumbered
at each of these layers.

Needs: inputs and outputs of attention and MLP of the LLM layers in the window; queries and keys of
each pruning layer.

Cost: projections of queries and keys at each pruning layer, and norms and cosines in the window.

Differences: every row of a batch has its own softmax, where the official code shares one. The
direction in the paper is 1 - |cos| over visual tokens: direction="abs", softmax_over="visual". In a
layer that normalises the outputs of attention and MLP, the transition is taken before that norm.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.TransPrune(keep=0.5)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Literal

import torch
from torch import Tensor

from foveate.budget import MEAN_OVER_LAYERS, Keep
from foveate.errors import InvalidParameter
from foveate.method import Method, register
from foveate.methods.layers.base import ScoredLayers, instruction_rows, ratios_of_share
from foveate.methods.layers.staircase import check_depth, check_staircase, staged_counts
from foveate.ops.attention import paid
from foveate.parts import BoundaryState, Widths
from foveate.signals import DecoderTransition, Need

NAMES = ("pruning_layer_list", "image_token_ratio_list")
# The paper's stages, for 32 layers.
BOUNDARIES, RATIOS, DEPTH = (7, 9, 12), (0.875, 0.625, 0.125), 32


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class TransPrune(Method, ScoredLayers):
    """TransPrune; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers, from which the ratios follow; an int is a count per image or
            video, a float in (0, 1] a retention ratio. The default gives the paper's ratios at 32
            layers.
        pruning_layer_list: ascending 0-based layers before which tokens are pruned, from 1 on; None
            scales the paper's 7, 9, 12 of 32 with the depth.
        accumulating_layer_list: layers, counted from 1, whose transitions are summed; None is from
            the first pruning layer to the last.
        image_token_ratio_list: retention ratio from each pruning layer on, falling, instead of
            `keep`.
        alpha: weight of the transitions, in [0, 1]; 1 - alpha is the weight of the attention.
        use_iga: False leaves the attention from text out.
        direction: "signed" uses 1 - cos, "abs" uses 1 - |cos|.
        softmax_over: tokens of the softmax: "all" or "visual".
        eps: added to sums before a division, above 0.
    """

    slug = "transprune"
    paper = "arXiv 2507.20630"
    prompt_agnostic = False
    keep_means = MEAN_OVER_LAYERS

    keep: Keep = 0.41015625
    pruning_layer_list: tuple[int, ...] | None = None
    accumulating_layer_list: tuple[int, ...] | None = None
    image_token_ratio_list: tuple[float, ...] | None = None
    alpha: float = 0.5
    use_iga: bool = True
    direction: Literal["signed", "abs"] = "signed"
    softmax_over: Literal["all", "visual"] = "all"
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_staircase(self.pruning_layer_list, self.image_token_ratio_list, *NAMES)
        if self.accumulating_layer_list is not None:
            check_staircase(self.accumulating_layer_list, None, "accumulating_layer_list")
        if not 0 <= self.alpha <= 1 or not self.eps > 0:
            raise InvalidParameter(
                f"alpha={self.alpha}, eps={self.eps} are not valid: use 0 <= alpha <= 1 and eps > "
                "0."
            )

    def boundaries(self, layers: int) -> tuple[int, ...]:
        stages = self.pruning_layer_list
        stages = tuple(_scaled(layers)) if stages is None else stages
        check_depth(stages, self.image_token_ratio_list, layers, *NAMES)
        return stages

    def window(self, layers: int) -> tuple[int, ...]:
        """0-based layers whose transitions are summed."""
        stages, counts = self.boundaries(layers), self.accumulating_layer_list
        if counts is None:
            return tuple(range(stages[0] - 1, stages[-1])) if stages else ()
        if stages and not counts[0] <= stages[0]:
            raise InvalidParameter(
                f"accumulating_layer_list={counts} starts after layer {stages[0]}, the first at "
                f"which tokens are pruned; start at {stages[0]} or earlier."
            )
        return tuple(n - 1 for n in counts if stages and n <= stages[-1])

    def needs_in(self, layers: int) -> tuple[Need, ...]:
        return tuple(DecoderTransition(layer) for layer in self.window(layers))

    def ratios(self, layers: int, share: float) -> tuple[float, ...]:
        """Retention ratio from each stage on for a mean of `share`."""
        if self.image_token_ratio_list is not None:
            return self.image_token_ratio_list
        stages = self.boundaries(layers)
        powers = tuple(_scaled(DEPTH if len(stages) == len(RATIOS) else layers).values())
        powers = powers if len(powers) == len(stages) else None
        return ratios_of_share(share, stages, layers, powers)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * (widths.model + widths.keys) * widths.model if self.use_iga else 0

    def counts(self, k: int, layers: int, state: BoundaryState) -> list[int]:
        stage = self.boundaries(layers).index(k)
        return staged_counts(state, self.keep, lambda share: self.ratios(layers, share)[stage])

    def scores(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        seen = [self._ttv(n, state) for n in self.window(layers) if n < k]
        score = self._share(torch.stack(seen).sum(0), state)
        if not self.use_iga:
            return score
        iga = self._share(paid(state.heads(), *instruction_rows(state)), state)
        return self.alpha * score + (1 - self.alpha) * iga

    def _ttv(self, layer: int, state: BoundaryState) -> Tensor:
        """Transition (B, N) of every column in one layer."""
        among = state.visual if self.softmax_over == "visual" else state.valid
        ratio, cosine = state.signals[DecoderTransition(layer)].unbind(-1)
        cosine = cosine.abs() if self.direction == "abs" else cosine
        turned = (1 - cosine).exp().masked_fill(~among[:, None], 0)
        # Stored, because later stages no longer hold all columns of this layer.
        total = state.notes.setdefault(f"layer {layer}", turned.sum(-1, keepdim=True))
        return (ratio * turned / total.clamp(min=self.eps)).sum(1)

    def _share(self, x: Tensor, state: BoundaryState) -> Tensor:
        x = x.masked_fill(~state.visual, 0)
        return x / (x.sum(1, keepdim=True) + self.eps)


def _scaled(layers: int) -> dict[int, float]:
    """The paper's stages in a decoder of `layers` layers, and the power of 1/2 from each on.

    Where two of them coincide in a shallow decoder, the later one is used.
    """
    placed = {
        max(1, round(k * layers / DEPTH)): -log2(r) for k, r in zip(BOUNDARIES, RATIOS, strict=True)
    }
    return {k: power for k, power in placed.items() if k < layers}
