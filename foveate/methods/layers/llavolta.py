"""Average-pool runs of visual tokens before one LLM layer (1-D pooling).

Chen et al., "Efficient Large Multi-modal Models via Visual Context Compression", NeurIPS 2024,
arXiv 2406.20092.

Rule: before LLM layer k, every window of S consecutive visual tokens becomes one token, their mean.
Its position id is the mean of theirs, rounded down:

    x'_j = mean(x_{jS}, ..., x_{jS+S-1})

where x are the hidden states of the visual tokens, counted from 0, and j counts the windows.

Pooling is 1-D, in reading order, so that a window may cross the end of a row of patches (`GridPool`
pools in two dimensions). Text is unchanged.

Needs: nothing besides the tokens.

Cost: one addition per token.

Differences: where the number of tokens is not a multiple of the number of windows that `keep` asks
for, windows differ in length by one. With `stride`, the tokens after the last full window are
dropped. Every image or video is pooled separately.

Notes: in training, S and k follow a schedule from strong pooling to none (`setting_at`): `foveate
train --method llavolta`. Its run on nano is in perf/results/llavolta.md.

    model, processor = foveate.mini("nano")
    inputs = processor(images=image, text=prompt, return_tensors="pt")
    with foveate.attach(model, foveate.LLaVolta(keep=0.25, layer=1)):
        out = model.generate(**inputs, max_new_tokens=8)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.budget import FROM_LAYER, Keep, resolve
from foveate.errors import InvalidParameter
from foveate.method import Method, register
from foveate.methods.layers.base import beyond_depth, item_batches
from foveate.ops.transfer import on_device
from foveate.parts import BoundaryState, LayersPart, Merge


@register
@dataclass(frozen=True, kw_only=True, repr=False)
class LLaVolta(Method, LayersPart):
    """LLaVolta; the docstring of its module states the rule.

    Attributes:
        keep: tokens from LLM layer k on; k is `layer`; an int is a count per image or video, a
            float in (0, 1] a retention ratio, 1 / S of the paper.
        layer: k, the first LLM layer with pooled tokens, 0-based; 16 is the paper's light preset. 0
            with `positions="packed"` pools the output of the projector.
        stride: S, the window in tokens, from 1 on, instead of `keep`.
    """

    slug = "llavolta"
    paper = "arXiv 2406.20092"
    keep_means = FROM_LAYER

    keep: Keep = 0.125
    positions: str = "original"
    layer: int = 2
    stride: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.layer >= 0:
            raise InvalidParameter(f"layer={self.layer!r} is not a decoder layer: use 0 or more.")
        if self.stride is not None and not self.stride >= 1:
            raise InvalidParameter(f"stride={self.stride!r} is not valid: use 1 or more.")

    def boundaries(self, layers: int) -> tuple[int, ...]:
        if self.layer >= layers:
            raise beyond_depth("layer", self.layer, layers)
        return (self.layer,)

    def at_boundary(self, k: int, layers: int, state: BoundaryState) -> Merge | None:
        into = torch.arange(state.item.shape[1], device=state.item.device).repeat(
            len(state.item), 1
        )
        weight = torch.ones(into.shape, device=into.device)
        changed = False
        for rows, columns in item_batches(state):
            n = columns.shape[1]
            window, length = self._windows(n)
            if len(length) == n:
                continue
            window, length = (on_device(x, into.device) for x in (window, length))
            # Position ids are consecutive, so their truncated mean is the id of the middle token.
            middle = length.cumsum(0) - length + (length - 1) // 2
            taken = columns[:, middle[window.clamp(min=0)]].masked_fill(window < 0, -1)
            into[rows[:, None], columns] = taken
            weight[rows[:, None], columns] = 1 / length[window.clamp(min=0)].float()
            changed = True
        return Merge(into, weight) if changed else None

    def _windows(self, n: int) -> tuple[Tensor, Tensor]:
        """Window (n,) of every token, -1 for none, and the length of every window."""
        if self.stride is None:
            count = resolve(self.keep, n)
            window = torch.arange(n) * count // n
        else:
            stride = min(self.stride, n)
            count = n // stride
            window = torch.arange(n) // stride
            window[window >= count] = -1
        return window, window[window >= 0].bincount(minlength=count)


def setting_at(
    step: int, strides: Sequence[int], layers: Sequence[int], pivots: Sequence[int]
) -> tuple[int, int]:
    """Stride and layer of a training step, counted from 0.

    The next pair is used from the step after each of the ascending `pivots` on. After a stride of 1
    it does not change.
    """
    stage = min(bisect_left(pivots, step), len(strides) - 1)
    if 1 in strides:
        stage = min(stage, list(strides).index(1))
    return strides[stage], layers[stage]
