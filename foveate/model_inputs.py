"""A question and the images or the video that it is about, as the inputs of a model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from foveate.engine.anatomy import anatomy
from foveate.errors import MediaError
from foveate.media import Frames, load_image, read_frames
from foveate.prompts import Turn, starts_by_itself, turn

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg")
"""Suffixes of files that are read as videos."""


@dataclass(frozen=True)
class Media:
    """What a question is about.

    Attributes:
        kind: "image" or "video", as the model gets it.
        pictures: images, or the frames of one video in order, as PIL images.
        facts: frame rate and frame indices of a video, as processors take them.
        asked: "image" or "video", as the caller gave it. A model that reads no videos gets the
            frames of a video as images.
    """

    kind: str
    pictures: list[Any]
    facts: dict[str, Any]
    asked: str

    def turn(self, processor: Any, question: str) -> Turn:
        """The user turn of a question about it."""
        if self.asked == "image":
            return turn(processor, question, len(self.pictures))
        asked = turn(processor, question, 1, "video")
        shown = 1 if self.kind == "video" else len(self.pictures)
        return replace(
            asked, kind=self.kind, before=asked.before * shown, after=asked.after * shown
        )


def images_of(sources: Sequence[Any]) -> Media:
    """Images from whatever `foveate.media.load_image` reads."""
    return Media("image", [load_image(source) for source in sources], {}, "image")


def video_of(source: Any, frames: int, watches: bool) -> Media:
    """A video from a path, of which `frames` frames are read, or from `foveate.media.Frames`.

    watches: whether the model reads videos.
    """
    read = source if isinstance(source, Frames) else read_frames(source, frames)
    if not watches:
        return Media("image", read.images, {}, "video")
    places = [round(second * read.rate) for second in read.seconds]
    facts = {"fps": read.rate, "frames_indices": places, "total_num_frames": max(places) + 1}
    return Media("video", read.images, facts, "video")


def media_of(model: Any, processor: Any, given: Any, frames: int) -> Media:
    """One image, a list of images, or one video, whichever `given` is."""
    items = [*given] if isinstance(given, list | tuple) else [given]
    if not items:
        raise MediaError("No image or video was given; give at least one.")
    videos = [item for item in items if _is_video(item)]
    if not videos:
        return images_of(items)
    if len(items) > 1:
        raise MediaError(
            f"{len(items)} images or videos were given, {len(videos)} of them a video; give one "
            "video alone, or images only."
        )
    return video_of(items[0], frames, watches_videos(model, processor))


def watches_videos(model: Any, processor: Any) -> bool:
    """Whether a model and its processor take videos."""
    return hasattr(processor, "video_processor") and "video" in anatomy(model).modalities


def model_inputs(
    model: Any, processor: Any, questions: Sequence[str], media: Sequence[Media]
) -> dict[str, Any]:
    """A batch of one user turn per row, padded on the left, on the model's device.

    media: what each question is about, all of the same kind with as many pictures.
    """
    turns = [one.turn(processor, asked) for asked, one in zip(questions, media, strict=True)]
    texts = [asked.text(processor) for asked in turns]
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


def _is_video(item: Any) -> bool:
    if isinstance(item, str | os.PathLike):
        return os.fspath(item).lower().endswith(VIDEOS)
    return isinstance(item, Frames)


def _shown(media: Sequence[Media]) -> dict[str, Any]:
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
