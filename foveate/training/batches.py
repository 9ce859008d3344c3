"""Questions about pictures of the world with their answers, as the base model reads them."""

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
# Lessons of other seeds: no picture that a mini model was trained on comes again.
STREAM = 1000


@dataclass(frozen=True)
class Batch:
    """B questions, padded on the left. inputs: the model's, prompt and answer in one row.

    labels (B, L): ids of the answers, -100 elsewhere. told: columns of the longest answer.
    """

    inputs: dict[str, Any]
    labels: Tensor
    told: int

    @property
    def prompts(self) -> dict[str, Any]:
        """The inputs with the answers hidden behind the mask, so that prompts end where they do."""
        asked = self.inputs["attention_mask"] * (self.labels == IGNORED)
        return {**self.inputs, "attention_mask": asked}


def draw(base: LoadedModel, step: int, seed: int, pictures: int, questions: int) -> Batch:
    """The batch of one step: `questions` about each of `pictures`, the same whenever it is asked.

    A picture that has less to ask makes the batch smaller.
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
