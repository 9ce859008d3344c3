"""Attention masks of decoder layers with fewer columns than layer 0."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foveate.engine.attention_taps import implementation
from foveate.engine.decoder.columns import mask_at
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.decoder.windows import window_of
from foveate.engine.prompt.prompt import Stage, cache_in
from foveate.errors import UnsupportedCall


def prefill_mask(
    stage: Stage, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict[str, Any]
) -> Tensor | None:
    """Mask of a layer after a boundary in prefill, in the kernel's format."""
    mask = kw.get("attention_mask")
    kind = implementation(module.self_attn)
    _refuse_blocks(kind)
    if "flash" in kind:
        return stage.valid.long() if mask is not None or stage.ragged else None
    if mask is None and not stage.ragged:
        return None
    key = (stage, id(mask))
    if key in call.masks:
        return call.masks[key]
    b, n = stage.valid.shape
    cache = cache_in(kw)
    i = module.self_attn.layer_idx
    wide = n if cache is None else max(n, cache.get_mask_sizes(n, i)[0])
    own = torch.eye(n, dtype=torch.bool, device=hidden.device)
    if mask is None:
        steps = torch.arange(n, device=hidden.device)
        short = (steps[:, None] >= steps[None]).expand(b, 1, n, n)
    else:
        # The mask that the model made has rows and columns of layer 0.
        short = mask_at(mask, stage.mask_column)
    visible = stage.valid[:, None, None, :] | own
    if short.dtype == torch.bool:
        short = (short & stage.valid[:, None, None, :]) | own
        short = nn.functional.pad(short, (0, wide - n), value=False)
    else:
        lowest = torch.finfo(short.dtype).min
        short = short.masked_fill(~visible, lowest).masked_fill(own, 0)
        short = nn.functional.pad(short, (0, wide - n), value=lowest)
    call.masks[key] = short
    return short


def soft_mask(
    stage: Stage, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict[str, Any]
) -> Tensor:
    """Mask of a layer plus the weights that parts add to its key columns in training."""
    mask, kind = kw.get("attention_mask"), implementation(module.self_attn)
    if "flash" in kind or "flex" in kind:
        raise UnsupportedCall(
            f"attn_implementation={kind!r} does not support the key weights that training a token "
            "selection needs; use attn_implementation='sdpa'."
        )
    n = stage.n
    if mask is None:
        mask = hidden.new_ones(n, n, dtype=torch.bool).tril()[None, None]
    if mask.dtype == torch.bool:
        lowest = torch.finfo(hidden.dtype).min
        mask = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, lowest)
    bias = call.soft.gather(1, stage.first_column)[:, None, None]
    return mask + nn.functional.pad(bias, (0, mask.shape[-1] - n)).to(mask.dtype)


def decode_mask(
    i: int, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict[str, Any]
) -> Tensor | None:
    """Mask of layer i in decode, where the layer's cache has fewer columns."""
    cache, q = cache_in(kw), hidden.shape[1]
    stage = call.prompt.cached.get(i) or call.prompt.at(i)
    kind = implementation(module.self_attn)
    _refuse_blocks(kind)
    window = window_of(module.self_attn)
    held = cache.layers[i].get_mask_sizes(q)[0]
    new = call.start + q
    width = stage.n + new
    # If the model passes no mask for a new column, it found no padding.
    alone = q == 1 or "flash" in kind and call.later is None
    plain = not stage.ragged and window is None and held == width
    if plain and alone and kw.get("attention_mask") is None:
        return None
    key = (stage, window, kind, held, new)
    if key in call.masks:
        return call.masks[key]
    b, device = hidden.shape[0], hidden.device
    first = call.prompt.first
    behind = torch.arange(first.n, first.n + new, device=device).expand(b, -1)
    # Cache column -> first column, new ones counted on from those of layer 0.
    column = torch.cat([stage.mask_column, behind], 1)
    later = stage.valid.new_ones(b, new) if call.behind is None else call.behind[:, :new]
    alive = torch.cat([stage.valid, later], 1)
    column, alive = column[:, -held:], alive[:, -held:]
    spare = held - column.shape[1]
    if spare > 0:
        column = nn.functional.pad(column, (0, spare), value=first.n + new)
        alive = nn.functional.pad(alive, (0, spare), value=False)
    if "flash" in kind:
        mask = alive.long()
    else:
        query = torch.arange(first.n + new - q, first.n + new, device=device)[None, :, None]
        mask = alive[:, None, :] & (column[:, None, :] <= query)
        if window is not None:
            mask = mask & (query - column[:, None, :] < window)
        mask = mask[:, None]
        if kind == "eager":
            lowest = torch.finfo(hidden.dtype).min
            mask = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, lowest)
    call.masks[key] = mask
    return mask


def square(mask: Any) -> Tensor | None:
    """A 4-D mask; None for a mask that marks padding only."""
    return mask if isinstance(mask, Tensor) and mask.dim() == 4 else None


def _refuse_blocks(kind: str) -> None:
    if "flex" in kind:
        raise UnsupportedCall(
            "FlexAttention is not supported with methods that act inside the LLM, because its "
            "block masks can't be shortened; use attn_implementation='sdpa'."
        )
