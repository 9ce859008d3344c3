"""Runs images through the vision encoder of a model with a method attached, for calibration."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from foveate.engine.anatomy import anatomy
from foveate.engine.attachment import attach
from foveate.errors import InvalidParameter
from foveate.method import Method


def encode(
    model: Any,
    processor: Any,
    images: Sequence[Any],
    method: Method,
    *,
    batch_size: int = 64,
    progress: bool = False,
) -> None:
    """Encode images in batches while `method` is attached; no text is processed.

    Args:
        model: The model.
        processor: Its processor.
        images: PIL images, or anything that the processor reads.
        method: The method, which records what it needs.
        batch_size: Images per batch.
        progress: Show a progress bar.
    """
    from foveate.mini.progress import bar

    if batch_size < 1 or not len(images):
        raise InvalidParameter(
            f"images has {len(images)} entries and batch_size={batch_size}; both must be at least "
            "1."
        )
    body = anatomy(model)
    names = inspect.signature(body.inner.get_image_features).parameters
    parameter = next(body.inner.parameters())
    training = model.training
    model.eval()
    try:
        with attach(model, method), torch.no_grad(), bar("encoding", len(images), 0, progress) as t:
            for first in range(0, len(images), batch_size):
                chunk = list(images[first : first + batch_size])
                made = processor.image_processor(images=chunk, return_tensors="pt")
                inputs = {n: v.to(parameter.device) for n, v in made.items() if n in names}
                pixels = body.family.pixels["image"]
                inputs[pixels] = inputs[pixels].to(parameter.dtype)
                body.inner.get_image_features(**inputs, return_dict=True)
                t(first + len(chunk))
    finally:
        model.train(training)
