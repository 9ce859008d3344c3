"""Checkpointed layers, which run once more for their gradients: what surrounds them comes along."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

# Up to transformers 5.20 layers checkpoint their call, later their forward.
_WITH_HOOKS = "__call__" in vars(GradientCheckpointingLayer)


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


@contextmanager
def hooks_outside(layers: Iterable[nn.Module]) -> Iterator[None]:
    """While open, checkpointed layers compute their forward again and run their hooks once.

    What a hook does belongs to a call, which is over when the backward pass computes a layer again.
    """
    changed = [layer for layer in layers if _WITH_HOOKS and checkpointed(layer)]
    own = [layer.__dict__.get("forward") for layer in changed]
    for layer in changed:
        layer.gradient_checkpointing = False
        layer.__dict__["forward"] = partial(_again, layer, layer.forward)
    try:
        yield
    finally:
        for layer, forward in zip(changed, own, strict=True):
            layer.gradient_checkpointing = True
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.__dict__["forward"] = forward


def _again(layer: Any, forward: Callable, *args: Any, **kwargs: Any) -> Any:
    """A checkpointed forward, which can't fill a cache."""
    without = {"use_cache": False, "past_key_values": None}
    kwargs |= {name: value for name, value in without.items() if name in kwargs}
    return layer._gradient_checkpointing_func(partial(forward, **kwargs), *args)
