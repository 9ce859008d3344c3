"""Batches of questions with answers, about images of the procedural world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from foveate.benchmarks.loaded_model import LoadedModel
from foveate.mini import training_batches
from foveate.mini.evaluate import prompt
from foveate.mini.world.scene import Canvas
from foveate.mini.world.tasks import tasks

IGNORED = -100
# Offset of the seed, so that no training image of an embedded model is used again.
STREAM = 1000


@dataclass(frozen=True)
class Batch:
    """B questions with their answers, left-padded to length L.

    Attributes:
        inputs: of the model; a row is the prompt followed by the answer.
        labels: answer ids, -100 elsewhere, (B, L).
        answer_length: tokens of the longest answer.
    """

    inputs: dict[str, Any]
    labels: Tensor
    answer_length: int

    @property
    def prompts(self) -> dict[str, Any]:
        """The inputs with the answers masked out, so that every row ends with its prompt."""
        asked = self.inputs["attention_mask"] * (self.labels == IGNORED)
        return {**self.inputs, "attention_mask": asked}


def draw(base: LoadedModel, step: int, seed: int, pictures: int, questions: int) -> Batch:
    """The batch of one step; equal arguments give equal batches.

    Args:
        base: the model that reads the batch.
        step: 0-based.
        seed: of the training data.
        pictures: images per batch.
        questions: questions per image, at most; an image with fewer makes the batch smaller.
    """
    known = tasks(base.size, base.patch, medium="image")
    drawn = training_batches.draw(
        first=step * pictures,
        batch=pictures,
        canvas=Canvas(base.size, base.patch),
        seed=STREAM + seed,
        weights={name: 1.0 for name in base.tasks if name in known},
        level=1.0,
        questions=questions,
        tasks=known,
    )
    images, texts, lengths = [], [], []
    tokenizer = base.processor.tokenizer
    for pixels, asked in zip(drawn.pixels.numpy(), drawn.questions, strict=True):
        for question in asked:
            images.append(Image.fromarray(pixels))
            asks = prompt(base.processor, question.text)
            texts.append(f"{asks}{question.answer}{tokenizer.eos_token}")
            lengths.append(len(tokenizer(question.answer, add_special_tokens=False).input_ids) + 1)
    inputs = dict(
        base.processor(images=images, text=texts, padding=True, return_tensors="pt").to(
            base.model.device
        )
    )
    ids = inputs["input_ids"]
    ends = ids.shape[1] - torch.tensor(lengths, device=ids.device)
    columns = torch.arange(ids.shape[1], device=ids.device)
    labels = ids.masked_fill(columns < ends[:, None], IGNORED)
    return Batch(inputs, labels, max(lengths))
