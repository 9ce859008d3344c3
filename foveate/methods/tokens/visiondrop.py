"""Prune and merge before and inside the LLM by the attention that visual tokens pay each other.

"Rethinking Visual Token Reduction in LVLMs under Cross-modal Misalignment", AAAI 2026, arXiv
2506.22283.

Rule: before the LLM, tokens are selected as in VisionZip: dominant tokens by [CLS] attention, and
the other patches merged into contextual tokens. The same happens inside the LLM, before the layers
at a quarter, a half and three quarters of the depth, with the queries q and keys k of that layer:

    score_j = mean over heads, and over the visual tokens i of j's image, of softmax(q_i k^T)_j
    contextual = x_target + mean(x_joined)

Tokens with the largest score are dominant. The others are merged as in VisionZip: x are the hidden
states, and each token joins the target whose key has the largest cosine. No text token scores. The
number of tokens falls by the same factor at each of these layers, contextual tokens follow the
dominant ones, and positions are renumbered.

Needs: [CLS] attention, keys and features before the projector, as VisionZip; queries and keys of
the next LLM layer at each stage.

Cost: that of VisionZip before the LLM. At each of the three layers, projections of queries and
keys, and attention from the visual tokens to all keys.

Differences: with several images in a sample, each keeps its own tokens.

Notes: the selection is not prompt-agnostic. Inside the LLM the hidden states of visual tokens
depend on the text before the image, so a question before the image changes the selection. A
question after the image does not, unless the model attends to the prompt in both directions. With
causal attention early tokens receive attention from more queries.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.VisionDrop(keep=0.25)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from foveate.budget import Keep
from foveate.errors import BudgetError, InvalidParameter
from foveate.method import register
from foveate.methods.layers.base import (
    beyond_depth,
    item_totals,
    quarters,
    ratios_of_share,
    wanted_batches,
)
from foveate.methods.tokens.progressive import ProgressiveMethod
from foveate.methods.tokens.visionzip import VisionZip
from foveate.ops.attention import received_within
from foveate.ops.contextual import dominant_contextual, joining_weights
from foveate.parts import BoundaryState, LayersPart, Merge, Part, Widths
from foveate.signals import Signals
from foveate.tokens import Grid, VisualTokens


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class VisionDrop(ProgressiveMethod, VisionZip):
    """VisionDrop; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers, merged tokens included; an int is a count per image or
            video, a float in (0, 1] a retention ratio. With the default, 48 of 576 tokens enter the
            LLM, and the mean is 32.
        dominant: dominant tokens of each crop or frame that enter the LLM, the [CLS] token
            included, instead of `keep`; at least 1.
        contextual: merged tokens of each crop or frame that enter the LLM; None is an eighth.
        layer_list: ascending 0-based LLM layers before which tokens are pruned, from 1 on; None is
            a quarter, a half and three quarters of the depth.
        image_token_list: pairs (dominant, contextual) of tokens per image from each of these layers
            on, at least (1, 0).
    """

    slug = "visiondrop"
    paper = "arXiv 2506.22283"
    prompt_agnostic = False
    text_before_image_only = True
    held = 2 / 3

    keep: Keep = 32 / 576
    dominant: int | None = None
    layer_list: tuple[int, ...] | None = None
    image_token_list: tuple[tuple[int, int], ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        stages, targets = self.layer_list, self.image_token_list
        if targets is not None:
            if any(d < 1 or c < 0 for d, c in targets):
                raise InvalidParameter(
                    f"image_token_list={targets} is not valid: use pairs (dominant, contextual) of "
                    "at least (1, 0)."
                )
        if stages is not None and (min(stages, default=0) < 1 or sorted(set(stages)) != [*stages]):
            raise InvalidParameter(
                f"layer_list={stages} is not valid: use ascending layers from 1 on."
            )
        if self.dominant is not None and not self.dominant >= 1:
            raise InvalidParameter(f"dominant={self.dominant!r} is not valid: use 1 or more.")

    def parts(self) -> tuple[Part, ...]:
        return (self, Stages(self, self.positions))

    def count(self, grid: Grid) -> int:
        if self.dominant is None or self.keep == 1.0:
            return super().count(grid)
        views = [n for n in grid.views or (grid.patches,) if n]
        own = self.dominant + self._contextual(self.dominant * 8 // 7)
        if own > min(views):
            raise BudgetError(
                f"dominant={self.dominant} and the contextual tokens are more than the "
                f"{min(views)} patches of a crop or frame; use fewer, or keep=..."
            )
        return own * len(views)

    def reduce(self, tokens: VisualTokens, signals: Signals, keep: int) -> VisualTokens:
        return tokens if keep == tokens.n else super().reduce(tokens, signals, keep)

    def _contextual(self, share: int) -> int:
        return min(-(-share // 8) if self.contextual is None else self.contextual, share - 1)


@dataclass(frozen=True)
class Stages(LayersPart):
    """The part of VisionDrop inside the LLM."""

    method: VisionDrop
    positions: str

    def boundaries(self, layers: int) -> tuple[int, ...]:
        m = self.method
        if m.keep == 1.0:
            return ()
        stages = quarters(layers) if m.layer_list is None else m.layer_list
        if stages and stages[-1] >= layers:
            raise beyond_depth("layer_list", stages, layers)
        if m.image_token_list is not None and len(m.image_token_list) != len(stages):
            raise InvalidParameter(
                f"image_token_list has {len(m.image_token_list)} pairs, but tokens are pruned "
                f"before {len(stages)} of {layers} decoder layers; give one for each."
            )
        return stages

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * (widths.model + widths.keys) * widths.model + 2 * n * n * widths.model

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Merge | None:
        totals = self._totals(k, layers, state)
        into = torch.arange(state.item.shape[1], device=state.item.device).repeat(len(totals), 1)
        weight, place, score, keys = (
            torch.ones(into.shape, device=into.device),
            2 * into,
            None,
            None,
        )
        for rows, own, total in wanted_batches(state, totals):
            dominant, contextual = self._split(k, layers, total)
            if dominant + contextual >= own.shape[1]:
                continue
            if score is None or keys is None:
                heads, known = state.heads(), state.known
                score = received_within(heads, state.item, max(known.visual), max(known.items))
                keys = heads.key.mean(1)
                state.signals.record(score)
            row = rows[:, None]
            group, stands = dominant_contextual(
                score[row, own], keys[row, own], dominant, contextual
            )
            taker = own.gather(1, stands.gather(1, group.clamp(min=0)))
            into[row, own] = taker.masked_fill(group < 0, -1)
            weight[row, own] = joining_weights(group, stands)
            # Contextual tokens follow the last column of their image.
            place[row, own.gather(1, stands[:, dominant:])] = 2 * own[:, -1:] + 1
        return None if score is None else Merge(into, weight, place)

    def _totals(self, k: int, layers: int, state: BoundaryState) -> list[list[int]]:
        """Tokens to keep of each image of each row."""
        stages, known = self.boundaries(layers), state.known
        ratios = [
            ratios_of_share(self.method.share(n, items), stages, layers)[stages.index(k)]
            for n, items in zip(known.entered, known.items, strict=True)
        ]
        return item_totals(state, ratios)

    def _split(self, k: int, layers: int, total: int) -> tuple[int, int]:
        """Dominant and contextual tokens of an image."""
        if self.method.image_token_list is not None:
            return self.method.image_token_list[self.boundaries(layers).index(k)]
        contextual = min(-(-total // 8), total - 1)
        return total - contextual, contextual
