"""Batches of training pictures with their questions, drawn from the world by step number."""

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
class Lesson:
    """Pictures uint8 (B, H, W, 3), ink (B, H, W), labels of patches (B, P, W) and of pictures."""

    scenes: list[Scene]
    pixels: Tensor
    ink: Tensor
    patch_words: Tensor
    picture_labels: Tensor
    questions: list[list[Question]]

    def to(self, device) -> "Lesson":
        """The same lesson with its tensors on a device, labels as float32 whatever they came as."""
        labels = (self.ink, self.patch_words, self.picture_labels)
        placed = (label.to(device).float() for label in labels)
        return Lesson(self.scenes, self.pixels.to(device), *placed, self.questions)

    def normalised(self) -> Tensor:
        """Pictures as the image processor gives them: float32 (B, 3, H, W) in -1..1."""
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
) -> Lesson:
    """Pictures ``first`` to ``first + batch - 1`` of the endless training stream of a seed.

    ``weights`` says how often each of ``tasks`` draws the scene and asks; ``level`` is the
    difficulty in 0..1. With ``questions`` = 0 no question is asked (vision warm-up).
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
            # A picture with one word has little else to ask: the same question twice is waste.
            if other is not None and all(other.text != q.text for q in row):
                row.append(other)
        asked.append([row[i] for i in rng.permutation(len(row))] if questions else [])
    pixels, owners = render(scenes, owners=True)
    return Lesson(
        scenes,
        pixels,
        ink(scenes, owners),
        patch_words(scenes, owners),
        picture_labels(scenes),
        asked,
    )
