"""Decode: new columns continue a cache that a prefill filled. Also runs prompts of text alone."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from foveate.engine.cache.provenance import Filled, filled_of
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.layer_hooks import surround_layers
from foveate.engine.prompt.attention_structure import own_mask, plain
from foveate.engine.prompt.positions import shifted
from foveate.engine.prompt.prompt import Prompt, cache_in, starts_prompt
from foveate.engine.prompt.splice import compute_3d, text_prompt
from foveate.engine.refusals import refuse_missing_pixels
from foveate.engine.setup import Setup
from foveate.engine.state import ModelCall


def decode(setup: Setup, call: ModelCall, kw: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the inner model for a call without new images or videos.

    Such a call is a decode step, a later turn of a conversation, or a prompt of text alone. With
    one new column there is no device sync.
    """
    cache = cache_in(kw)
    new: Any = kw.get("inputs_embeds") if kw.get("input_ids") is None else kw["input_ids"]
    b, q = new.shape[:2]
    filled = filled_of(cache, q)
    if filled is None:
        refuse_missing_pixels(setup.anatomy, kw.get("input_ids"))
        if starts_prompt(kw):
            setup.reporter.settle()
            call.text_prompt = functools.partial(
                text_prompt, kw["input_ids"], kw.get("attention_mask")
            )
        return kw
    prompt = filled.prompt
    if prompt.clock is not None:
        call.start("decode", prompt.clock)
    if not prompt.changed:
        return kw
    filled.admit(setup.method, b, q)
    if not plain(kw.get("attention_mask")) and not cache.is_compileable:
        raise own_mask()
    filled.open = True
    call.filled, call.new_columns = filled, q
    entry = prompt.at(0)
    positions = _new_positions(setup, kw, prompt, filled.new, b, q)
    later = _later(kw.get("attention_mask"), prompt.length, q)
    if prompt.missing or entry.ragged and prompt.reduced:
        kw["attention_mask"] = _mask(kw.get("attention_mask"), filled, b, q)
    if positions is not None and (kw.get("position_ids") is not None or entry.shift is not None):
        kw["position_ids"] = shifted(positions, prompt.first.shift)
    if setup.inside_llm:
        decoder = DecoderCall(prompt, False, filled.new, positions=positions, later=later)
        decoder.idle = setup.boundaries.idle(decoder, cache, q)
        call.decoder = decoder
        stored = setup.caches.apart(cache, q, kw.get("attention_mask"))
        readers = dict(setup.caches.readers(decoder, cache, q))
        surround_layers(setup, decoder, call.stack, readers, stored)
    return kw


def _new_positions(
    setup: Setup, kw: dict[str, Any], prompt: Prompt, new: int, b: int, q: int
) -> Tensor | None:
    """Position ids of `q` columns after the prompt and `new` more, as the bare model counts them.

    None where nothing needs them.
    """
    given = kw.get("position_ids")
    needed = setup.rules or any(s.shift is not None for s in prompt.stages)
    if given is not None or not needed:
        return given
    if hasattr(setup.anatomy.inner, "compute_3d_position_ids"):
        return compute_3d(setup.anatomy.inner, kw, b, q)
    start = prompt.length + new + setup.anatomy.family.position_offset
    return torch.arange(start, start + q, device=prompt.first.valid.device)[None]


def _mask(mask: Any, filled: Filled, b: int, q: int) -> Tensor | None:
    """The padding mask of what layer 0 holds and of the new columns, (B, N0 + new)."""
    prompt = filled.prompt
    first = prompt.at(0)
    if mask is None and not first.ragged:
        return None
    if mask is None or isinstance(mask, dict) or mask.dim() == 4:
        new = filled.new + q
        behind = torch.ones(b, new, dtype=torch.long, device=first.valid.device)
    elif not first.ragged and min(prompt.full) == prompt.length:
        # A slice of the caller's own mask says the same, and costs nothing.
        return mask[:, prompt.missing :]
    else:
        behind = mask[:, prompt.length :].long()
    return torch.cat([first.valid.long(), behind], 1)


def _later(mask: Any, length: int, q: int) -> Tensor | None:
    """The caller's mask of the columns after the prompt, (B, new); None where none is padding.

    Only looked at where several columns come at once: a decode step must not wait for the device.
    """
    if not isinstance(mask, Tensor) or mask.dim() != 2:
        return None
    later = mask[:, length:]
    return None if q > 1 and bool(later.all()) else later
