"""The items of one task as batches of model inputs, prepared once for all settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image

from foveate.benchmarks.loaded_model import LoadedModel
from foveate.mini import world
from foveate.mini.evaluate import constant_colour, prompt
from foveate.mini.world.item import Item

BATCH = 50
_CHUNK = 250


@dataclass(frozen=True)
class Batch:
    """A batch of items.

    Attributes:
        numbers: indices of the items within the task.
        items: the items.
        inputs: the model inputs of the processor.
    """

    numbers: list[int]
    items: list[Item]
    inputs: dict[str, Any]


class TaskItems:
    """The first `n` items of a task.

    Args:
        loaded: the model.
        task: id of the task.
        n: number of items.
        split: "val", "test" or "test-ood". Default "test".
    """

    def __init__(self, loaded: LoadedModel, task: str, n: int, split: str = "test"):
        self.loaded = loaded
        self.task = task
        self.items = world.items(task, split, n, size=loaded.size, patch=loaded.patch)

    @cached_property
    def images(self) -> list[Image.Image]:
        """The images of all items."""
        made = []
        for first in range(0, len(self.items), _CHUNK):
            scenes = [item.scene for item in self.items[first : first + _CHUNK]]
            made += [Image.fromarray(pixels) for pixels in world.render(scenes)[0].numpy()]
        return made

    @cached_property
    def batches(self) -> list[Batch]:
        """All items in order."""
        return list(self.prepared(list(_chunks(range(len(self.items))))))

    @cached_property
    def constant_colour(self) -> list[Batch]:
        """All items, each image replaced by its mean colour."""
        groups = list(_chunks(range(len(self.items))))
        return list(self.prepared(groups, [constant_colour(image) for image in self.images]))

    def grouped(self, keys: Sequence[int]) -> Iterator[tuple[int, Batch]]:
        """(key, batch) with items of equal key; `keys` has one key per item."""
        for key in sorted(set(keys)):
            alike = [i for i, k in enumerate(keys) if k == key]
            for batch in self.prepared(list(_chunks(alike))):
                yield key, batch

    def prepared(
        self, groups: Sequence[Sequence[int]], images: Sequence[Image.Image] | None = None
    ) -> Iterator[Batch]:
        """One batch per group of item numbers, from the processor of the model."""
        images = self.images if images is None else images
        model, processor = self.loaded.model, self.loaded.processor
        for group in groups:
            texts = [prompt(processor, self.items[i].question) for i in group]
            inputs = processor(
                images=[images[i] for i in group], text=texts, padding=True, return_tensors="pt"
            ).to(model.device)
            for name, value in inputs.items():
                if torch.is_floating_point(value):
                    inputs[name] = value.to(model.dtype)
            yield Batch(list(group), [self.items[i] for i in group], dict(inputs))

    def constant_answer(self) -> np.ndarray:
        """Answers (n,), 1 or 0, of the best constant answer per set of candidates."""
        best: dict[tuple[str, ...], str] = {}
        for allowed in {item.candidates for item in self.items}:
            answers = [item.answer for item in self.items if item.candidates == allowed]
            best[allowed] = max(sorted(set(answers)), key=answers.count)
        return np.array([item.answer == best[item.candidates] for item in self.items], dtype=int)


def _chunks(numbers: Sequence[int]) -> Iterator[list[int]]:
    for first in range(0, len(numbers), BATCH):
        yield list(numbers[first : first + BATCH])
