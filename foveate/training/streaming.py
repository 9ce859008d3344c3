"""Loss and labels of streaming dialogues: the model learns when to answer.

VideoLLM-online, CVPR 2024, arXiv 2406.11816: after each frame the model predicts either the
interval token (continue watching) or the first token of an answer.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def stream_loss(
    logits: Tensor, labels: Tensor, frame_tokens: Tensor, weight: float = 1.0
) -> Tensor:
    """Mean cross-entropy over the labels, with another weight at frame tokens.

    The divisor counts every label once, whatever its weight.

    Args:
        logits: (B, L, V).
        labels: the next tokens, already shifted, -100 for none, (B, L).
        frame_tokens: which tokens belong to frames, bool (B, L).
        weight: of the loss at frame tokens.
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
    """Labels (L,) of one stream: the token after each frame, -100 elsewhere.

    Args:
        text: the stream: `frames` frames of `tokens` placeholders each, joined by `interval`.
        ids: its token ids, not shifted, (L,).
        offsets: characters (start, stop) of every token, from a fast tokenizer, (L, 2).
        frames: number of frames.
        tokens: placeholders per frame.
        placeholder: text of a placeholder.
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
    """Characters (start, stop) after each frame that are labels, counted from the first frame.

    Args:
        frames: number of frames.
        tokens: placeholders per frame.
        placeholder: text of a placeholder.
        interval: text between two frames.
    """
    width = tokens * len(placeholder)
    length = len(interval) or len(placeholder)
    starts = (j * (width + len(interval)) + width for j in range(frames))
    return [(start, start + length) for start in starts]
