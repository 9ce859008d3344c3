"""States at a layer boundary, as a method inside the LLM receives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaModel

from foveate.engine.decoder.lookahead import next_attention, next_heads
from foveate.parts import BoundaryState, Merge
from foveate.signals import Signals
from tests.conformance.host import decoder


def one_sample(
    hidden: Tensor, start: int, length: int, signals: dict, **more: Any
) -> BoundaryState:
    """The state of hidden (1, N, D) with visual tokens at [start, start + length)."""
    columns = torch.arange(hidden.shape[1])[None]
    visual = (columns >= start) & (columns < start + length)
    facts: dict[str, Any] = dict(
        valid=torch.ones_like(visual),
        visual=visual,
        item=visual.long() - 1,
        entered=visual.sum(1),
        last=columns[:, -1],
        labels=None,
        attention=None,
    )
    return BoundaryState(hidden=hidden, signals=Signals(signals), **{**facts, **more})


@torch.no_grad()
def next_layer(
    params: Mapping[str, Any], weights: Mapping[str, Tensor], hidden: Tensor, positions: Tensor
) -> dict[str, Any]:
    """`attention` and `heads` of the next layer, as the engine passes them to a part.

    Args:
        params: of the case.
        weights: input_layernorm, q_proj and k_proj of that layer.
        hidden: its input, (1, N, D).
        positions: position ids, (1, N).
    """
    model = LlamaModel(decoder(params, width=hidden.shape[2])).eval()
    layer = model.layers[0]
    layer.input_layernorm.weight.copy_(weights["input_layernorm.weight"])
    for name in ("q_proj", "k_proj"):
        getattr(layer.self_attn, name).weight.copy_(weights[f"{name}.weight"])
    given = {"position_embeddings": model.rotary_emb(hidden, positions)}
    valid = torch.ones(hidden.shape[:2], dtype=torch.bool)
    heads = next_heads(layer, hidden, given, valid, None, None)

    def attention(rows: Tensor) -> Tensor:
        return next_attention(layer, hidden, given, rows, heads.visible(rows)[:, None])

    return {"attention": attention, "heads": lambda: heads}


def staying(verdict: Tensor | Merge | None, state: BoundaryState) -> Tensor:
    """Indices (n,) of the tokens that remain after a boundary, in their new order."""
    columns = torch.arange(state.hidden.shape[1])
    if verdict is None:
        return columns
    if isinstance(verdict, Tensor):
        return columns[verdict[0]]
    kept = columns[verdict.into[0] == columns]
    return kept if verdict.place is None else kept[verdict.place[0, kept].argsort(stable=True)]
