"""Prune inside the LLM by attention from relevant text tokens; merge part of the pruned tokens.

Zhang et al., "SparseVLM: Visual Token Sparsification for Efficient Vision-Language Model
Inference", ICML 2025, arXiv 2410.04417.

Rule: relevant text tokens (raters) are selected once: the text tokens t after an image v whose mean
over the image of

    softmax over t of (v t^T)

is above the average of these means, where v and t are the embeddings that enter the LLM. After
layers 2, 6 and 15 of 32 the score of a visual token is the attention that the raters pay it in that
layer, mean over heads and raters; the best tokens are kept. Of the pruned tokens the best 30 % are
clustered around density peaks, one cluster for ten tokens. The mean of each cluster is appended to
the tokens of the image.

Needs: queries and keys of the LLM layers after which tokens are pruned.

Cost: one row of attention per rater at each pruning layer, and distances among the merged tokens.
Reports count 16 raters.

Differences: this follows the first version of the official code. `keep` is the mean over all LLM
layers, merged tokens included, and the ratio falls by the same factor at each pruning layer;
`retained` takes the official lists of counts. Ties go to the first token, without random noise.
Each image has its own raters.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.SparseVLM(keep=0.5)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget import MEAN_OVER_LAYERS, Keep
from foveate.errors import InvalidParameter
from foveate.method import Method, register
from foveate.methods.layers.base import (
    beyond_depth,
    item_batches,
    item_totals,
    ratios_of_share,
    wanted_batches,
)
from foveate.ops.attention import Heads
from foveate.ops.density import density_peaks
from foveate.ops.gather import rows_at
from foveate.ops.select import columns_of, top_k
from foveate.parts import BoundaryState, LayersPart, Merge, Widths
from foveate.signals import DecoderHeads, Need


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class SparseVLM(Method, LayersPart):
    """SparseVLM; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers, merged tokens included; an int is a count per image or
            video, a float in (0, 1] a retention ratio. The default is 192 of 576.
        pruning_layers: ascending 0-based layers after which tokens are pruned; None is 2, 6, 15 of
            32, scaled to the depth.
        retained: tokens per image that are kept after each of these layers, without the merged
            ones, instead of `keep`; (300, 200, 110), (303, 110, 36) or (66, 30, 17) in the paper.
        recycle: merge part of the pruned tokens; False drops all of them.
    """

    slug = "sparsevlm"
    paper = "arXiv 2410.04417"
    prompt_agnostic = False
    keep_means = MEAN_OVER_LAYERS

    keep: Keep = 192 / 576
    pruning_layers: tuple[int, ...] | None = None
    retained: tuple[int, ...] | None = None
    recycle: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        chosen = self.pruning_layers
        if chosen is not None and (min(chosen, default=-1) < 0 or sorted(set(chosen)) != [*chosen]):
            raise InvalidParameter(
                f"pruning_layers={chosen} is not valid: use ascending layers from 0 on."
            )
        if self.retained is not None and min(self.retained, default=0) < 1:
            raise InvalidParameter(
                f"retained={self.retained} is not valid: use counts of 1 or more."
            )

    @property
    def needs(self) -> tuple[Need, ...]:
        return (DecoderHeads(),)

    def boundaries(self, layers: int) -> tuple[int, ...]:
        """Relevant text tokens are found at layer 0, where the states are still embeddings."""
        stages = self._stages(layers)
        return () if self.keep == 1.0 or not stages else (0, *stages)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        recycled = 3 * (n - keep) // 10
        return 2 * widths.model * (16 * n + self.recycle * recycled * recycled)

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Merge | None:
        if k == 0:
            state.notes["raters"] = self._raters(state)
            return None
        totals, score = self._totals(k, layers, state), None
        width, device = state.item.shape[1], state.item.device
        into = torch.arange(width, device=device).repeat(len(totals), 1)
        weight, place = torch.ones(into.shape, device=into.device), into * (width + 1)
        for rows, own, total in wanted_batches(state, totals):
            kept, recycled, clusters = self._split(own.shape[1], total)
            if kept + clusters >= own.shape[1]:
                continue
            if score is None:
                score = self._score(state)
                state.signals.record(score)
            row = rows[:, None]
            best = top_k(score[row, own], kept)
            rest = score[row, own].scatter(1, best, float("-inf"))
            into[row, own] = -1
            into[row, own.gather(1, best)] = own.gather(1, best)
            if clusters:
                again = own.gather(1, top_k(rest, recycled))
                cluster, centre, share = clustered(state.hidden[row, again], clusters)
                stands = again.gather(1, centre)
                into[row, again] = stands.gather(1, cluster)
                weight[row, again] = share
                # Merged tokens follow the last column of their image, in the order of peaks.
                order = torch.arange(1, clusters + 1, device=device)
                place[row, stands] = own[:, -1:] * (width + 1) + order
        return None if score is None else Merge(into, weight, place)

    def _stages(self, layers: int) -> tuple[int, ...]:
        if self.pruning_layers is None:
            places = (max(1, round(layers * k / 32)) for k in (3, 7, 16))
            stages = tuple(k for k in dict.fromkeys(places) if k < layers)
        else:
            stages = tuple(k + 1 for k in self.pruning_layers)
        if stages and stages[-1] >= layers:
            raise beyond_depth("pruning_layers", self.pruning_layers, layers, layers - 2)
        if self.retained is not None and len(self.retained) != len(stages):
            raise InvalidParameter(
                f"retained has {len(self.retained)} counts, but tokens are pruned after "
                f"{len(stages)} of {layers} layers; give one for each."
            )
        return stages

    def _totals(self, k: int, layers: int, state: BoundaryState) -> list[list[int]]:
        """Tokens of each item of each row after boundary k."""
        stages, known = self._stages(layers), state.known
        if self.retained is not None:
            return [[self.retained[stages.index(k)]] * n for n in known.items]
        ratios = []
        for entered, items in zip(known.entered, known.items, strict=True):
            share = self.keep
            if isinstance(share, int):
                share = min(1.0, share * items / entered) if entered else 1.0
            ratios.append(ratios_of_share(share, stages, layers)[stages.index(k)])
        return item_totals(state, ratios)

    def _split(self, n: int, total: int) -> tuple[int, int, int]:
        """Tokens kept, tokens merged and clusters of an image of n where `total` is wanted."""
        if not self.recycle:
            return min(total, n - 1), 0, 0
        if self.retained is not None:
            return min(total, n - 1), *clusters_of(n - min(total, n - 1))
        for kept in range(min(total, n) - 1, 0, -1):
            recycled, clusters = clusters_of(n - kept)
            if kept + clusters <= total:
                return kept, recycled, clusters
        return total, 0, 0

    def _raters(self, state: BoundaryState) -> Tensor:
        """Relevant text tokens (B, items, T) of each image, counted among the text of a row."""
        text = state.valid & ~state.visual
        known, count = state.known, text.sum(1)
        columns, alive = columns_of(text, max(1, *known.text))
        items = max(1, *known.items)
        raters = alive.new_zeros(len(text), items, columns.shape[1])
        for rows, own in item_batches(state):
            behind = alive[rows] & (columns[rows] > own[:, -1:])
            picture, words = (state.hidden[rows[:, None], x] for x in (own, columns[rows]))
            raters[rows, state.item[rows, own[:, 0]]] = find_raters(picture, words, behind)
        # Where no text token is above average, the last one is used; rows without text have none.
        silent = ~raters.any(2)
        last = (count - 1).clamp(min=0)[:, None, None].expand(-1, items, 1)
        return raters.scatter(2, last, raters.gather(2, last) | silent[..., None])

    def _score(self, state: BoundaryState) -> Tensor:
        """Attention from the relevant text tokens of its image to each visual column, (B, N)."""
        text = state.valid & ~state.visual
        rank = (text.long().cumsum(1) - 1).clamp(min=0)
        raters = state.notes["raters"]
        marks = raters.gather(2, rank[:, None].expand(-1, raters.shape[1], -1)) & text[:, None]
        return rated(state.signals[DecoderHeads()], marks, state.item)


def find_raters(picture: Tensor, words: Tensor, alive: Tensor) -> Tensor:
    """Text tokens (M, T, D) relevant to an image (M, n, D): similarity above average, (M, T).

    alive (M, T) bool: the text tokens that may be selected.
    """
    alike = (picture.float() @ words.float().mT).masked_fill(~alive[:, None], float("-inf"))
    share = alike.softmax(2).mean(1).masked_fill(~alive, 0)
    return (share > share.sum(1, keepdim=True) / alive.sum(1, keepdim=True)) & alive


def rated(heads: Heads, marks: Tensor, item: Tensor) -> Tensor:
    """Mean over heads and relevant text tokens of the attention to every visual column, (B, N).

    marks (B, items, N) bool: text tokens relevant to each item. item (B, N): -1 for text.
    """
    asked = marks.any(1)
    rows = asked.long().argsort(dim=1, descending=True, stable=True)[:, : int(asked.sum(1).max())]
    score = torch.zeros(item.shape, device=item.device)
    for some, seen in heads.blocks(rows):
        mine = marks.gather(2, some[:, None].expand(-1, marks.shape[1], -1))
        mine = rows_at(mine, item.clamp(min=0))
        score += seen.mean(1).masked_fill(~mine.mT, 0).sum(1)
    return score / marks.sum(2).gather(1, item.clamp(min=0)).clamp(min=1)


def clustered(x: Tensor, clusters: int) -> tuple[Tensor, Tensor, Tensor]:
    """Cluster (B, N) of each of x (B, N, D), the peak of each (B, clusters), and weights (B, N).

    A cluster becomes the sum of its members times their weights, which is their mean.
    """
    cluster, centre = density_peaks(x, clusters)
    return cluster, centre, 1 / (sizes(cluster, clusters) + 1e-6).gather(1, cluster)


def clusters_of(dropped: int) -> tuple[int, int]:
    """How many of the dropped tokens are merged, and into how many clusters."""
    recycled = int(dropped * 0.3) + 1
    return recycled, recycled // 10 + 1


def sizes(cluster: Tensor, count: int) -> Tensor:
    """Members (B, count) of every cluster in cluster (B, N)."""
    zeros = torch.zeros(len(cluster), count, device=cluster.device)
    return zeros.scatter_add_(1, cluster, torch.ones(cluster.shape, device=cluster.device))
