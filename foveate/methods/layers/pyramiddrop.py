"""Prune visual tokens inside the LLM in stages, by attention from the last prompt token.

Xing et al., "PyramidDrop: Accelerating Your Large Vision-Language Models via Pyramid Visual
Redundancy Reduction", CVPR 2025, arXiv 2410.17247.

Rule: before each of a few layers k_s, s = 1, 2, ..., the visual tokens are ranked by the attention
that the last prompt token pays them, with the queries and keys of layer k_s itself, softmax over
all keys, mean over heads. Of the n that entered the LLM,

    floor(n r_s), r_s = lambda^s

are kept from layer k_s on; lambda follows from `keep`. Text is kept; positions are renumbered at
each stage. In training, the tokens before each answer are the queries instead of the last token,
and a sample without an answer keeps all tokens.

Needs: one query row and the keys of the next LLM layer.

Cost: one extra projection of keys per stage.

Differences: with several images in a sample, all its visual tokens are ranked together; the
official code ranks those of the first image only.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.PyramidDrop(keep=0.6)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from foveate.budget import MEAN_OVER_LAYERS, Keep
from foveate.errors import InvalidParameter
from foveate.method import Method, register
from foveate.methods.layers.base import IGNORED, ScoredLayers, quarters, ratios_of_share
from foveate.methods.layers.staircase import check_depth, check_staircase, staged_counts
from foveate.parts import BoundaryState, Merge, Soft, Widths


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class PyramidDrop(Method, ScoredLayers):
    """PyramidDrop; the docstring of its module states the rule.

    Attributes:
        keep: mean over all LLM layers, from which lambda follows; an int is a count per image or
            video, a float in (0, 1] a retention ratio. The default gives lambda = 0.5.
        layer_list: ascending 0-based layers before which tokens are pruned, from 1 on; None is a
            quarter, a half and three quarters of the depth.
        image_token_ratio_list: retention ratio from each of these layers on, falling, instead of
            `keep`.
        min_tokens: smallest number of visual tokens per sample, 0 or more.
    """

    slug = "pyramiddrop"
    paper = "arXiv 2410.17247"
    prompt_agnostic = False
    keep_means = MEAN_OVER_LAYERS

    keep: Keep = 0.46875
    layer_list: tuple[int, ...] | None = None
    image_token_ratio_list: tuple[float, ...] | None = None
    min_tokens: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_staircase(self.layer_list, self.image_token_ratio_list)
        if not self.min_tokens >= 0:
            raise InvalidParameter(f"min_tokens={self.min_tokens!r} is not valid: use 0 or more.")

    def boundaries(self, layers: int) -> tuple[int, ...]:
        if self.layer_list is None:
            stages = quarters(layers)
        else:
            stages = self.layer_list
        check_depth(stages, self.image_token_ratio_list, layers)
        return stages

    def ratios(self, layers: int, share: float) -> tuple[float, ...]:
        """Retention ratio from each stage on for a mean of `share`."""
        if self.image_token_ratio_list is not None:
            return self.image_token_ratio_list
        return ratios_of_share(share, self.boundaries(layers), layers)

    def cost(self, n: int, keep: int, widths: Widths) -> int:
        return 2 * n * widths.keys * widths.model + 2 * n * widths.model

    def counts(self, k: int, layers: int, state: BoundaryState) -> list[int]:
        stage = self.boundaries(layers).index(k)
        targets = staged_counts(state, self.keep, lambda share: self.ratios(layers, share)[stage])
        return [max(self.min_tokens, n) for n in targets]

    def scores(self, k: int, layers: int, state: BoundaryState) -> Tensor:
        if state.labels is None:
            return ranking(state.attention(state.last[:, None]))
        rows, real = answer_rows(state.labels)
        return ranking(state.attention(rows), real)

    def at_boundary(
        self, k: int, layers: int, state: BoundaryState
    ) -> Tensor | Merge | Soft | None:
        stays = super().at_boundary(k, layers, state)
        if state.labels is None or not isinstance(stays, Tensor):
            return stays
        return stays | ~answer_starts(state.labels).any(1, keepdim=True)


def ranking(attention: Tensor, real: Tensor | None = None) -> Tensor:
    """Score (B, N) of every column: attention (B, H, R, N), mean over heads, then over query rows.

    real (B, R) bool: where given, only these query rows count.
    """
    rows = attention.float().mean(1)
    if real is None:
        return rows.mean(1)
    # Rows that do not count may be padding, whose attention is NaN.
    rows = rows.masked_fill(~real[..., None], 0)
    return rows.sum(1) / real.sum(1, keepdim=True).clamp(min=1)


def answer_rows(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Columns (B, R) before each answer in labels (B, N), and which of them are real."""
    starts = answer_starts(labels)
    most = max(1, int(starts.sum(1).max()))
    rows = starts.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    return rows, starts.gather(1, rows)


def answer_starts(labels: Tensor) -> Tensor:
    """(B, N - 1) bool: columns of labels (B, N) that are followed by an answer.

    An answer starts where a supervised label follows an ignored one.
    """
    supervised = labels != IGNORED
    return supervised[:, 1:] & ~supervised[:, :-1]
