"""Counts of tokens, text tokens and frames along a prompt."""

from __future__ import annotations

import torch
from torch import Tensor


def counters(frame: Tensor, valid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each column: tokens before it, text tokens and frames up to it, (B, N) each.

    Args:
        frame: (B, N) int, number of the column's frame, -1 for text. A new number starts a new
            frame.
        valid: (B, N) bool, False at padding, which is not counted.
    """
    visual = (frame >= 0) & valid
    before = torch.cat([frame.new_full((len(frame), 1), -1), frame[:, :-1]], 1)
    tokens = valid.long().cumsum(1).sub(1).clamp(min=0)
    words = ((frame < 0) & valid).long().cumsum(1)
    return tokens, words, (visual & (frame != before)).long().cumsum(1)
