"""Facts about the columns of a decoder layer, computed from the `Prompt`."""

from __future__ import annotations

from dataclasses import fields

import torch
from torch import Tensor

from foveate.attention_call import Columns, Whole
from foveate.engine.prompt.locations import at_columns
from foveate.engine.prompt.positions import rotating
from foveate.engine.prompt.prompt import Prompt, Stage
from foveate.ops.transfer import on_device
from foveate.report import Trace


def plain(positions: Tensor, b: int) -> Tensor:
    """Position ids of all rows, (B, N), or (3, B, N) with M-RoPE."""
    positions = rotating(positions)
    return positions.expand(*positions.shape[:-2], b, -1)


def stage_columns(prompt: Prompt, stage: Stage) -> Columns:
    """Facts of the columns of one stage, computed once."""
    if stage.facts is None:
        stage.facts = _stage_columns(prompt, stage)
    return stage.facts


def _stage_columns(prompt: Prompt, stage: Stage) -> Columns:
    b, n = stage.prompt_column.shape
    where = [[_where(trace) for trace in row] for row in prompt.traces]
    sizes = [[trace.size.float() for trace in row] for row in prompt.traces]
    stands = at_columns(stage, where, stage.item.new_full((4,), -1))
    return Columns(
        valid=stage.valid,
        visual=stage.item >= 0,
        item=stage.item,
        frame=stands[..., 0],
        place=stands[..., 1:],
        size=at_columns(stage, sizes, torch.ones((), device=stage.item.device)),
        order=prompt.given.order.gather(1, stage.prompt_column),
        words=prompt.given.words.gather(1, stage.prompt_column),
        frames=prompt.given.frames.gather(1, stage.prompt_column),
        at=torch.arange(n, device=stage.item.device).expand(b, -1),
        positions=plain(stage.positions, b),
    )


def _where(trace: Trace) -> Tensor:
    """Frame and place (n, 4) of an item's tokens; -1 for an added vector."""
    layout = trace.layout.on(trace.index.device)
    index = trace.index.clamp(min=0)
    of = torch.cat([layout.frame[index, None], layout.position[index]], 1)
    return of.masked_fill((trace.index < 0)[:, None], -1)


def new_columns(
    prompt: Prompt, stage: Stage, q: int, new: int, behind: Tensor | None, positions: Tensor
) -> Columns:
    """Facts of the `new` columns after the prompt; the last `q` of them run now.

    Args:
        prompt: The prompt.
        stage: The stage of the layer.
        q: Columns that run in this call.
        new: Columns after the prompt.
        behind: (B, new) bool, False at padding; None where there is none.
        positions: (..., B or 1, q) position ids of the columns that run now. Earlier ones are
            counted back from them.
    """
    b, device = stage.valid.shape[0], stage.valid.device
    alive = torch.ones(b, new, dtype=torch.bool, device=device)
    if behind is not None:
        alive = behind[:, :new]
    end = stage.prompt_column.masked_fill(~stage.valid, 0).amax(1, keepdim=True)
    rank = alive.long().cumsum(1)
    given = prompt.given
    # Position ids of new text may have one axis for all three axes of M-RoPE.
    now = plain(positions, b).expand(*stage_columns(prompt, stage).positions.shape[:-1], -1)
    first = rank[:, -q:][:, :1]
    back = (rank - first)[:, : new - q]
    earlier = now[..., :1] + back.expand(*now.shape[:-2], -1, -1)
    none = torch.full((b, new), -1, device=device)
    return Columns(
        valid=alive,
        visual=torch.zeros_like(alive),
        item=none,
        frame=none,
        place=none[..., None].expand(-1, -1, 3),
        size=torch.ones(b, new, device=device),
        order=given.order.gather(1, end) + rank,
        words=given.words.gather(1, end) + rank,
        frames=given.frames.gather(1, end).expand(-1, new),
        at=(torch.arange(new, device=device) + stage.n).expand(b, -1),
        positions=torch.cat([earlier, now], -1),
    )


