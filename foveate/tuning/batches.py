"""Samples as tensors: prepared once, asked under every setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from foveate.benchmarks.questions import Batch
from foveate.errors import UnsupportedModel
from foveate.tuning.samples import Sample


def batches_of(
    model: Any, processor: Any, samples: Sequence[Sample], size: int
) -> dict[str, list[Batch]]:
    """By how they are answered, "likelihood" or "generate", batches of at most `size` samples.

    Samples of one batch have the same choices and as many pictures; `numbers` count all samples.
    """
    groups: dict[tuple, list[int]] = {}
    for number, sample in enumerate(samples):
        mode = "likelihood" if sample.likely else "generate"
        choices = sample.candidates if sample.likely else ()
        groups.setdefault((mode, choices, len(sample.images)), []).append(number)
    made: dict[str, list[Batch]] = {}
    for (mode, *_), numbers in groups.items():
        for start in range(0, len(numbers), size):
            own = numbers[start : start + size]
            items: list[Any] = [samples[i] for i in own]
            batch = Batch(own, items, _inputs(model, processor, items))
            made.setdefault(mode, []).append(batch)
    return made


def _inputs(model: Any, processor: Any, samples: Sequence[Sample]) -> dict[str, Any]:
    from foveate.media import load_image

    images = [[load_image(image) for image in sample.images] for sample in samples]
    texts = [_prompt(processor, sample) for sample in samples]
    tokenizer = processor.tokenizer
    side, tokenizer.padding_side = tokenizer.padding_side, "left"
    try:
        # The last column of every row must be the end of its prompt.
        inputs = processor(
            images=[one for own in images for one in own] if len(images[0]) == 1 else images,
            text=texts,
            padding=True,
            return_tensors="pt",
        )
    finally:
        tokenizer.padding_side = side
    inputs = dict(inputs.to(model.device))
    for name, value in inputs.items():
        if torch.is_floating_point(value):
            inputs[name] = value.to(model.dtype)
    return inputs


def _prompt(processor: Any, sample: Sample) -> str:
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}] * len(sample.images)
        content.append({"type": "text", "text": sample.question})
        return processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
    token = getattr(processor, "image_token", None)
    if not isinstance(token, str):
        raise UnsupportedModel(
            f"{type(processor).__name__} has neither a chat template nor an image token, so no "
            "prompt can be written for it; save a chat template with the processor."
        )
    return f"{token * len(sample.images)}\n{sample.question}"
