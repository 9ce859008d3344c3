"""Checkpointed layers, which run once more for their gradients: what surrounds them comes along."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn


def checkpointed(layer: nn.Module) -> bool:
    """Whether a layer called now will be computed again in the backward pass."""
    asked = getattr(layer, "gradient_checkpointing", False)
    return bool(asked) and layer.training and torch.is_grad_enabled()


@contextmanager
def carried(
    layer: nn.Module, surroundings: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    """While open, a checkpointed layer opens `surroundings()` now and when it is computed again."""
    checkpoint = layer._gradient_checkpointing_func

    def around(run: Callable, *args: Any, **kwargs: Any):
        def within(*args: Any):
            with surroundings():
                return run(*args)

        return checkpoint(within, *args, **kwargs)

    layer._gradient_checkpointing_func = around
    try:
        yield
    finally:
        layer._gradient_checkpointing_func = checkpoint
