"""Gradient checkpointing: layers are recomputed in the backward pass, with the same taps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

# Up to transformers 5.20 a layer checkpoints its __call__, later versions its forward.
_WITH_HOOKS = "__call__" in vars(GradientCheckpointingLayer)


def checkpointed(layer: nn.Module) -> bool:
    """Whether a layer that runs now is recomputed in the backward pass."""
    asked = getattr(layer, "gradient_checkpointing", False)
    return bool(asked) and layer.training and torch.is_grad_enabled()


@contextmanager
def opened_in_recomputation(
    layer: nn.Module, surroundings: Callable[[], AbstractContextManager[None]]
) -> Iterator[None]:
    """While open, a checkpointed layer opens `surroundings()` whenever it is (re)computed."""
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
    """While open, checkpointed layers recompute their forward only, without their hooks.

    A hook belongs to a call, and the call has ended when the backward pass recomputes a layer.
    """
    changed = [layer for layer in layers if _WITH_HOOKS and checkpointed(layer)]
    own = [layer.__dict__.get("forward") for layer in changed]
    for layer in changed:
        layer.gradient_checkpointing = False
        layer.__dict__["forward"] = partial(_checkpointed_forward, layer, layer.forward)
    try:
        yield
    finally:
        for layer, forward in zip(changed, own, strict=True):
            layer.gradient_checkpointing = True
            layer.__dict__.pop("forward", None)
            if forward is not None:
                layer.__dict__["forward"] = forward


def _checkpointed_forward(layer: Any, forward: Callable, *args: Any, **kwargs: Any) -> Any:
    """A checkpointed forward without a KV cache, which it could not fill."""
    without = {"use_cache": False, "past_key_values": None}
    kwargs |= {name: value for name, value in without.items() if name in kwargs}
    return layer._gradient_checkpointing_func(partial(forward, **kwargs), *args)
