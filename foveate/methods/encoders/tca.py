"""Prune and merge tokens in the vision encoder by [CLS] attention, with test-time adaptation.

Wang et al., "Is Less More? Exploring Token Condensation as Training-free Test-time Adaptation",
ICCV 2025, arXiv 2410.14729.

Rule: after the attention of three layers (3, 6, 9 of 12, scaled to the depth of the encoder) the n
patches are ranked by a_i, the [CLS] attention of patch i, mean over heads. delta is the share to
remove, and d = n - ceil((1 - delta) n):

- the d lowest are merged into one token, sum_i a_i x_i, where x_i is the hidden state of patch i
- the next 2 (d + 1) are merged into four tokens, averages around four centres (k-centre greedy,
  weights 1 / distance)
- all others stay as they are

With `keep` each of the three layers removes the same share, so that exactly the budget is left
after the last one.

For zero-shot classification of a stream, `foveate.zero_shot(model, processor, classes, TCA())` adds
the adaptation. A reservoir caches confident and diverse samples per class. Anchors are made from
them: in the three layers an anchor is an extra key of attention, and anchors correct the logits
(`Adapter`).

Needs: [CLS] attention of three layers of the vision encoder. Without a [CLS] token, the mean
attention that each patch receives.

Cost: one [CLS] attention row in each of the three layers, and distances among the tokens that are
averaged.

Differences: the first centre is the token farthest from the mean unless a generator is given. Sums
are float32. Corrections follow the model's own temperature, which is 100 for CLIP. Budgets below
six tokens have fewer centres. `centers=0` is EViT: all pruned tokens become one token.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.TCA(keep=0.5)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from foveate.budget import Keep, resolve
from foveate.errors import BudgetError, InvalidParameter, UnsupportedCall
from foveate.method import Method, register
from foveate.methods.encoders.base import view_shares
from foveate.methods.encoders.reservoir import Adapter
from foveate.ops.coreset import coreset, farthest_from_mean
from foveate.ops.gather import rows_at
from foveate.parts import BlockState, EncodersPart, Widths
from foveate.tokens import Grid

DEPTH = 12  # of the vision encoder that drop_loc counts in
# Patches that three layers with delta = 0.1 keep of 196.
KEPT = 76 / 196


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class TCA(Method, EncodersPart):
    """Token Condensation as Adaptation; the docstring of its module states the rule.

    Attributes:
        keep: tokens that enter the LLM; an int is a count per crop or frame, a float in (0, 1] a
            retention ratio.
        delta: share of the tokens that each condensing layer removes, instead of `keep`, in [0, 1);
            0.1 and 0.035 in the paper, 0 removes nothing.
        drop_loc: condensing layers of an encoder of 12 layers, 0-based; other depths are scaled.
        centers: averages made of the tokens in the middle of the ranking; 0 is EViT.
        rank: "mean_attn" ranks by mean attention over heads, "head_rank" by the mean over heads of
            ranks.
        reservoir_size: samples cached per class of a stream; 0 for no adaptation.
        scale: spread of the weights over layers in the correction of logits, above 0.
        lam: weight of the correction of logits.
        beta: sharpness of the correction of logits.
        gate: "all" refreshes the anchors once all classes seen so far have two samples, "class"
            refreshes those of each class that has two.
    """

    slug = "tca"
    paper = "arXiv 2410.14729"
    proportional = False
    even = True

    keep: Keep = KEPT
    delta: float | None = None
    drop_loc: tuple[int, ...] = (3, 6, 9)
    centers: int = 4
    rank: Literal["mean_attn", "head_rank"] = "mean_attn"
    reservoir_size: int = 3
    scale: float = 0.1
    lam: float = 3.0
    beta: float = 5.0
    gate: Literal["all", "class"] = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delta is not None and not 0 <= self.delta < 1:
            raise InvalidParameter(f"delta={self.delta} is not valid: use 0 <= delta < 1.")
        if not self.drop_loc or not all(0 <= i < DEPTH for i in self.drop_loc):
            raise InvalidParameter(
                f"drop_loc={self.drop_loc} is not valid: use layers 0 to 11 of 12."
            )
        if self.centers < 0 or self.reservoir_size < 0 or not self.scale > 0:
            raise InvalidParameter(
                f"centers={self.centers}, reservoir_size={self.reservoir_size}, scale={self.scale} "
                "are not valid: use counts of 0 or more and a scale above 0."
            )

    def adapter(self, generator: torch.Generator | None = None) -> Adapter:
        """The state of one stream: a part that condenses with anchors."""
        return Adapter(self, generator)

    def layers(self, blocks: int) -> list[int]:
        """Condensing layers of an encoder of that depth; the first needs a layer before it."""
        return sorted({max(min(1, blocks - 1), i * blocks // DEPTH) for i in self.drop_loc})

    def shares(self, grid: Grid) -> tuple[int, ...] | None:
        return None if self.delta is not None else view_shares(self.keep, grid)

    def count(self, grid: Grid) -> int:
        if self.delta is not None:
            raise UnsupportedCall(
                f"With delta={self.delta} the number of tokens depends on the depth of the vision "
                "encoder and is not known in advance; use keep=... instead of delta."
            )
        return super().count(grid)

    def plan(self, block: int, blocks: int, n: int, entered: int) -> tuple[int, int, int] | None:
        """Numbers of n patches that are kept and averaged, and of centres; None where all are kept.

        entered: patches that entered the first block.
        """
        layers = self.layers(blocks)
        if block not in layers or self.delta == 0:
            return None
        if self.delta is not None:
            left = math.ceil((1 - self.delta) * n)
            gap = n + 1 - left  # the class token is counted
            kept, averaged, centres = left - 2 * gap, 2 * gap, self.centers
            if not centres:
                kept, averaged = left, 0
            if kept < 1 or averaged < centres:
                raise BudgetError(
                    f"delta={self.delta} keeps {kept} of {n} tokens and averages {averaged} around "
                    f"{self.centers} centers, which is not possible; use another delta, fewer "
                    "centers, or keep=..."
                )
            return kept, averaged, centres
        target = resolve(self.keep, entered)
        done = (layers.index(block) + 1) / len(layers)
        target = max(target, round(entered * (target / entered) ** done))
        if target >= n:
            return None
        centres = max(0, min(self.centers, target - 2, n - target - 1))
        kept = target - centres - 1
        if not centres:
            return kept, 0, 0
        gone = min(max(1, (n - kept - 2) // 3), n - kept - centres)
        return kept, n - kept - gone, centres

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        total, left = 0, n
        for block in range(widths.blocks):
            planned = self.plan(block, widths.blocks, left, n)
            if planned is not None:
                kept, averaged, centres = planned
                total += 2 * widths.tower * (left + averaged * (averaged + centres))
                left = kept + centres + 1
        return total

    def merge(
        self,
        block: int,
        blocks: int,
        state: BlockState,
        draw: Callable[[int, int], Tensor] | None = None,
    ) -> tuple[Tensor, int, Tensor] | None:
        """Prune and average after a condensing layer.

        draw(n, B): first centres (B,) among n tokens, instead of those farthest from the mean.
        """
        skip = int(state.class_token)
        x = state.hidden[:, skip:]
        planned = self.plan(block, blocks, x.shape[1], state.entered)
        if planned is None:
            return None
        if not state.even and not bool(state.valid.all()):
            raise UnsupportedCall(
                "TCA cannot rank images with different numbers of tokens, which DyMU produces; use "
                "one of the two."
            )
        kept, averaged, centres = planned
        attention = state.attention()[:, :, skip:]
        mean = attention.mean(1)
        score = mean
        if self.rank == "head_rank":
            score = attention.argsort(-1).argsort(-1).float().mean(1)
        state.record(score)
        order = score.argsort(dim=1, descending=True, stable=True)
        steps = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
        into, weight = steps.clamp(max=kept).clone(), torch.ones_like(mean)
        if averaged:
            some = slice(kept, kept + averaged)
            middle = rows_at(x, order[:, some]).float()
            first = draw(averaged, len(x)).to(x.device) if draw else farthest_from_mean(middle)
            centre, weight[:, some] = coreset(middle, centres, first)
            into[:, some] = kept + centre
        into[:, kept + averaged :] = kept + centres
        weight[:, kept + averaged :] = mean.gather(1, order[:, kept + averaged :])
        # From the order of the ranking back to the order of the tokens.
        assign = torch.empty_like(into).scatter_(1, order, into + skip)
        weight = torch.empty_like(weight).scatter_(1, order, weight)
        assign = torch.cat([assign.new_zeros(len(x), skip), assign], 1)
        weight = torch.cat([weight.new_ones(len(x), skip), weight], 1)
        return assign, skip + kept + centres + 1, weight
