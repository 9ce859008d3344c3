"""Queries and keys that the next decoder layer would make, without running it."""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from foveate.engine.taps import probabilities
from foveate.ops.attention import Heads
from foveate.ops.gather import rows_at


def next_attention(
    layer: nn.Module, hidden: Tensor, tables: tuple[Tensor, Tensor], rows: Tensor, valid: Tensor
) -> Tensor:
    """Attention that `layer` would give columns `rows` (B, R) of its input, (B, H, R, N), float32.

    Only the asked rows are projected to queries; the layer itself does not run.
    """
    with torch.no_grad():
        query, key = _projected(layer, hidden, tables, rows)
        visible = causal(rows, valid)[:, None]
        return probabilities(query, key, layer.self_attn.scaling, visible)


def next_heads(
    layer: nn.Module,
    hidden: Tensor,
    tables: tuple[Tensor, Tensor],
    valid: Tensor,
    mask: Tensor | None,
) -> Heads:
    """Queries and keys that `layer` would make of its input; the layer itself does not run."""
    with torch.no_grad():
        rows = torch.arange(hidden.shape[1], device=hidden.device).expand(len(hidden), -1)
        query, key = _projected(layer, hidden, tables, rows)
        return Heads(query, key, layer.self_attn.scaling, valid, mask)


def _projected(
    layer: nn.Module, hidden: Tensor, tables: tuple[Tensor, Tensor], rows: Tensor
) -> tuple[Tensor, Tensor]:
    """Queries (B, H, R, d) of columns `rows` (B, R) and keys (B, Hkv, N, d) of all columns."""
    attention = layer.self_attn
    b, n, _ = hidden.shape
    normed = layer.input_layernorm(hidden)
    asked = normed if rows.shape[1] == n else rows_at(normed, rows)
    query = attention.q_proj(asked).view(b, rows.shape[1], -1, attention.head_dim)
    key = attention.k_proj(normed).view(b, n, -1, attention.head_dim)
    if getattr(attention, "q_norm", None) is not None:
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key = query.transpose(1, 2), key.transpose(1, 2)
    rotate = sys.modules[type(attention).__module__].apply_rotary_pos_emb
    cos, sin = (t.expand(b, -1, -1) for t in tables)
    query, _ = rotate(query, query, rows_at(cos, rows), rows_at(sin, rows))
    _, key = rotate(key, key, cos, sin)
    return query, key


def causal(rows: Tensor, valid: Tensor) -> Tensor:
    """(B, R, N) bool: columns that each of `rows` (B, R) may see."""
    steps = torch.arange(valid.shape[1], device=valid.device)
    return (steps <= rows[..., None]) & valid[:, None, :]
