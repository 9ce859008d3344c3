"""Positions of the prompt's visual tokens in their images and videos."""

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
    """Values of visual tokens, placed at the columns of a stage: (B, N, ...).

    Args:
        stage: The stage.
        items: For each row and item, the values (n, ...) of its tokens.
        fill: (...) value of all other columns.
    """
    table = torch.cat([fill[None], *(x for row in items for x in row)])
    most = max(map(len, items))
    starts, start = torch.zeros(len(items), most + 1, dtype=torch.long), 1
    for b, row in enumerate(items):
        for number, values in enumerate(row):
            starts[b, number + 1] = start
            start += len(values)
    starts = on_device(starts, stage.item.device)
    # Item -> start of its values in the table, then token -> its value; entry 0 is for text.
    return table[starts.gather(1, stage.item + 1) + stage.token.clamp(min=0)]


def locate(prompt: Prompt, rows: list[list[Placed]], traces: list[list[Trace]]) -> None:
    """Set `prompt.place` and `prompt.frame` of each column that enters layer 0.

    An added vector, which stands in no slot, has place -1 and belongs to the first frame.
    """
    first, found = prompt.first, []
    for placed, row in zip(rows, traces, strict=True):
        found.append([])
        for item, trace in zip(placed, row, strict=True):
            layout = trace.layout.on(trace.index.device)
            held, index = trace.index >= 0, trace.index.clamp(min=0)
            place = layout.position[index].masked_fill(~held[:, None], -1)
            # The first axis of a grid is time in a video, but the tile level in a tiled image.
            video = item.modality == "video"
            frame = layout.step[index] * held if video else torch.zeros_like(index)
            found[-1].append(torch.cat([place, frame[:, None]], 1))
            prompt.frames = max(prompt.frames, trace.layout.grid.t if video else 1)
    made = at_columns(first, found, first.item.new_full((4,), -1))
    prompt.place, prompt.frame = made[..., :3], made[..., 3]


def vision_signals(
    prompt: Prompt,
    rows: list[list[Placed]],
    needs: list[VisionAttention],
    attention: Callable[[Placed, VisionAttention], Tensor],
) -> dict[VisionAttention, Tensor]:
    """Signals (B, H, N) of the vision encoder at the columns that enter layer 0, 0 for text.

    Args:
        prompt: The prompt.
        rows: Items of each row.
        needs: The signals.
        attention: Function (placed, need) that returns the recorded signal of an item, (H, n).
    """
    found = {}
    for need in needs:
        seen = [[attention(placed, need).T for placed in row] for row in rows]
        # A text-only prompt has no items, but rules may still apply to it.
        none = torch.zeros(0, 1, device=prompt.first.item.device)
        some = next((x for row in seen for x in row), none)
        found[need] = at_columns(prompt.first, seen, some.new_zeros(some.shape[1:])).mT
    return found


def extents_of(prompt: Prompt, stage: Stage) -> Tensor:
    """Extent (t, h, w) of the item of each column of a stage, (B, N, 3); 0 for text."""
    grids = [[trace.layout.grid for trace in row] for row in prompt.traces]
    table = torch.zeros(len(grids), max(map(len, grids)) + 1, 3, dtype=torch.long)
    for b, row in enumerate(grids):
        for number, grid in enumerate(row):
            table[b, number + 1] = torch.tensor([grid.t, grid.h, grid.w])
    return rows_at(on_device(table, stage.item.device), stage.item + 1)


def places_of(prompt: Prompt, stage: Stage) -> tuple[Tensor | None, Tensor | None]:
    """Place (B, N, 3) and frame (B, N) of the columns of a stage."""
    if prompt.place is None or prompt.frame is None:
        return None, None
    text = stage.item < 0
    place = rows_at(prompt.place, stage.first_column).masked_fill(text[..., None], -1)
    return place, prompt.frame.gather(1, stage.first_column).masked_fill(text, -1)
