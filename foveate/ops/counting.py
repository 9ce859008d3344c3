"""Counters along a prompt: tokens, words and frames."""

from __future__ import annotations

import torch
from torch import Tensor


def counters(frame: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Per column of a prompt: tokens before it, and words and frames up to it, each (B, N).

    frame (B, N) int: number of the frame that a column belongs to, -1 for text; a new number in
    the next column is a new frame. valid (B, N) bool: no padding, which counts for nothing.
    """
    visual = (frame >= 0) & valid
    before = torch.cat([frame.new_full((len(frame), 1), -1), frame[:, :-1]], 1)
    tokens = valid.long().cumsum(1).sub(1).clamp(min=0)
    words = ((frame < 0) & valid).long().cumsum(1)
    return tokens, words, (visual & (frame != before)).long().cumsum(1)
