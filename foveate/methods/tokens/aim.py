"""Merge similar visual tokens before the LLM; prune the rest inside it by PageRank importance.

Zhong et al., "AIM: Adaptive Inference of Multi-Modal LLMs via Token Merging and Pruning", ICCV
2025, arXiv 2412.03248.

Rule: before the LLM, the tokens of a crop or frame at even places are paired with those at odd
places. The pairs with the largest cosine are replaced by their means, at most half of the remaining
tokens per round. Inside the LLM, after every layer l from l1 on, this share of the tokens that
entered the LLM is kept:

    rho(l) = max(0, 1 - step (l - l1 + 1))

The tokens with the largest score stay. The score is sqrt(mean over heads of pi^2), where pi (one
value per token and head) is the PageRank of attention: `iters` rounds of

    pi <- pi softmax(Z / tau_imp)

from equal values, where Z are the attention logits of the layer. The number of merged tokens and
`step` follow from `keep`. With the default, a quarter of the tokens enters the LLM, and `step` is
0.125 from layer 14 of 28 on.

Needs: the projected features; inside the LLM, queries and keys of the layers after which tokens are
pruned.

Cost: one similarity matrix of even x odd tokens before the LLM; the attention map of each pruning
layer, block by block.

Differences: tokens are dropped where the official code masks them, so PageRank starts from the
tokens that are left. Several images of a sample are ranked together, and each sample of a batch
separately.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.AIM(keep=0.165)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from foveate.budget import Keep
from foveate.errors import BudgetError, InvalidParameter
from foveate.method import register
from foveate.methods.layers.base import ScoredLayers, beyond_depth
from foveate.methods.tokens.progressive import ProgressiveMethod
from foveate.ops.allocate import share_evenly, view_batches
from foveate.ops.attention import Heads, page_rank
from foveate.ops.matching import bipartite_soft_matching, merge
from foveate.parts import BoundaryState, Part, Widths
from foveate.signals import DecoderHeads, Need, ProjectorInput, Signals, VisionKeys
from foveate.tokens import VisualTokens

# Of 28 layers, 15 keep all tokens, the next 7 drop an eighth each, the last 6 keep none.
HELD = 18.5 / 28


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class AIM(ProgressiveMethod):
    """AIM; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers; an int is a count per image or video, a float in (0, 1] a
            retention ratio. The default merges to a quarter before the LLM.
        l1: first layer after which tokens are pruned, 0-based; None is half of the depth (13 for
            Vicuna in the paper).
        step: share of the tokens that each of these layers removes, above 0; None follows from
            `keep`.
        tau_imp: temperature of the importance ranking, above 0.
        iters: rounds of the importance ranking, 0 or more.
        d: damping of the importance ranking, in [0, 1].
        metric: what is compared for merging: "features", or "keys" of the last block of the vision
            encoder with merging before the projector, as for LLaVA-1.5.
    """

    slug = "aim"
    paper = "arXiv 2412.03248"
    prompt_agnostic = False
    drops_special = True
    per_view = True
    held = HELD

    keep: Keep = HELD / 4
    l1: int | None = None
    step: float | None = None
    tau_imp: float = 0.1
    iters: int = 5
    d: float = 0.0
    metric: Literal["features", "keys"] = "features"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.l1 is not None and self.l1 < 0 or self.step is not None and not self.step > 0:
            raise InvalidParameter(
                f"l1={self.l1}, step={self.step} are not valid: use l1 >= 0 and step > 0."
            )
        if not self.tau_imp > 0 or not self.iters >= 0 or not 0 <= self.d <= 1:
            raise InvalidParameter(
                f"tau_imp={self.tau_imp}, iters={self.iters}, d={self.d} are not valid: use "
                "tau_imp > 0, iters >= 0 and 0 <= d <= 1."
            )

    def parts(self) -> tuple[Part, ...]:
        return (self, Pruning(self))

    @property
    def needs(self) -> tuple[Need, ...]:
        return (ProjectorInput(), VisionKeys(layer=-1)) if self.metric == "keys" else ()

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return n * n * (widths.model if self.metric == "features" else widths.tower) // 2

    def reduce(self, tokens: VisualTokens, signals: Signals, keep: int) -> VisualTokens:
        if keep == tokens.n:
            return tokens
        x = keys = tokens.features
        if self.metric == "keys":
            x, keys = signals[ProjectorInput()], signals[VisionKeys(layer=-1)]
            keys = keys.transpose(1, 2).flatten(2)
        assign, made, vectors = torch.full(x.shape[:2], -1, device=x.device), {}, {}
        members = tokens.by_view()
        shares = share_evenly(keep, [len(m) for m in members])
        for numbers, own, share in view_batches(members, shares):
            into, merged = halve(x[:, own].flatten(0, 1), keys[:, own].flatten(0, 1), share)
            into, merged = into.view(len(x), *own.shape), merged.view(len(x), len(own), share, -1)
            for i, number in enumerate(numbers):
                made[number], vectors[number] = into[:, i], merged[:, i]
        done = 0
        for number in sorted(made):
            assign[:, members[number]] = made[number] + done
            done += shares[number]
        features = torch.cat([vectors[number] for number in sorted(made)], 1)
        if self.metric == "keys":
            features = signals.project(features)
        return tokens.merge(assign, keep, features.to(tokens.features.dtype))

    def importance(self, heads: Heads) -> Tensor:
        """Importance (B, N) of every column inside the LLM."""
        return page_rank(heads, self.tau_imp, self.iters, self.d)


@dataclass(frozen=True)
class Pruning(ScoredLayers):
    """The part of AIM inside the LLM."""

    method: AIM

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DecoderHeads(),)

    def boundaries(self, layers: int) -> tuple[int, ...]:
        keep = self.method.keep
        if isinstance(keep, float) and keep == 1:
            return ()
        first, _ = self._slope(layers, self.method.held)
        return tuple(range(first + 1, layers))

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * n * widths.model if keep else 0

    def counts(self, k: int, layers: int, state: BoundaryState) -> list[int]:
        targets, known = [], state.known
        for entered, items, p in zip(known.entered, known.items, known.text, strict=True):
            first, step = self._slope(layers, self.method.share(entered, items))
            rho = 1.0 if k <= first else max(0.0, 1 - step * (k - first))
            targets.append(int(entered * rho + p) - p)
        return targets

    def scores(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        return self.method.importance(state.signals[DecoderHeads()])

    def _slope(self, layers: int, share: float) -> tuple[int, float]:
        m = self.method
        if m.l1 is not None and m.l1 >= layers:
            raise beyond_depth("l1", m.l1, layers)
        if m.step is not None and m.l1 is not None:
            return m.l1, m.step
        first, step = slope_of_share(share, layers, m.l1)
        return first, step if m.step is None else m.step


def halve(x: Tensor, metric: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Merge x (B, N, D) to `count` tokens, at most half per round: assign, vectors."""
    assign = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    alike = metric is x
    while x.shape[1] > count:
        into, n = bipartite_soft_matching(metric, x.shape[1] - count)
        x = merge(x, into, n)
        metric = x if alike else merge(metric, into, n)
        assign = into.gather(1, assign)
    return assign, x


@lru_cache(maxsize=256)
def slope_of_share(share: float, layers: int, first: int | None = None) -> tuple[int, float]:
    """First layer and step of the linear fall for which the mean ratio over all layers is `share`.

    It starts after half of the depth, or earlier where that is needed, unless `first` is given.
    """
    wanted = share * layers
    if first is None:
        first = max(0, min(layers // 2, int(wanted + 1e-9) - 1))

    def held(step: float) -> float:
        return first + 1 + sum(max(0.0, 1 - step * i) for i in range(1, layers - first))

    if layers > 1 and wanted < first + 1 - 1e-9:
        raise BudgetError(
            f"A mean retention ratio of {share:.4g} over the layers is out of reach: the layers up "
            f"to l1={first} keep all tokens, which is {(first + 1) / layers:.4g} already; lower l1 "
            "or give step."
        )
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if held(middle) < wanted else (middle, high)
    # Rounded, so that 0.125 is exactly 0.125 and floors do not change.
    return first, round(low, 9)
