"""Learning when to speak: the loss of a streaming dialogue, and what of its text is learned.

VideoLLM-online, CVPR 2024, arXiv 2406.11816: behind each frame the model learns whether to go on
watching (the interval comes next) or to answer (the stream ends).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def stream_loss(
    logits: Tensor, labels: Tensor, frame_tokens: Tensor, weight: float = 1.0
) -> Tensor:
    """Mean cross entropy over the labels, those at frame tokens counted `weight` times.

    logits (B, L, V). labels (B, L): the next tokens, already shifted, -100 for none. frame_tokens
    (B, L) bool. The divisor counts every label once, whatever its weight.
    """
    each = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    share = torch.where(frame_tokens.flatten(), weight, 1.0)
    return (each * share).sum() / (labels >= 0).sum()


def stream_labels(
    text: str,
    ids: Tensor,
    offsets: Tensor,
    frames: int,
    tokens: int,
    placeholder: str = "<v>",
    interval: str = ",",
) -> Tensor:
    """Ids (L,) of what is learned behind each frame of one stream in a text, -100 elsewhere.

    Args:
        text: with `frames` frames in a row, each `tokens` placeholders, joined by `interval`.
        ids: of its tokens (L,), not shifted.
        offsets: characters (start, stop) of every token (L, 2), as fast tokenizers tell.
        frames: how many there are.
        tokens: placeholders of a frame.
        placeholder: text of one.
        interval: text between two frames.
    """
    first = text.index(placeholder)
    learned = torch.zeros_like(ids, dtype=torch.bool)
    for start, stop in stream_learn_ranges(frames, tokens, placeholder, interval):
        learned |= (offsets[:, 0] < first + stop) & (offsets[:, 1] > first + start)
    return ids.masked_fill(~learned, -100)


def stream_learn_ranges(
    frames: int, tokens: int, placeholder: str = "<v>", interval: str = ","
) -> list[tuple[int, int]]:
    """Characters (start, stop) behind each of `frames` frames whose prediction is learned.

    A frame is `tokens` placeholders, frames are joined by `interval`; counted from the first one.
    """
    width = tokens * len(placeholder)
    length = len(interval) or len(placeholder)
    starts = (j * (width + len(interval)) + width for j in range(frames))
    return [(start, start + length) for start in starts]
