"""Where the visual tokens of a prompt stand in their pictures and videos."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from foveate.engine.prompt import Prompt, Stage
from foveate.engine.splice import Placed
from foveate.ops.gather import rows_at
from foveate.report import Trace
from foveate.signals import VisionAttention


def locate(prompt: Prompt, rows: list[list[Placed]], traces: list[list[Trace]]) -> None:
    """Write into `prompt` the place and the frame of each column that enters layer 0.

    A vector that stands in no slot of its item has no place and belongs to the first frame.
    """
    first = prompt.first
    item, slot = first.item.cpu(), first.slot.cpu()
    place = torch.full((*item.shape, 3), -1)
    frame = torch.full(item.shape, -1)
    for b, (placed, row) in enumerate(zip(rows, traces, strict=True)):
        for number, (item_placed, trace) in enumerate(zip(placed, row, strict=True)):
            own = item[b] == number
            index = trace.index.cpu()[slot[b, own]]
            held, index = index >= 0, index.clamp(min=0)
            place[b, own] = trace.layout.position[index].masked_fill(~held[:, None], -1)
            # The grid of a tiled picture counts its levels where that of a video counts time.
            moves = held & (item_placed.modality == "video")
            frame[b, own] = trace.layout.step[index].masked_fill(~moves, 0)
    prompt.frames = int(frame.max()) + 1
    prompt.place, prompt.frame = place.to(first.item.device), frame.to(first.item.device)


def towered(
    prompt: Prompt,
    rows: list[list[Placed]],
    needs: list[VisionAttention],
    attention: Callable[[Placed, VisionAttention], Tensor],
) -> dict[VisionAttention, Tensor]:
    """Signals (B, H, N) of the vision tower at the columns that enter layer 0, 0 for text.

    attention(placed, need): what was recorded for an item, (H, n) over its output tokens.
    """
    first, found = prompt.first, {}
    for need in needs:
        for b, row in enumerate(rows):
            for number, placed in enumerate(row):
                seen = attention(placed, need)
                own = first.item[b] == number
                if need not in found:
                    found[need] = seen.new_zeros(len(first.item), len(seen), first.n)
                found[need][b, :, own] = seen[:, first.slot[b, own]]
    return found


def extents_of(prompt: Prompt, stage: Stage) -> Tensor:
    """Extent (t, h, w) of the item of each column of a stage, (B, N, 3), 0 for text."""
    extent = stage.item.new_zeros(*stage.item.shape, 3)
    for b, row in enumerate(prompt.traces):
        for number, trace in enumerate(row):
            grid = trace.layout.grid
            extent[b, stage.item[b] == number] = extent.new_tensor([grid.t, grid.h, grid.w])
    return extent


def places_of(prompt: Prompt, stage: Stage) -> tuple[Tensor | None, Tensor | None]:
    """Place (B, N, 3) and frame (B, N) of a stage's columns."""
    if prompt.place is None or prompt.frame is None:
        return None, None
    text = stage.item < 0
    place = rows_at(prompt.place, stage.local).masked_fill(text[..., None], -1)
    return place, prompt.frame.gather(1, stage.local).masked_fill(text, -1)
