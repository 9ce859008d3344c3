"""Does a streaming assistant speak at the right time, and say the right thing? By turns.

The metrics of VideoLLM-online, CVPR 2024, arXiv 2406.11816, which VideoLLM-MoD reports.
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
    """How a dialogue is written. frame, interval, eos: ids of a frame token, of what stands between
    two frames, and of the end of an answer. tokens: of a frame. threshold: probability of the
    interval below which the model speaks."""

    frame: int
    interval: int
    eos: int
    tokens: int
    threshold: float = 0.0

    def speaks(self, logits: Tensor) -> Tensor:
        """(N,) bool: the model answers behind these frames; logits (N, V) of their last tokens.

        A row under the threshold is zeroed as a whole, so that id 0 is its likeliest.
        """
        share = logits.softmax(-1)
        if self.threshold > 0:
            quiet = share[:, self.interval] >= self.threshold
            share = share * quiet[:, None]
        return share.argmax(-1) != self.interval

    def demo_token(self, logits: Tensor) -> int:
        """What comes next behind a frame in a live talk; logits (V,).

        Unlike in the metrics only the interval itself is ruled out under the threshold.
        """
        share = logits.softmax(-1)
        if share[self.interval] < self.threshold:
            share = share.index_fill(0, torch.tensor([self.interval], device=share.device), 0)
        return int(share.argmax())


@dataclass(frozen=True)
class StreamScores:
    """Means over the turns of a dialogue. frames: |frames| between answer and right moment."""

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
        labels: its next tokens (L,), -100 for those that nobody learns.
        stream: how the dialogue is written.
        pictures: the model's further arguments for the first so many frames, such as
            `pixel_values`.
    """

    def answered(tokens: Tensor) -> Tensor:
        given = pictures(_frames(tokens, stream))
        with torch.no_grad():
            logits = model(input_ids=tokens[None], use_cache=False, **given).logits[0]
        if len(logits) != len(tokens):
            raise UnsupportedCall(
                f"The attached method leaves {len(logits)} of {len(tokens)} columns, and a "
                "stream is judged behind each frame; attach a method that keeps every column."
            )
        return logits

    def follow(start: int, new: Tensor) -> Tensor:
        return answered(torch.cat([ids[:start], new]))[start:]

    return stream_metrics(ids, labels, answered(ids), follow, stream)


def stream_metrics(
    ids: Tensor, labels: Tensor, logits: Tensor, follow: Follow, stream: Stream
) -> StreamScores:
    """How well one dialogue was continued, teacher-forced.

    ids, labels (L,): the dialogue and its next tokens, -100 for those that nobody learns. logits
    (L, V). follow(n, new): logits (M, V) of tokens `new` (M,) behind the first n of the dialogue.
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
    """Frames after which the model speaks that should have spoken behind the first `last` tokens.

    As many are shown as were there before, so that late is no likelier than early.
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
    """("frame" | "query", number) as a live talk takes them in, from their ascending times.

    A query is answered before the first frame that is later; with one of its own time, behind it.
    """
    waiting = 0
    for number, time in enumerate(frames):
        while waiting < len(queries) and queries[waiting] < time:
            yield "query", waiting
            waiting += 1
        yield "frame", number
    yield from (("query", i) for i in range(waiting, len(queries)))
