"""Copies of one model that are trained on the same batches, with and without a method."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import foveate
from foveate.benchmarks.loaded_model import LoadedModel
from foveate.method import Method
from foveate.mini.weights_loading import silent_bars
from foveate.training.batches import Batch


def copies(base: LoadedModel, *names: str) -> nn.ModuleDict:
    """A copy of the base model for each name."""
    return nn.ModuleDict({name: copy.deepcopy(base.model) for name in names})


def without_vision_tower(module: nn.Module) -> Iterable[nn.Parameter]:
    """Parameters of the LLMs and the projectors."""
    return [p for name, p in module.named_parameters() if "vision_tower" not in name]


def losses(
    models: nn.ModuleDict, methods: Mapping[str, Method | None], batch: Batch, clip: float
) -> tuple[Tensor, dict[str, float]]:
    """A loss whose gradients are those of all copies and whose value is that of the first.

    The second value has the loss and the seconds of each copy.

    Args:
        models: the copies by name.
        methods: the method attached to each copy, None for none.
        batch: the training batch.
        clip: largest gradient norm of the recipe.
    """
    total, figures = torch.zeros(()), {}
    for name, method in methods.items():
        model: Any = models[name]
        parameters = [p for p in model.parameters() if p.requires_grad]
        # Process time: on a busy machine wall time would not compare the copies.
        began = time.process_time()
        with nullcontext() if method is None else foveate.attach(model, method):
            value = model(**batch.inputs, labels=batch.labels, use_cache=False).loss
            gradients = torch.autograd.grad(value, parameters)
        figures[f"{name}_seconds"] = time.process_time() - began
        figures[name] = value.item()
        # Clip each copy separately, below the limit of the joint clipping in the loop.
        norm = torch.stack([g.norm() for g in gradients]).norm()
        limit = clip / len(methods) ** 0.5
        share = limit / norm.clamp(min=limit)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            total = total + (parameter * gradient * share).sum()
    return total - total.detach() + figures[next(iter(methods))], figures


def save(models: nn.ModuleDict, base: LoadedModel, out: Path) -> None:
    """Write every copy in bfloat16, with the processor, into a folder of its name."""
    for name, model in models.items():
        with silent_bars():
            copy.deepcopy(model).to(torch.bfloat16).save_pretrained(out / name)
        base.processor.save_pretrained(out / name)
