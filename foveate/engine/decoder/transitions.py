"""What the two sub-modules of a decoder layer do to its columns, by hooks on both of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from foveate.errors import UnsupportedModel
from foveate.ops.transition import transition


@contextmanager
def watched(layer: nn.Module, record: Callable[[Tensor], None]) -> Iterator[None]:
    """While open, `record` gets what every pass of `layer` did to its columns, (B, 2, N, 2).

    Both sub-modules get their input normed; norms that a layer lays over their output come later.
    """
    if not isinstance(getattr(layer, "mlp", None), nn.Module):
        raise UnsupportedModel(
            f"{type(layer).__name__} has no sub-module 'mlp' to watch; use a method that reads "
            "attention only, such as PyramidDrop."
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
