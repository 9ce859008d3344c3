"""Copies of one model, trained beside each other on the same batches."""

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
    """The language models and the projectors."""
    return [p for name, p in module.named_parameters() if "vision_tower" not in name]


def losses(
    models: nn.ModuleDict, methods: Mapping[str, Method | None], batch: Batch, clip: float
) -> tuple[Tensor, dict[str, float]]:
    """One loss with the gradients of all copies, the value of the first, and figures of each.

    methods: what is attached to each copy by name, None for nothing.
    """
    total, figures = torch.zeros(()), {}
    for name, method in methods.items():
        model: Any = models[name]
        parameters = [p for p in model.parameters() if p.requires_grad]
        # Time of the process: on a busy machine all copies wait, but not equally long.
        began = time.process_time()
        with nullcontext() if method is None else foveate.attach(model, method):
            value = model(**batch.inputs, labels=batch.labels, use_cache=False).loss
            gradients = torch.autograd.grad(value, parameters)
        figures[f"{name}_seconds"] = time.process_time() - began
        figures[name] = value.item()
        # Each copy is clipped by itself, so far that the loop finds nothing left to clip.
        norm = torch.stack([g.norm() for g in gradients]).norm()
        limit = clip / len(methods) ** 0.5
        share = limit / norm.clamp(min=limit)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            total = total + (parameter * gradient * share).sum()
    return total - total.detach() + figures[next(iter(methods))], figures


def save(models: nn.ModuleDict, base: LoadedModel, out: Path) -> None:
    """Write every copy in bfloat16, with its processor, into a folder of its name."""
    for name, model in models.items():
        with silent_bars():
            copy.deepcopy(model).to(torch.bfloat16).save_pretrained(out / name)
        base.processor.save_pretrained(out / name)
