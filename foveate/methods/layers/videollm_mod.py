"""Mixture of depths: every second LLM layer processes only the top-scored visual tokens per frame.

Wu et al., "VideoLLM-MoD: Efficient Video-Language Streaming with Mixture-of-Depths Vision
Computation", NeurIPS 2024, arXiv 2408.16730.

Rule: a mixture-of-depths (MoD) layer has a learned router w, one linear map without bias. It scores
each visual token by its hidden state x: r = w . x. Of the n tokens of each frame, the max(1,
round(keep_ratio n)) with the largest r run through the layer together with all text:

    x + r (layer(x) - x)

The other tokens skip the layer unchanged, are not in its KV cache, and may be selected again in a
later layer. An image is one frame. Each frame selects its own tokens, so that later frames do not
change the selection in earlier ones. Position ids do not change.

Needs: the routers' weights.

Cost: one dot product per token and MoD layer.

Differences: no official code exists. The rounding, the router without bias, and which layers are
MoD layers (1, 3, 5, ...) are choices of this implementation. `foveate train --method videollm_mod`
keeps the LLM frozen, which the paper trains too: routers start as a least-squares fit to the
attention from text, with gates near 1, and are then trained on the loss of the LLM.

Notes: the selection is not prompt-agnostic. The hidden states of visual tokens depend on the text
before the image, so a question before the image changes the selection. A question after the image
does not, unless the model attends to the prompt in both directions.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.VideoLLMMoD()):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from foveate.budget import MEAN_OVER_LAYERS, Keep, check_keep
from foveate.errors import BudgetError
from foveate.method import register
from foveate.ops.draws import draws
from foveate.ops.grouped import sums, top_per_group
from foveate.ops.transfer import on_device
from foveate.parts import BoundaryState, Detour, DetourPart, Widths
from foveate.trained import TrainedMethod

Placement = Literal["interleaved", "all", "deep", "interleaved-deep"]


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class VideoLLMMoD(TrainedMethod, DetourPart):
    """VideoLLM-MoD; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers, of the tokens that a layer processes; an int is a count per
            image or video, a float in (0, 1] a retention ratio. 0.6 is the paper's keep_ratio of
            0.2.
        keep_ratio: share of the tokens of a frame that an MoD layer processes, instead of `keep`,
            in (0, 1].
        placement: which layers are MoD layers: "interleaved" (every second one), "all", "deep" (the
            second half) or "interleaved-deep" (every second one of the second half).
        selector: "learned" uses the routers. "random", "uniform" and "skip" need no weights; with
            "skip" MoD layers process no visual token, which is layer skipping, and with
            placement="deep" early exit.
        gate: weight of the layer's output: r as it is ("raw"), or sigmoid(r) ("sigmoid").
        seed: seed of the "random" selector.
    """

    slug = "videollm_mod"
    paper = "arXiv 2408.16730"
    prompt_agnostic = False
    text_before_image_only = True
    keep_means = MEAN_OVER_LAYERS
    shapes = ("placement",)

    keep: Keep = 0.6
    positions: str = "original"
    keep_ratio: float | None = None
    placement: Placement = "interleaved"
    selector: Literal["learned", "random", "uniform", "skip"] = "learned"
    gate: Literal["raw", "sigmoid"] = "raw"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_ratio is not None:
            check_keep(self.keep_ratio, "keep_ratio")

    def build(self, width: int, layers: int) -> nn.Module:
        routers = {str(i): nn.Linear(width, 1, bias=False) for i in self.layers(layers)}
        return nn.ModuleDict(routers)

    def check(self, **base: int) -> None:
        if self.selector == "learned":
            super().check(**base)

    def layers(self, layers: int) -> tuple[int, ...]:
        first = layers // 2 if "deep" in self.placement else 0
        step = "interleaved" in self.placement
        return tuple(i for i in range(first, layers) if i % 2 or not step)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.model if self.selector == "learned" else 0

    def ratios(self, sizes: Tensor, layers: int) -> Tensor:
        """Share of its tokens that an MoD layer processes, for items of `sizes` (...) tokens."""
        if self.keep_ratio is not None:
            return torch.full(sizes.shape, self.keep_ratio, device=sizes.device)
        ones = torch.ones(sizes.shape, dtype=torch.double, device=sizes.device)
        share = self.keep * ones if isinstance(self.keep, float) else self.keep / sizes.clamp(min=1)
        some = len(self.layers(layers))
        ratio = 1 - (1 - share) * layers / max(some, 1)
        if bool(((ratio <= 0) | (ratio > 1)).logical_and(sizes > 0).any()):
            raise BudgetError(
                f"keep={self.keep} is out of reach: {layers - some} of {layers} layers process all "
                "tokens; raise keep, or use placement='all'."
            )
        return ratio

    def runs(self, i: int, layers: int, state: BoundaryState) -> Detour | None:
        if self.selector == "skip":
            return Detour(~state.visual)
        whole = self.keep_ratio is None and isinstance(self.keep, float) and self.keep == 1.0
        if whole or not any(state.known.visual):
            return None
        frames, items = state.known.frames, max(state.known.items)
        group = torch.where(state.visual, state.item * frames + state.frame, -1)
        ones = torch.ones_like(group)
        sizes = sums(ones, group, items * frames)
        held = [row + [0] * (items - len(row)) for row in state.known.held]
        ratio = on_device(self.ratios(torch.tensor(held), layers), group.device)
        few = (ratio.repeat_interleave(frames, 1) * sizes).round().clamp(min=1).long()
        if self.selector == "learned":
            router = self.module(state.hidden, layers=layers)[str(i)]
            score = router(state.hidden)[..., 0]
            state.signals.record(score)
            gate = score if self.gate == "raw" else score.sigmoid()
            return Detour(top_per_group(score.detach().float(), group, few), gate)
        rank = _ranks(group)
        if self.selector == "random":
            place = group * 1_000_003 + rank
            return Detour(top_per_group(draws(place, self.seed * 1009 + i), group, few))
        size, few = (x.gather(1, group.clamp(min=0)) for x in (sizes, few))
        # The j-th of few is at floor(j size / few): it is selected where the floor rises.
        return Detour((rank * few) % size.clamp(min=1) < few)


def _ranks(group: Tensor) -> Tensor:
    """Number (B, N) of each column among those of its group, in order."""
    order = group.argsort(dim=1, stable=True)
    inside = group.gather(1, order)
    first = torch.searchsorted(inside, inside)
    steps = torch.arange(group.shape[1], device=group.device)
    return torch.empty_like(order).scatter_(1, order, steps - first)