def joined(first: Columns, second: Columns) -> Columns:
    """The columns of `first`, followed by those of `second`."""
    joint = {}
    for name in (field.name for field in fields(Columns)):
        both = [getattr(first, name), getattr(second, name)]
        joint[name] = torch.cat(both, 1 if name == "place" else -1)
    return Columns(**joint)


def fitted(columns: Columns, width: int) -> Columns:
    """As many columns as the kernel gets keys: the last `width`, or padded at the end."""
    n = columns.valid.shape[1]
    if n == width:
        return columns
    index = torch.arange(width, device=columns.valid.device).expand(len(columns.valid), -1)
    if n > width:
        return columns.take(index + n - width)
    filled = columns.take(index.clamp(max=n - 1))
    spare = index >= n
    return Columns(
        valid=filled.valid & ~spare,
        visual=filled.visual & ~spare,
        item=filled.item.masked_fill(spare, -1),
        frame=filled.frame.masked_fill(spare, -1),
        place=filled.place.masked_fill(spare[..., None], -1),
        size=filled.size,
        order=filled.order,
        words=filled.words,
        frames=filled.frames,
        at=index,
        positions=filled.positions,
    )


def whole(prompt: Prompt, stage: Stage, new: Columns | None, cut: int) -> Whole:
    """Which column of a layer contains each position of the full sequence.

    Args:
        prompt: The prompt.
        stage: The stage of the layer.
        new: Columns after the prompt, None in prefill.
        cut: Columns that the layer's cache dropped at its start.
    """
    b, n = stage.prompt_column.shape
    if stage.of_prompt is None:
        stage.of_prompt = _of_prompt(prompt, stage)
    held, positions = stage.of_prompt, plain(prompt.given.positions, b)
    if new is not None:
        behind = torch.arange(new.valid.shape[1], device=held.device) + n
        held = torch.cat([held, behind.expand(b, -1).masked_fill(~new.valid, -1)], 1)
        positions = torch.cat([positions, new.positions], -1)
    held = held - cut
    return Whole(held.masked_fill(held < 0, -1), positions)


def _of_prompt(prompt: Prompt, stage: Stage) -> Tensor:
    """Column (B, L) of a stage that contains each column of the full prompt, -1 where none does."""
    b, n, length = *stage.prompt_column.shape, prompt.length
    device = stage.prompt_column.device
    # First column -> column of this stage; padding writes into a spare entry at the end.
    here = torch.full((b, prompt.first.n + 1), -1, device=device)
    steps = torch.arange(n, device=device).expand(b, -1)
    here.scatter_(1, stage.first_column.masked_fill(~stage.valid, prompt.first.n), steps)
    here[:, -1] = -1
    if stage.merged_into is not None:
        # First column -> first column that took it in -> column of this stage.
        into = stage.merged_into.masked_fill(stage.merged_into < 0, prompt.first.n)
        here = torch.cat([here.gather(1, into), here[:, -1:]], 1)
    first = prompt.first
    text = first.valid & (first.item < 0)
    held = torch.full((b, length + 1), -1, device=device)
    # Text keeps its prompt column.
    target = first.prompt_column.masked_fill(~text, length)
    held.scatter_(1, target, here[:, :-1])
    for row, traces in enumerate(prompt.traces):
        for number, trace in enumerate(traces):
            tokens = len(trace.index)
            # Token of the item -> first column; its last two entries are for dropped slots and for
            # the columns of other items.
            token = first.token[row].masked_fill(first.item[row] != number, tokens + 1)
            column = torch.full((tokens + 2,), first.n, device=device)
            column = column.scatter(0, token, torch.arange(first.n, device=device))
            # Slot -> token -> first column -> column of this stage, at the slots' prompt columns.
            token = trace.assign.masked_fill(trace.assign < 0, tokens)
            own = on_device(prompt.given.columns[row][number], device)
            held[row, own] = here[row, column[token]]
    return held[:, :length]
