"""Masks of decoder layers that hold fewer columns than layer 0 does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from foveate.engine.attention_taps import implementation
from foveate.engine.decoder.columns import both_ways
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.decoder.windows import window_of
from foveate.engine.prompt.prompt import Stage, cache_in
from foveate.errors import UnsupportedCall


def prefill_mask(
    stage: Stage, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict[str, Any]
) -> Tensor | None:
    """The mask of a layer behind a boundary while the prompt runs, in the kernel's own format."""
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
        short = both_ways(mask, stage.mask_column)
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


def softened(
    stage: Stage, call: DecoderCall, module: nn.Module, hidden: Tensor, kw: dict[str, Any]
) -> Tensor:
    """The mask of a layer with what parts add to the logits of its keys."""
    mask, kind = kw.get("attention_mask"), implementation(module.self_attn)
    if "flash" in kind or "flex" in kind:
        raise UnsupportedCall(
            f"{kind} takes no weights of keys, which training a choice needs; "
            "use attn_implementation='sdpa'."
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
    """The mask of layer i for columns that follow the prompt, of which its cache holds less."""
    cache, q = cache_in(kw), hidden.shape[1]
    stage = call.prompt.cached.get(i) or call.prompt.at(i)
    kind = implementation(module.self_attn)
    _refuse_blocks(kind)
    window = window_of(module.self_attn)
    held = cache.layers[i].get_mask_sizes(q)[0]
    new = call.start + q
    width = stage.n + new
    # The model has looked at the mask of a new column and found no padding if it gives none.
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
    """A mask that says for every row what it sees; None for one that only marks padding."""
    return mask if isinstance(mask, Tensor) and mask.dim() == 4 else None


def _refuse_blocks(kind: str) -> None:
    if "flex" in kind:
        raise UnsupportedCall(
            "FlexAttention's block masks can't be shortened between decoder layers; "
            "use attn_implementation='sdpa' with methods that act inside the LLM."
        )
