"""DeepStack features, which the LLM adds after early layers, aligned with kept columns."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.engine.anatomy import Anatomy
from foveate.engine.decoder.boundaries import Boundaries
from foveate.engine.decoder.columns import merge_columns
from foveate.engine.decoder.forward_call import DecoderCall
from foveate.engine.prompt.prompt import Stage
from foveate.ops.gather import rows_at
from foveate.parts import Merge


class Planes:
    """Adds DeepStack features itself where columns are dropped before the last one is added.

    A plane is the DeepStack features of one layer.
    """

    def __init__(self, anatomy: Anatomy, boundaries: Boundaries):
        self.anatomy = anatomy
        self.boundaries = boundaries

    def before_text(self, call: DecoderCall, args: tuple, kwargs: dict):
        """Remove the DeepStack features from the LLM's arguments and store them."""
        embeds = kwargs.get("deepstack_visual_embeds")
        if not call.prefill or embeds is None or self.boundaries.start >= len(embeds):
            return None
        mask = kwargs["visual_pos_masks"]
        hidden = kwargs["inputs_embeds"]
        for plane in embeds:
            dense = torch.zeros_like(hidden)
            dense[mask.expand(hidden.shape[:2])] = plane.to(hidden)
            call.planes.append(dense)
        return args, {**kwargs, "visual_pos_masks": None, "deepstack_visual_embeds": None}

    def after_layer(self, i: int, call: DecoderCall, output: Tensor) -> Tensor | None:
        """Add plane i to the output of layer i."""
        if i >= len(call.planes):
            return None
        plane, prompt = call.planes[i], call.prompt
        stage = prompt.stream(i)
        if stage is not prompt.first:
            for k, before, merge in call.merges:
                if k <= i:
                    plane = _merged_at(plane, before, merge)
            plane = rows_at(plane, stage.first_column)
            plane = plane.masked_fill(~stage.valid[..., None], 0)
        return output + plane


def _merged_at(plane: Tensor, stage: Stage, merge: Merge) -> Tensor:
    """Values (B, L, D) at the first stage's columns, merged like the columns of a later stage."""
    length, d = plane.shape[1:]
    index = stage.first_column[..., None].expand(-1, -1, d)
    sums = merge_columns(plane.gather(1, index), merge)
    # The index of a padding column is also that of a real one, so padding writes to a spare slot.
    target = index.masked_fill(~stage.valid[..., None], length)
    return torch.cat([plane, plane[:, :1]], 1).scatter(1, target, sums)[:, :length]
