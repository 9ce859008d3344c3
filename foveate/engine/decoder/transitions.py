"""Measures how much attention and MLP of a decoder layer change its columns, with hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import UnsupportedModel
from foveate.ops.transition import transition


@contextmanager
def recording_transitions(layer: nn.Module, record: Callable[[Tensor], None]) -> Iterator[None]:
    """While open, `record` gets the transitions (B, 2, N, 2) of every pass of `layer`.

    The input of both modules is normed. Norms that a layer applies to their output are not
    included.
    """
    if not isinstance(getattr(layer, "mlp", None), nn.Module):
        raise UnsupportedModel(
            f"{type(layer).__name__} has no submodule 'mlp', which this method reads; use a method "
            "that reads attention only, such as PyramidDrop."
        )
    seen: list[Tensor] = []

    def hook(_: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        seen.append(transition(before.detach(), after.detach()))
        if len(seen) == 2:
            record(torch.stack(seen, 1))
            seen.clear()

    handles = [
        module.register_forward_hook(hook, with_kwargs=True)
        for module in (layer.self_attn, layer.mlp)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
