"""A copy of the prompt on the CPU, made before the vision encoder runs.

A GPU runs asynchronously. Reading the ids after the encoder was launched would wait for the
encoder, so ids and padding are read before it, in one copy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foveate.engine.prompt.attention_structure import own_mask, plain


@dataclass(frozen=True)
class Known:
    """A prompt on the CPU.

    Attributes:
        ids: (B, L) int64 token ids.
        valid: (B, L) bool, False at padding; None where nothing is padded.
        types: (B, L) int64 token types of the modalities; None where the caller passed none.
    """

    ids: Tensor
    valid: Tensor | None
    types: Tensor | None

    def behind(self, ids: Tensor) -> Known | None:
        """The same prompt after `generate` expanded it to `ids` (B, L); None for another prompt.

        Beam search and sampling repeat rows. Candidates of an assistant model make rows longer.
        """
        rows, left = divmod(len(ids), len(self.ids))
        if left or ids.shape[1] != self.ids.shape[1]:
            return None
        mine = (self.ids, self.valid, self.types)
        return Known(*(None if x is None else x.repeat_interleave(rows, 0) for x in mine))


def read(arguments: dict[str, Any]) -> Known:
    """The prompt among the arguments of a call, read in one device-to-host copy."""
    ids: Tensor = arguments["input_ids"]
    mask = padding(arguments.get("attention_mask"), ids.shape[1])
    types = arguments.get("mm_token_type_ids")
    if types is not None and types.shape != ids.shape:
        types = None
    mask = None if mask is None else mask.expand(len(ids), -1)
    found = [x for x in (ids, mask, types) if x is not None]
    if ids.device.type != "cpu":
        found = torch.stack([x.long() for x in found]).cpu().unbind()
    copied = list(found)
    ids = copied.pop(0)
    valid = None if mask is None else copied.pop(0).bool()
    valid = None if valid is None or bool(valid.all()) else valid
    return Known(ids, valid, copied.pop(0) if types is not None else None)


def padding(mask: Any, length: int) -> Tensor | None:
    """The padding mask (B, L) inside any mask that `generate` makes; None where there is none."""
    if isinstance(mask, dict):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if plain(mask):
        return mask
    if not isinstance(mask, Tensor) or mask.dim() != 4:
        raise own_mask()
    row = mask[:, 0, -1, :length]
    return row if row.dtype == torch.bool else row >= 0
