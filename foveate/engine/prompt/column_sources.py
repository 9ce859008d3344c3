"""Where every column of a shortened prompt comes from, worked out on the host as far as it can be.

Which tokens were kept is known to the device alone; how many, and where they go, is known here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.ops.transfer import on_device

# Keys of columns whose order the device has to find out, and of padding in front of all columns.
UNKNOWN, FRONT = -2, -1


@dataclass(frozen=True)
class Placed:
    """An item in a row of the prompt: its modality, its number, its columns (n,) on the CPU."""

    modality: str
    number: int
    columns: Tensor

    @property
    def contiguous(self) -> bool:
        """Whether its placeholders form one run."""
        return int(self.columns[-1] - self.columns[0]) == len(self.columns) - 1


@dataclass(frozen=True)
class Plan:
    """The columns of a shortened prompt.

    Attributes:
        column: columns of the caller's prompt, (B, N); of padding 0.
        item: number of the visual item within the row, (B, N); -1 for text and padding.
        slot: token of that item, (B, N); -1 for text and padding.
        valid: no padding, (B, N) bool.
        lengths: columns of each row that are no padding.
    """

    column: Tensor
    item: Tensor
    slot: Tensor
    valid: Tensor
    lengths: list[int]


def planned(
    rows: list[list[Placed]],
    text: Tensor,
    at: list[list[Tensor]],
    right: bool,
    device: torch.device,
) -> Plan:
    """The plan of a prompt.

    rows: items of each row. text (B, L) bool, on the CPU: columns of words. at: per row and item
    the columns (n,) in which its tokens stand, on the device. right: rows are padded on the right.
    """
    known = all(placed.contiguous for row in rows for placed in row)
    made = [_row(row, words, own) for row, words, own in zip(rows, text, at, strict=True)]
    lengths = [r.shape[1] for r in made]
    n = max(lengths)
    # Of every column: key, column, item, slot, number among all tokens, and whether it is real.
    table = torch.full((6, len(rows), n), -1)
    table[0], table[5] = text.shape[1] if right else FRONT, 0
    start = 0
    for b, (row, own) in enumerate(zip(made, at, strict=True)):
        where = slice(0, lengths[b]) if right else slice(n - lengths[b], n)
        table[:5, b, where], table[5, b, where] = row, 1
        table[4, b, where] += (row[4] >= 0) * start
        start += sum(map(len, own))
    if known:
        table = _sorted(table)
    table = on_device(table, device)
    tokens = [x for own in at for x in own]
    # Text stands where it stood.
    stood = torch.cat(tokens)[table[4].clamp(min=0)] if tokens else table[1]
    table[1] = torch.where(table[4] < 0, table[1], stood).clamp(min=0)
    if not known:
        table[0] = torch.where(table[0] == UNKNOWN, table[1], table[0])
        table = _sorted(table)
    return Plan(table[1], table[2], table[3], table[5].bool(), lengths)


def _row(row: list[Placed], words: Tensor, at: list[Tensor]) -> Tensor:
    """Key, column, item, slot and number among the row's tokens, (5, n)."""
    text = words.nonzero()[:, 0]
    none = torch.full_like(text, -1)
    parts, start = [torch.stack([text, text, none, none, none])], 0
    for number, (placed, own) in enumerate(zip(row, at, strict=True)):
        slot = torch.arange(len(own))
        # What stands in one run keeps the order that its method gave it.
        key = int(placed.columns[0]) if placed.contiguous else UNKNOWN
        of = [torch.full_like(slot, x) for x in (key, -1, number)]
        parts.append(torch.stack([*of, slot, slot + start]))
        start += len(own)
    return torch.cat(parts, 1)


def _sorted(table: Tensor) -> Tensor:
    """Columns in ascending order of their keys, ties as they come."""
    return table.gather(2, table[0].argsort(dim=1, stable=True).expand(len(table), -1, -1))
