"""Sliding windows and masks: which columns a row attends to in a decoder layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveate.engine.prompt.prompt import Stage
from foveate.errors import UnsupportedModel


def window_of(attention: nn.Module) -> int | None:
    """Length of an attention module's sliding window, None without one.

    The layer types of the config decide, because some models set `sliding_window` on all layers.
    """
    config = attention.config
    kinds = getattr(config, "layer_types", None)
    kind = "sliding_attention" if kinds is None else kinds[attention.layer_idx]
    if kind == "chunked_attention" or getattr(config, "attention_chunk_size", None):
        raise UnsupportedModel(
            f"{type(attention).__name__} uses chunked attention, which is not supported when "
            "tokens are dropped inside the LLM; use a method that acts before the LLM, such as "
            "DivPrune."
        )
    if kind != "sliding_attention":
        return None
    own = getattr(attention, "sliding_window", None)
    return getattr(config, "sliding_window", None) if own is None else own


def mask_of_rows(
    rows: Tensor, stage: Stage, mask: Tensor | None, window: int | None, first: bool = False
) -> Tensor:
    """Mask (B, 1 or H, R, N) of the columns `rows` (B, R) of a stage.

    Args:
        rows: Columns used as queries.
        stage: The stage.
        mask: (B or 1, 1 or H, L, W) the layer's mask, bool or additive. None for a causal mask,
            limited to `window`.
        window: Length of the sliding window, or None.
        first: Whether `mask` is about the columns of the first stage instead of this one.
    """
    if mask is None:
        steps = torch.arange(stage.n, device=rows.device)
        local = stage.mask_column
        seen = (steps <= rows[..., None]) & stage.valid[:, None]
        if window is not None:
            seen &= local.gather(1, rows)[..., None] - local[:, None] < window
        return seen[:, None]
    b, n = stage.valid.shape
    mask = mask.expand(b, -1, -1, -1)
    if first:
        local = stage.mask_column
        rows = local.gather(1, rows)
        seen = _rows(mask, rows)
        seen = seen.gather(3, local[:, None, None].expand(-1, *seen.shape[1:3], -1))
        hidden = ~stage.valid[:, None, None]
        lowest = False if seen.dtype == torch.bool else torch.finfo(seen.dtype).min
        return seen.masked_fill(hidden, lowest)
    return _rows(mask, rows)[..., :n]


def _rows(mask: Tensor, rows: Tensor) -> Tensor:
    """Rows `rows` (B, R) of a mask (B, H, L, W)."""
    return mask.gather(2, rows[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3]))
