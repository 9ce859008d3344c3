"""Where the visual tokens of a prompt stand in their pictures and videos."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from foveate.engine.prompt.column_sources import Placed
from foveate.engine.prompt.prompt import Prompt, Stage
from foveate.ops.gather import rows_at
from foveate.ops.transfer import on_device
from foveate.report import Trace
from foveate.signals import VisionAttention


def at_columns(stage: Stage, items: list[list[Tensor]], fill: Tensor) -> Tensor:
    """What visual tokens have, at the columns of a stage, (B, N, ...).

    items: per row and visual item the values (n, ...) of its tokens. fill (...): of other columns.
    """
    table = torch.cat([fill[None], *(x for row in items for x in row)])
    most = max(map(len, items))
    starts, start = torch.zeros(len(items), most + 1, dtype=torch.long), 1
    for b, row in enumerate(items):
        for number, values in enumerate(row):
            starts[b, number + 1] = start
            start += len(values)
    starts = on_device(starts, stage.item.device)
    return table[starts.gather(1, stage.item + 1) + stage.slot.clamp(min=0)]


def locate(prompt: Prompt, rows: list[list[Placed]], traces: list[list[Trace]]) -> None:
    """Write into `prompt` the place and the frame of each column that enters layer 0.

    A vector that stands in no slot of its item has no place and belongs to the first frame.
    """
    first, found = prompt.first, []
    for placed, row in zip(rows, traces, strict=True):
        found.append([])
        for item, trace in zip(placed, row, strict=True):
            layout = trace.layout.on(trace.index.device)
            held, index = trace.index >= 0, trace.index.clamp(min=0)
            place = layout.position[index].masked_fill(~held[:, None], -1)
            # The grid of a tiled picture counts its levels where that of a video counts time.
            video = item.modality == "video"
            frame = layout.step[index] * held if video else torch.zeros_like(index)
            found[-1].append(torch.cat([place, frame[:, None]], 1))
            prompt.frames = max(prompt.frames, trace.layout.grid.t if video else 1)
    made = at_columns(first, found, first.item.new_full((4,), -1))
    prompt.place, prompt.frame = made[..., :3], made[..., 3]


def towered(
    prompt: Prompt,
    rows: list[list[Placed]],
    needs: list[VisionAttention],
    attention: Callable[[Placed, VisionAttention], Tensor],
) -> dict[VisionAttention, Tensor]:
    """Signals (B, H, N) of the vision tower at the columns that enter layer 0, 0 for text.

    attention(placed, need): what was recorded for an item, (H, n) over its output tokens.
    """
    found = {}
    for need in needs:
        seen = [[attention(placed, need).T for placed in row] for row in rows]
        # A prompt of text alone has rules to follow, but no items.
        none = torch.zeros(0, 1, device=prompt.first.item.device)
        some = next((x for row in seen for x in row), none)
        found[need] = at_columns(prompt.first, seen, some.new_zeros(some.shape[1:])).mT
    return found


def extents_of(prompt: Prompt, stage: Stage) -> Tensor:
    """Extent (t, h, w) of the item of each column of a stage, (B, N, 3), 0 for text."""
    grids = [[trace.layout.grid for trace in row] for row in prompt.traces]
    table = torch.zeros(len(grids), max(map(len, grids)) + 1, 3, dtype=torch.long)
    for b, row in enumerate(grids):
        for number, grid in enumerate(row):
            table[b, number + 1] = torch.tensor([grid.t, grid.h, grid.w])
    return rows_at(on_device(table, stage.item.device), stage.item + 1)


def places_of(prompt: Prompt, stage: Stage) -> tuple[Tensor | None, Tensor | None]:
    """Place (B, N, 3) and frame (B, N) of a stage's columns."""
    if prompt.place is None or prompt.frame is None:
        return None, None
    text = stage.item < 0
    place = rows_at(prompt.place, stage.local).masked_fill(text[..., None], -1)
    return place, prompt.frame.gather(1, stage.local).masked_fill(text, -1)
