"""What mappings share: a sample as methods see it at a boundary, and the run of one layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from foveate.parts import BoundaryState
from foveate.signals import Signals


def one_sample(
    hidden: Tensor, start: int, length: int, signals: dict, **more: Any
) -> BoundaryState:
    """State of hidden (1, N, D) whose columns [start, start + length) are visual."""
    columns = torch.arange(hidden.shape[1])[None]
    visual = (columns >= start) & (columns < start + length)
    return BoundaryState(
        hidden=hidden,
        valid=torch.ones_like(visual),
        visual=visual,
        item=visual.long() - 1,
        entered=visual.sum(1),
        last=columns[:, -1],
        labels=None,
        attention=None,
        signals=Signals(signals),
        **more,
    )


def run_layer(model: Any, layer: Any, hidden: Tensor, positions: Tensor, cache: Any) -> Tensor:
    """One decoder layer of a plain Llama on its own cache."""
    return layer(
        hidden,
        attention_mask=None,
        position_ids=positions,
        past_key_values=cache,
        position_embeddings=model.rotary_emb(hidden, positions),
    )
