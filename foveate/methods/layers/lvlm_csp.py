"""Run few visual tokens in early LLM layers, all in the middle layers, and a pruned set at the end.

"LVLM_CSP: Accelerating Large Vision Language Models via Clustering, Scattering, and Pruning for
Reasoning Segmentation", 2025, arXiv 2504.10854.

Rule: three phases, for the N tokens of an image or video.

- clustering: only N_c representatives run through layers 0 .. b1 - 1
- scattering: all N run through layers b1 .. b2 - 1; the others enter b1 as they entered the LLM
- pruning: the N_p tokens with the highest attention from the last prompt token run through the
  layers from b2 on

The attention at b2 is computed with the queries and keys of layer b2, softmax over all keys, mean
over heads; in training the last supervised token is the query. Representatives are the top N_c by
[CLS] attention of the vision encoder ("cls"; by received attention where there is no [CLS] token),
every floor(N / N_c)-th token ("uniform"), a random subset ("random"), or some tokens of every
instance that a segmenter found ("seg_first"). Positions never change.

Needs: one row of attention of the vision encoder for "cls"; one query row and the keys of LLM layer
b2.

Cost: one [CLS] attention row in the vision encoder, one row of attention and one projection of keys
in the LLM.

Differences: there is no official code. The layers, the counts, and the state with which tokens
enter layer b1 are choices of this implementation. With init="residual" the updates of the nearest
representative are added to a token that skipped the first layers. A representative is one of the
tokens, never a mean. In later turns of a conversation, the last layers attend to the tokens that
the first question kept.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.LVLMCSP(keep=0.4)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from foveate.budget import MEAN_OVER_LAYERS, Keep, check_keep, resolve
from foveate.errors import BudgetError, InvalidParameter
from foveate.method import Method, register
from foveate.methods.layers.base import ScoredLayers, item_batches
from foveate.ops.gather import rows_at
from foveate.ops.instances import evenly, evenly_within, instances
from foveate.ops.select import top_k
from foveate.ops.transfer import on_device
from foveate.parts import BoundaryState, Detour, DetourPart, Part, Widths
from foveate.signals import Need, VisionAttention

Segmenter = Callable[[int, int, int, int], Tensor]


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class LVLMCSP(Method):
    """LVLM_CSP; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers, from which N_c = 2 N_p follow; an int is a count per image
            or video, a float in (0, 1] a retention ratio.
        selector: how representatives are selected: "cls", "uniform", "random" or "seg_first", which
            needs a `segmenter`.
        N_c: representatives per image or video, a count or a retention ratio, instead of `keep`.
        N_p: tokens per image or video in the last layers, a count or a retention ratio, instead of
            `keep`.
        b1: first LLM layer with all tokens, 0-based; None is a quarter of the depth.
        b2: first LLM layer of the pruning phase, above b1; None is half of the depth.
        init: state with which tokens come back at b1: "embed" as they entered the LLM, "residual"
            with the updates of the nearest representative added.
        full_last_layers: skip the pruning phase.
        seed: seed of the random subset.
        segmenter: function (row, item, h, w) -> masks (O, h, w) of the instances of that image; for
            "seg_first" only.
    """

    slug = "lvlm_csp"
    paper = "arXiv 2504.10854"
    prompt_agnostic = False
    keep_means = MEAN_OVER_LAYERS

    keep: Keep = 0.3125
    positions: str = "original"
    selector: Literal["cls", "uniform", "random", "seg_first"] = "cls"
    N_c: Keep | None = None
    N_p: Keep | None = None
    b1: int | None = None
    b2: int | None = None
    init: Literal["embed", "residual"] = "embed"
    full_last_layers: bool = False
    seed: int = 0
    segmenter: Segmenter | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.selector == "seg_first") != (self.segmenter is not None):
            raise InvalidParameter(
                "selector='seg_first' needs a segmenter, and only it uses one; pass both or "
                "neither."
            )
        for name in ("N_c", "N_p"):
            if getattr(self, name) is not None:
                check_keep(getattr(self, name), name)

    def parts(self) -> tuple[Part, ...]:
        return (Clustering(self),) if self.full_last_layers else (Clustering(self), Pruning(self))

    def bounds(self, layers: int) -> tuple[int, int]:
        """b1 and b2 in a decoder of `layers` layers."""
        b1 = (layers // 4 or int(layers > 2)) if self.b1 is None else self.b1
        b2 = max(b1 + 1, layers // 2) if self.b2 is None else self.b2
        if not 0 <= b1 < b2 < layers:
            raise InvalidParameter(
                f"b1={b1}, b2={b2} are out of range: the model has {layers} decoder layers; "
                f"use 0 <= b1 < b2 < {layers}."
            )
        return b1, b2

    def counts(self, n: int, layers: int) -> tuple[int, int]:
        """N_c and N_p of an item of n tokens."""
        b1, b2 = self.bounds(layers)
        last = 0 if self.full_last_layers else layers - b2
        share = self.keep if isinstance(self.keep, float) else resolve(self.keep, n) / n
        # Tokens times layers that remain for the other two phases.
        left = (share * layers - (layers - b1 - last)) * n
        few, end = (None if x is None else resolve(x, n) for x in (self.N_c, self.N_p))
        if few is None and end is None:
            few = min(float(n), left / (b1 + last / 2)) if b1 + last else float(n)
        if few is None:
            few = (left - last * (end or 0)) / b1 if b1 else n
        if end is None:
            end = (left - b1 * few) / last if last else n
        if min(few, end) < 0.5 or max(few, end) > n + 0.5:
            raise BudgetError(
                f"A mean retention ratio of {share:.4g} over {layers} layers is out of reach with "
                f"all tokens in layers {b1} to {layers - last - 1}; change keep, b1, b2, N_c or "
                "N_p."
            )
        return round(few), round(end)


@dataclass(frozen=True)
class Clustering(DetourPart):
    """The layers before b1, which only the representatives run through."""

    method: LVLMCSP

    @property
    def needs(self) -> tuple[Need, ...]:
        return (VisionAttention(rows="auto"),) if self.method.selector == "cls" else ()

    def layers(self, layers: int) -> tuple[int, ...]:
        return tuple(range(self.method.bounds(layers)[0]))

    def runs(self, i: int, layers: int, state: BoundaryState) -> Detour | None:
        run, follow = ~state.visual, torch.full_like(state.item, -1)
        seen = None
        if self.needs:
            seen = state.signals[self.needs[0]].mean(1)
            state.signals.record(seen)
        for rows, columns in item_batches(state):
            n = columns.shape[1]
            few = self.method.counts(n, layers)[0]
            chosen = self._chosen(state, rows, columns, few, seen)
            run[rows[:, None], columns.gather(1, chosen)] = True
            if self.method.init == "residual" and few < n:
                follow[rows[:, None], columns] = _nearest(state, rows, columns, chosen)
        return Detour(run, follow=follow if self.method.init == "residual" else None)

    def _chosen(
        self, state: BoundaryState, rows: Tensor, columns: Tensor, few: int, seen: Tensor | None
    ) -> Tensor:
        """Ascending numbers (M, few) of the representatives of M items of n tokens."""
        m, n = columns.shape
        if seen is not None:
            return top_k(seen[rows[:, None], columns], few)
        if self.method.selector == "uniform":
            return on_device(evenly(n, few), columns.device).expand(m, -1)
        segmenter = self.method.segmenter
        if segmenter is None:
            draw = torch.rand(n, generator=torch.Generator().manual_seed(self.method.seed))
            return top_k(on_device(draw, columns.device).expand(m, -1), few)
        found = []
        for row, own in zip(rows.tolist(), columns, strict=True):
            place = state.place[row, own]
            _, h, w = (place.amax(0) + 1).tolist()
            masks = segmenter(row, int(state.item[row, own[0]]), h, w)
            found.append(evenly_within(instances(masks.bool().to(place.device), place), few))
        return torch.stack(found)


@dataclass(frozen=True)
class Pruning(ScoredLayers):
    """Layer b2, from which few tokens are kept."""

    method: LVLMCSP

    def boundaries(self, layers: int) -> tuple[int, ...]:
        return (self.method.bounds(layers)[1],)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.keys * widths.model + 2 * n * widths.model

    def counts(self, k: int, layers: int, state: BoundaryState) -> list[int]:
        few = self.method.counts
        return [sum(few(n, layers)[1] for n in row if n) for row in state.known.held]

    def scores(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        query = state.last
        if state.labels is not None:
            supervised = state.labels != -100
            last = supervised.shape[1] - 1 - supervised.flip(1).byte().argmax(1)
            query = torch.where(supervised.any(1), last, query)
        return state.attention(query[:, None]).float().mean(1)[:, 0]


def _nearest(state: BoundaryState, rows: Tensor, columns: Tensor, chosen: Tensor) -> Tensor:
    """Column (M, n) of the representative nearest in the grid; -1 for special tokens."""
    place = state.place[rows[:, None], columns].float()
    leaders = rows_at(place, chosen)
    # Special tokens have no position in the grid.
    away = torch.cdist(place, leaders).masked_fill((leaders < 0).any(-1)[:, None], torch.inf)
    column = columns.gather(1, chosen.gather(1, away.argmin(-1)))
    return column.masked_fill((place < 0).any(-1), -1)
