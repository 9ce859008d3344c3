"""Samples as batches of model inputs, prepared once for all settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foveate.benchmarks.task_items import Batch
from foveate.model_inputs import Media, images_of, model_inputs, video_of, watches_videos
from foveate.tuning.samples import Sample


def batches_of(
    model: Any, processor: Any, samples: Sequence[Sample], size: int, frames: int = 8
) -> dict[str, list[Batch]]:
    """Batches of at most `size` samples, by answer mode "likelihood" or "generate".

    All samples of a batch have the same choices and the same number of images.

    Args:
        model: the model.
        processor: its processor. Without a video processor, videos are passed as images.
        samples: the samples.
        size: batch size.
        frames: frames per video. Default 8.
    """
    watches = watches_videos(model, processor)
    groups: dict[tuple, list[tuple[int, Media]]] = {}
    made: dict[str, list[Batch]] = {}

    def prepare(group: list[tuple[int, Media]]) -> Batch:
        items: list[Any] = [samples[number] for number, _ in group]
        questions = [item.question for item in items]
        inputs = model_inputs(model, processor, questions, [media for _, media in group])
        return Batch([number for number, _ in group], items, inputs)

    for number, sample in enumerate(samples):
        mode = "likelihood" if sample.likely else "generate"
        media = _media(sample, frames, watches)
        choices = sample.candidates if sample.likely else ()
        key = mode, choices, media.kind, len(media.pictures)
        groups.setdefault(key, []).append((number, media))
        if len(groups[key]) == size:
            # A full batch is prepared at once, which frees its decoded images.
            made.setdefault(mode, []).append(prepare(groups.pop(key)))
    for (mode, *_), group in groups.items():
        made.setdefault(mode, []).append(prepare(group))
    return made


def _media(sample: Sample, frames: int, watches: bool) -> Media:
    if sample.video is None:
        return images_of(sample.images)
    return video_of(sample.video, frames, watches)
