"""Training batches: images and questions of the procedural world, drawn by step number."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from .world.keys import generator
from .world.labels import ink, patch_words, picture_labels
from .world.render import render
from .world.scene import Canvas, Scene
from .world.tasks import TASKS, Question, Task


@dataclass
class TrainingBatch:
    """B images with their labels and questions.

    Attributes:
        scenes: what each image shows, before rendering.
        pixels: images, uint8 (B, H, W, 3).
        ink: 1 where an object or a letter covers the pixel, else 0, (B, H, W).
        patch_words: 1 for each word that is true of the patch, (B, P, words).
        picture_labels: 1 for each (shape, colour) pair and word in the image, (B, labels).
        questions: the questions about each image.
    """

    scenes: list[Scene]
    pixels: Tensor
    ink: Tensor
    patch_words: Tensor
    picture_labels: Tensor
    questions: list[list[Question]]

    def to(self, device) -> "TrainingBatch":
        """The same batch with its tensors on a device, labels as float32."""
        labels = (self.ink, self.patch_words, self.picture_labels)
        placed = (label.to(device).float() for label in labels)
        return TrainingBatch(self.scenes, self.pixels.to(device), *placed, self.questions)

    def normalised(self) -> Tensor:
        """Images as the image processor returns them: float32 (B, 3, H, W) in -1..1."""
        return (self.pixels.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5


def draw(
    first: int,
    batch: int,
    canvas: Canvas,
    seed: int,
    weights: dict[str, float],
    level: float,
    questions: int,
    tasks: Mapping[str, Task] = TASKS,
) -> TrainingBatch:
    """Images ``first`` to ``first + batch - 1`` of the endless training stream of a seed.

    Args:
        first: number of the first image.
        batch: number of images.
        canvas: image and patch size.
        seed: of the stream.
        weights: by task, how often it draws the scene and asks questions.
        level: difficulty of the scenes, in 0..1.
        questions: questions per image; 0 asks none (vision warm-up).
        tasks: the tasks by id.
    """
    names = list(weights)
    share = np.array([weights[name] for name in names])
    share = np.cumsum(share / share.sum())
    scenes, asked = [], []
    for index in range(first, first + batch):
        rng = generator("train", f"lesson{seed}", index)

        def pick(rng=rng) -> str:
            return names[min(int(np.searchsorted(share, rng.random())), len(names) - 1)]

        turn = int(rng.integers(2**31))
        scene, question = tasks[pick()].draw(rng, canvas, "train", turn, level, words=0.45)
        scenes.append(scene)
        row = [question]
        for _ in range(3 * questions):
            if len(row) >= questions:
                break
            other = tasks[pick()].ask(rng, scene, "train")
            # Skip repeated questions: an image with one word allows few others.
            if other is not None and all(other.text != q.text for q in row):
                row.append(other)
        asked.append([row[i] for i in rng.permutation(len(row))] if questions else [])
    pixels, owners = render(scenes, owners=True)
    return TrainingBatch(
        scenes,
        pixels,
        ink(scenes, owners),
        patch_words(scenes, owners),
        picture_labels(scenes),
        asked,
    )
