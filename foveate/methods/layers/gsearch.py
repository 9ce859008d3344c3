"""Prune visual tokens layer by layer inside the LLM, with a searched or a sigmoid schedule.

Zhao et al., "Accelerating Multimodal Large Language Models by Searching Optimal Vision Token
Reduction", CVPR 2025, arXiv 2412.00556.

Rule: LLM layer l processes floor(r_l V) of the V visual tokens. The schedule r_0, r_1, ... starts
with 1 and never rises. Tokens are ranked by the attention that they receive in layer l - 1, mean
over heads and over the text tokens after the image. A pruned token does not come back, so the set
of each layer is a subset of the one before. Without a schedule (P-Sigmoid), the ratios are

    r_l = sigmoid(kappa (l - alpha))

where alpha is set so that the mean over all layers is `keep`. `foveate.tune` searches schedules
(G-Search) and kappas.

Needs: queries and keys of the layer before each layer at which the ratio falls.

Cost: one row of attention per text token after the image, at each layer at which the ratio falls.

Differences: no official code exists. The paper searches the ratios of G-Search by Bayesian
optimisation; `foveate.tune` bisects by default, and `searcher="bo"` is the paper's way. Rounding
down, the original positions, and equal weights of heads and rows are choices of this
implementation.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.GSearch(schedule=(1.0, 1.0, 0.5, 0.5, 0.25, 0.25))):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import exp
from typing import Literal

import torch
from torch import Tensor

from foveate.budget import MEAN_OVER_LAYERS, Keep
from foveate.errors import BudgetError, InvalidParameter
from foveate.method import Method, register
from foveate.methods.layers.base import ScoredLayers, instruction_rows
from foveate.methods.layers.staircase import staged_counts
from foveate.ops.attention import paid
from foveate.parts import BoundaryState, Widths
from foveate.signals import DecoderHeads, Need


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class GSearch(Method, ScoredLayers):
    """G-Search and P-Sigmoid; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers, from which alpha follows; an int is a count per image or
            video, a float in (0, 1] a retention ratio.
        schedule: retention ratio of every layer, instead of `keep`; one per layer, starting with
            1.0, never rising.
        kappa: slope of the sigmoid per layer, below 0; near 0 it is flat, far below 0 it is a step.
        floor: smallest retention ratio of the sigmoid, in [0, 1).
        rows: query tokens of the attention: "text" after the image, or the "last" prompt token.
    """

    slug = "gsearch"
    paper = "arXiv 2412.00556"
    prompt_agnostic = False
    keep_means = MEAN_OVER_LAYERS

    keep: Keep = 0.5
    positions: str = "original"
    schedule: tuple[float, ...] | None = None
    kappa: float = -1.0
    floor: float = 0.0
    rows: Literal["text", "last"] = "text"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.schedule is not None:
            check_schedule(self.schedule)
        if not self.kappa < 0 or not 0 <= self.floor < 1:
            raise InvalidParameter(
                f"kappa={self.kappa}, floor={self.floor} are not valid: use kappa < 0 and "
                "0 <= floor < 1."
            )

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DecoderHeads(),)

    def rates(self, layers: int, share: float) -> tuple[float, ...]:
        """Retention ratio of each layer for a mean of `share`."""
        if self.schedule is None:
            return sigmoid_rates(share, layers, self.kappa, self.floor)
        if len(self.schedule) != layers:
            raise InvalidParameter(
                f"schedule has {len(self.schedule)} ratios, but the model has {layers} decoder "
                "layers; give one for each."
            )
        return self.schedule

    def boundaries(self, layers: int) -> tuple[int, ...]:
        if self.schedule is None:
            return () if self.keep == 1.0 and isinstance(self.keep, float) else (*range(1, layers),)
        rates = self.rates(layers, 1.0)
        return tuple(k for k in range(1, layers) if rates[k] < rates[k - 1])

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.model * (1 if self.rows == "last" else keep)

    def counts(self, k: int, layers: int, state: BoundaryState) -> list[int]:
        return staged_counts(state, self.keep, lambda share: self.rates(layers, share)[k])

    def scores(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        last = state.last[:, None]
        asked = (last, torch.ones_like(last)) if self.rows == "last" else instruction_rows(state)
        return paid(state.signals[DecoderHeads()], *asked)


def check_schedule(schedule: tuple[float, ...]) -> None:
    """`InvalidParameter` where ratios do not start at 1, rise, or leave [0, 1]."""
    if not schedule or schedule[0] != 1:
        raise InvalidParameter(
            f"schedule={schedule} prunes before the first layer, where no attention is known yet; "
            "start it with 1.0."
        )
    for layer, (above, rate) in enumerate(zip(schedule, schedule[1:], strict=False), 1):
        if not 0 <= rate <= above:
            raise InvalidParameter(
                f"schedule goes from {above} to {rate} at layer {layer}; use ratios in [0, 1] that "
                "never rise, because dropped tokens do not come back."
            )


@lru_cache(maxsize=1024)
def sigmoid_rates(share: float, layers: int, kappa: float, floor: float = 0.0) -> tuple[float, ...]:
    """Ratios that fall as a sigmoid of slope `kappa` after layer 0, with the mean `share`."""
    if share == 1 or layers == 1:
        return (1.0,) * layers
    least = (1 + (layers - 1) * floor) / layers
    if share <= least:
        raise BudgetError(
            f"A mean retention ratio of {share:.4g} over the layers is out of reach: layer 0 keeps "
            f"all tokens, which is {least:.4g} already; raise keep."
        )

    def at(alpha: float) -> tuple[float, ...]:
        return 1.0, *(floor + (1 - floor) * _sigmoid(kappa * (i - alpha)) for i in range(1, layers))

    # Far enough for every ratio to be 1 or 0 in float64.
    low, high = -50 / -kappa, layers + 50 / -kappa
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(at(middle)) < share * layers else (low, middle)
    return at(high)


def _sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x)) if x > -700 else 0.0
