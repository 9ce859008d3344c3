"""Which columns a decoder layer lets a row see."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from foveate.engine.prompt.prompt import Stage
from foveate.errors import UnsupportedModel


def window_of(attention: nn.Module) -> int | None:
    """How many columns an attention module sees, None where it sees all.

    The config says which layers slide: some models write the number on all of them.
    """
    config = attention.config
    kinds = getattr(config, "layer_types", None)
    kind = "sliding_attention" if kinds is None else kinds[attention.layer_idx]
    if kind == "chunked_attention" or getattr(config, "attention_chunk_size", None):
        raise UnsupportedModel(
            f"{type(attention).__name__} sees chunks of columns, which can't be kept while columns "
            "go inside the LLM; use a method that acts before the LLM, such as DivPrune."
        )
    if kind != "sliding_attention":
        return None
    own = getattr(attention, "sliding_window", None)
    return getattr(config, "sliding_window", None) if own is None else own


def shown_to(
    rows: Tensor, stage: Stage, mask: Tensor | None, window: int | None, first: bool = False
) -> Tensor:
    """What columns `rows` (B, R) of a stage see of its columns, (B, 1 or H, R, N).

    mask (B or 1, 1 or H, L, W): what the layer is given, bool or added to logits; None is every
    column up to a row's own, or the last `window` of these. Of the columns of the stage, or with
    `first` of those of the first stage.
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
