"""One attention call, as rules inside a layer receive it, with the rotary positions of a Llama."""

from __future__ import annotations

from collections.abc import Callable

import torch
import transformers as hf
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from foveate.attention_call import AttentionCall, Columns, Seam, Whole


def columns(visual: Tensor, valid: Tensor, positions: Tensor) -> Columns:
    """Facts of sequence positions (B, N) with all visual tokens in one item."""
    none = visual.long() - 1
    order = torch.arange(visual.shape[1]).expand_as(none)
    return Columns(
        valid=valid,
        visual=visual,
        item=none,
        frame=none,
        place=none[..., None].expand(-1, -1, 3),
        size=torch.ones(visual.shape),
        order=order,
        words=order,
        frames=none,
        at=positions,
        positions=positions,
    )


def rotary(head_dim: int, theta: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Tables (cos, sin) of position ids."""
    config = hf.LlamaConfig(
        head_dim=head_dim, rope_parameters={"rope_type": "default", "rope_theta": theta}
    )
    module = LlamaRotaryEmbedding(config)
    return lambda positions: module(torch.zeros(1), positions)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x (B, H, N, d) rotated by tables (B, N, d)."""
    return apply_rotary_pos_emb(x, x, cos, sin)[0]


def attending(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: Columns,
    keys: Columns,
    tables: Callable,
    whole: Whole | None = None,
    scaling: float | None = None,
) -> AttentionCall:
    """A call of layer 0 of 1 with queries and keys that are already rotated, or unrotated."""
    cos, sin = tables(rows.positions)
    seam = Seam("sdpa", True, rotate, tables, lambda: whole, lambda *_: None, lambda _: None, None)
    return AttentionCall(
        query=query,
        key=key,
        value=value,
        mask=None,
        scaling=query.shape[-1] ** -0.5 if scaling is None else scaling,
        queries=rows,
        keys=keys,
        cos=cos,
        sin=sin,
        layer=0,
        layers=1,
        prefill=query.shape[2] > 1,
        window=None,
        notes={},
        seam=seam,
    )
