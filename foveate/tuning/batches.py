"""Samples as tensors: prepared once, asked under every setting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from foveate.benchmarks.task_items import Batch
from foveate.engine.anatomy import anatomy
from foveate.media import load_image, read_frames
from foveate.prompts import starts_by_itself, turn
from foveate.tuning.samples import Sample


@dataclass(frozen=True)
class Media:
    """What a sample shows: "image" or "video", pictures or frames in order, facts of a video."""

    kind: str
    pictures: list[Any]
    facts: dict[str, Any]


def batches_of(
    model: Any, processor: Any, samples: Sequence[Sample], size: int, frames: int = 8
) -> dict[str, list[Batch]]:
    """By how they are answered, "likelihood" or "generate", batches of at most `size` samples.

    Samples of one batch have the same choices and as many pictures; `numbers` count all samples.
    frames: of each video. A model that reads no videos gets them as pictures.
    """
    watches = hasattr(processor, "video_processor") and "video" in anatomy(model).modalities
    groups: dict[tuple, list[tuple[int, Media]]] = {}
    made: dict[str, list[Batch]] = {}

    def prepare(group: list[tuple[int, Media]]) -> Batch:
        items: list[Any] = [samples[number] for number, _ in group]
        inputs = _inputs(model, processor, items, [media for _, media in group])
        return Batch([number for number, _ in group], items, inputs)

    for number, sample in enumerate(samples):
        mode = "likelihood" if sample.likely else "generate"
        media = _media(sample, frames, watches)
        choices = sample.candidates if sample.likely else ()
        key = mode, choices, media.kind, len(media.pictures)
        groups.setdefault(key, []).append((number, media))
        if len(groups[key]) == size:
            # Decoded pictures are let go of as soon as a batch is full.
            made.setdefault(mode, []).append(prepare(groups.pop(key)))
    for (mode, *_), group in groups.items():
        made.setdefault(mode, []).append(prepare(group))
    return made


def _media(sample: Sample, frames: int, watches: bool) -> Media:
    if sample.video is None:
        return Media("image", [load_image(image) for image in sample.images], {})
    read = read_frames(sample.video, frames)
    if not watches:
        return Media("image", read.images, {})
    places = [round(second * read.rate) for second in read.seconds]
    facts = {"fps": read.rate, "frames_indices": places, "total_num_frames": max(places) + 1}
    return Media("video", read.images, facts)


def _shown(media: list[Media]) -> dict[str, Any]:
    """A processor's arguments."""
    if media[0].kind == "video":
        return {
            "videos": [np.stack([np.asarray(p) for p in one.pictures]) for one in media],
            "video_metadata": [one.facts for one in media],
            "do_sample_frames": False,
        }
    if len(media[0].pictures) == 1:
        return {"images": [one.pictures[0] for one in media]}
    return {"images": [one.pictures for one in media]}


def _inputs(
    model: Any, processor: Any, samples: Sequence[Sample], media: list[Media]
) -> dict[str, Any]:
    texts = [_prompt(processor, s, m) for s, m in zip(samples, media, strict=True)]
    special = not all(starts_by_itself(processor, text) for text in texts)
    tokenizer = processor.tokenizer
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    try:
        # The last column of every row must be the end of its prompt.
        inputs = processor(
            text=texts,
            padding=True,
            add_special_tokens=special,
            return_tensors="pt",
            **_shown(media),
        )
    finally:
        tokenizer.padding_side = side
    inputs = dict(inputs.to(model.device))
    for name, value in inputs.items():
        if torch.is_floating_point(value):
            inputs[name] = value.to(model.dtype)
    return inputs


def _prompt(processor: Any, sample: Sample, media: Media) -> str:
    shown = 1 if media.kind == "video" else len(media.pictures)
    if sample.video is None:
        return turn(processor, sample.question, shown).text(processor)
    # Where a model reads no videos, pictures stand where the video would.
    asked = turn(processor, sample.question, 1, "video")
    placed = replace(asked, kind=media.kind, before=asked.before * shown, after=asked.after * shown)
    return placed.text(processor)
