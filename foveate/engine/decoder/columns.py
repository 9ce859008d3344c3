"""Maps values from the columns of one stage of a prompt to those of the next."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from foveate.engine.prompt.prompt import Stage
from foveate.ops.attention import Heads
from foveate.ops.gather import rows_at, rows_summed
from foveate.ops.transfer import on_device
from foveate.parts import Merge


def merge_columns(x: Tensor, merge: Merge) -> Tensor:
    """Weighted sums (B, N, D) of columns, at the columns they merge into."""
    # In float32, because sums of many hidden states are inexact in half precision.
    weighted = x.float() * merge.weight[..., None].float()
    return rows_summed(weighted, merge.into, x.shape[1]).to(x.dtype)


def as_merge(verdict: Tensor | Merge, stage: Stage) -> Merge:
    """The result of `at_boundary` as a `Merge` that keeps text and padding unchanged."""
    fixed = (stage.item < 0) | ~stage.valid
    own = torch.arange(stage.n, device=fixed.device).expand_as(stage.item)
    if isinstance(verdict, Tensor):
        return Merge(own.masked_fill(~(verdict | fixed), -1), fixed.new_ones(1, 1).expand_as(fixed))
    into = torch.where(fixed, own, verdict.into)
    return Merge(into, verdict.weight.masked_fill(fixed, 1), verdict.place)


def follow_merges(first: Stage, before: Stage, merge: Merge) -> Tensor:
    """`Stage.merged_into` after one more merge: first column -> first column, (B, N0)."""
    held = torch.arange(first.n, device=merge.into.device).expand_as(first.prompt_column)
    held = held if before.merged_into is None else before.merged_into
    # Column -> column that takes it in, both as first columns.
    taken = before.first_column.gather(1, merge.into.clamp(min=0)).masked_fill(merge.into < 0, -1)
    goes = held.new_full((len(held), first.n + 1), -1)
    goes.scatter_(1, before.first_column.masked_fill(~before.valid, first.n), taken)
    goes[:, -1] = -1
    return goes.gather(1, held.masked_fill(held < 0, first.n))


def values_at_stage(seen: Tensor, source: Stage, stage: Stage, width: int) -> Tensor:
    """Values (B, H, N_source, ...) at the columns of a later stage, 0 for columns without a value.

    `width` is the number of columns of the first stage.
    """
    # First column -> column of the source, then column of the stage -> column of the source.
    where = source.first_column.new_full((len(source.first_column), width + 1), -1)
    steps = torch.arange(source.n, device=where.device).expand_as(source.first_column)
    # The index of a padding column is also that of a real one, so padding writes to a spare slot.
    where.scatter_(1, source.first_column.masked_fill(~source.valid, width), steps)
    index = where.gather(1, stage.first_column)
    rows = rows_at(seen if seen.dim() > 3 else seen[..., None], index.clamp(min=0))
    rows = rows.masked_fill((index < 0)[:, None, :, None], 0)
    return rows if seen.dim() > 3 else rows[..., 0]


def heads_at_stage(heads: Heads, source: Stage, stage: Stage, width: int) -> Heads:
    """Queries and keys at the columns of a later stage."""
    steps = torch.arange(source.n, device=source.first_column.device).expand(
        len(source.first_column), 1, -1
    )
    index = values_at_stage(steps, source, stage, width)[:, 0]
    return replace(
        heads,
        query=values_at_stage(heads.query, source, stage, width),
        key=values_at_stage(heads.key, source, stage, width),
        valid=stage.valid,
        mask=None if heads.mask is None else mask_at(heads.mask, index),
    )


def mask_at(mask: Tensor, index: Tensor) -> Tensor:
    """Rows and columns `index` (B, N) of a mask (B or 1, H, L, W)."""
    mask = mask.expand(len(index), -1, -1, -1)
    rows = index[:, None, :, None].expand(-1, mask.shape[1], -1, mask.shape[3])
    columns = index[:, None, None, :].expand(-1, mask.shape[1], index.shape[1], -1)
    return mask.gather(2, rows).gather(3, columns)


def pad_front(order: Tensor, lengths: list[int], right: bool) -> tuple[Tensor, Tensor]:
    """The first `lengths[b]` entries of each row of `order` (B, N), padded by 0 to the longest.

    Returns them and a mask of the real entries, both (B, longest).
    """
    n = max(lengths)
    columns = order[:, :n]
    if min(lengths) == n:
        return columns, torch.ones_like(columns, dtype=torch.bool)
    short = [0 if right else n - length for length in lengths]
    ends = [s + length for s, length in zip(short, lengths, strict=True)]
    start, end = on_device([short, ends], order.device)[..., None]
    steps = torch.arange(n, device=order.device)
    valid = (steps >= start) & (steps < end)
    return columns.gather(1, (steps - start).clamp(min=0)).masked_fill(~valid, 0), valid
