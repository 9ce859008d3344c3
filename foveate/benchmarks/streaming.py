"""Metrics of streaming video dialogue: does the model answer at the right time, and correctly?

LM-PPL, TimeDiff, fluency and LM correctness of VideoLLM-online, CVPR 2024, arXiv 2406.11816, as
VideoLLM-MoD reports them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from foveate.errors import UnsupportedCall

Follow = Callable[[int, Tensor], Tensor]
IGNORED = -100


@dataclass(frozen=True, kw_only=True)
class Stream:
    """The token layout of a streaming dialogue.

    Attributes:
        frame: id of a frame token.
        interval: id of the separator between two frames.
        eos: id of the end of an answer.
        tokens: number of tokens per frame.
        threshold: the model answers if the probability of the separator is below this value.
            Default 0: only the most likely token counts.
    """

    frame: int
    interval: int
    eos: int
    tokens: int
    threshold: float = 0.0

    def speaks(self, logits: Tensor) -> Tensor:
        """(N,) bool: whether the model answers after each frame, from logits (N, V).

        As in the reference code, a row below the threshold is set to zero, so that id 0 is its
        most likely token.
        """
        share = logits.softmax(-1)
        if self.threshold > 0:
            quiet = share[:, self.interval] >= self.threshold
            share = share * quiet[:, None]
        return share.argmax(-1) != self.interval

    def demo_token(self, logits: Tensor) -> int:
        """The next token after a frame in live inference; logits (V,).

        Unlike in the metrics, only the separator is excluded below the threshold.
        """
        share = logits.softmax(-1)
        if share[self.interval] < self.threshold:
            share = share.index_fill(0, torch.tensor([self.interval], device=share.device), 0)
        return int(share.argmax())


@dataclass(frozen=True)
class StreamScores:
    """Means over the turns of a dialogue.

    Attributes:
        perplexity: LM-PPL, perplexity of the answers.
        frames: TimeDiff, absolute distance in frames between the answer and the correct time.
        fluency: share of correct tokens before the first error, with the time of the answer.
        correctness: share of correct answer tokens before the first error.
    """

    perplexity: float
    frames: float
    fluency: float
    correctness: float


def evaluate(
    model: Any,
    ids: Tensor,
    labels: Tensor,
    stream: Stream,
    pictures: Callable[[int], Mapping[str, Any]] = lambda frames: {},
) -> StreamScores:
    """`stream_metrics` of one dialogue on a model, with the method that is attached to it.

    Args:
        model: a transformers model that answers `input_ids` (1, L) with logits (1, L, V).
        ids: the dialogue (L,), every frame with all its tokens.
        labels: its next tokens (L,), -100 for tokens that are not trained.
        stream: the token layout.
        pictures: returns further model arguments, such as `pixel_values`, for the first n frames.
    """

    def answered(tokens: Tensor) -> Tensor:
        given = pictures(_frames(tokens, stream))
        with torch.no_grad():
            logits = model(input_ids=tokens[None], use_cache=False, **given).logits[0]
        if len(logits) != len(tokens):
            raise UnsupportedCall(
                f"The attached method keeps {len(logits)} of {len(tokens)} tokens, but the metrics "
                "need the logits after every frame: use a method that keeps every token."
            )
        return logits

    def follow(start: int, new: Tensor) -> Tensor:
        return answered(torch.cat([ids[:start], new]))[start:]

    return stream_metrics(ids, labels, answered(ids), follow, stream)


def stream_metrics(
    ids: Tensor, labels: Tensor, logits: Tensor, follow: Follow, stream: Stream
) -> StreamScores:
    """The metrics of one dialogue with teacher forcing.

    Args:
        ids: the dialogue (L,).
        labels: its next tokens (L,), -100 for tokens that are not trained.
        logits: logits (L, V) of the dialogue.
        follow: follow(n, new) returns logits (M, V) of tokens `new` (M,) after the first n tokens.
        stream: the token layout.
    """
    words, gaps, fluency, prefixes = [], [], [], []
    ends = ((ids == stream.eos).nonzero()[:, 0] + 1).tolist()
    spans = list(zip([0, *ends], ends, strict=False))
    for turn, (start, stop) in enumerate(spans):
        own, told, said = ids[start:stop], labels[start:stop], logits[start:stop]
        watched = (own == stream.frame) & (told != IGNORED)
        spoken = (told != IGNORED) & ~watched
        right = None
        if spoken.any():
            words.append(float(cross_entropy(said[spoken], told[spoken]).exp()))
            right = _prefix(said[spoken].argmax(-1) == told[spoken])
            prefixes.append(right / int(spoken.sum()))
        if not watched.any():
            continue
        early = stream.speaks(said[watched]).nonzero()
        seen = int(watched.sum())
        if len(early):
            gap = seen - 1 - int(early[0])
        else:
            last = start + int(watched.nonzero()[-1]) + 1
            after = ids[slice(*spans[turn + 1])] if turn + 1 < len(spans) else ids[:0]
            gap = -_late(last, _frames(own, stream), _frames(after, stream), follow, stream, ids)
        gaps.append(float(abs(gap)))
        if right is not None:
            good = seen + right if gap == 0 else seen - gap if gap > 0 else seen - 1
            fluency.append(good / (seen + int(spoken.sum())))
    return StreamScores(_mean(words, 1), _mean(gaps, 0), _mean(fluency, 1), _mean(prefixes, 1))


def _late(last: int, shown: int, coming: int, follow: Follow, stream: Stream, like: Tensor) -> int:
    """Frames by which the answer is late; it was due after the first `last` tokens.

    At most as many frames are shown as before, so that late and early answers count alike.
    """
    more = min(coming, shown - 1)
    if more < 1:
        return 0
    frame = [stream.interval, *[stream.frame] * stream.tokens]
    new = torch.tensor(frame * more, device=like.device)
    spoke = stream.speaks(follow(last, new)[len(frame) - 1 :: len(frame)]).nonzero()
    return int(spoke[0]) + 1 if len(spoke) else more


def _frames(ids: Tensor, stream: Stream) -> int:
    return int((ids == stream.frame).sum()) // stream.tokens


def _prefix(right: Tensor) -> int:
    """Entries before the first wrong one."""
    return int(right.long().cumprod(0).sum())


def _mean(values: list[float], missing: float) -> float:
    return sum(values) / len(values) if values else float(missing)


def in_order(frames: Sequence[float], queries: Sequence[float]) -> Iterator[tuple[str, int]]:
    """("frame" | "query", number) in the order of live inference, from ascending times.

    A query comes before the first later frame, and after a frame of the same time.
    """
    waiting = 0
    for number, time in enumerate(frames):
        while waiting < len(queries) and queries[waiting] < time:
            yield "query", waiting
            waiting += 1
        yield "frame", number
    yield from (("query", i) for i in range(waiting, len(queries)))
