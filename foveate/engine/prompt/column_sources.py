"""Where every column of a shortened prompt comes from, computed on the host as far as possible.

Which tokens were kept is known on the device only. How many there are, and where they go, is known
on the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from foveate.ops.transfer import on_device

# Sort keys: of columns whose order only the device knows, and of padding before all columns.
UNKNOWN, FRONT = -2, -1


@dataclass(frozen=True)
class Placed:
    """An item in a row of the prompt.

    Attributes:
        modality: "image" or "video".
        number: Index of the item among the encoded items of its modality.
        columns: (n,) int on the CPU, columns of its placeholders.
    """

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
        column: (B, N) int, column of the full prompt; 0 at padding.
        item: (B, N) int, index of the item within the row; -1 for text and padding.
        token: (B, N) int, index of the token within the item; -1 for text and padding.
        valid: (B, N) bool, False at padding.
        lengths: Columns of each row without padding.
    """

    column: Tensor
    item: Tensor
    token: Tensor
    valid: Tensor
    lengths: list[int]


def planned(
    rows: list[list[Placed]],
    text: Tensor,
    at: list[list[Tensor]],
    right: bool,
    device: torch.device,
) -> Plan:
    """The plan of a shortened prompt.

    Args:
        rows: Items of each row.
        text: (B, L) bool on the CPU, True at text columns.
        at: For each row and item, the columns (n,) of the full prompt that its tokens take; on the
            device.
        right: Whether rows are padded on the right.
        device: Device of the plan.
    """
    known = all(placed.contiguous for row in rows for placed in row)
    made = [_row(row, words, own) for row, words, own in zip(rows, text, at, strict=True)]
    lengths = [r.shape[1] for r in made]
    n = max(lengths)
    # For every column: sort key, prompt column, item, token of the item, token of the batch, valid.
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
    # Text columns keep their place.
    stood = torch.cat(tokens)[table[4].clamp(min=0)] if tokens else table[1]
    table[1] = torch.where(table[4] < 0, table[1], stood).clamp(min=0)
    if not known:
        table[0] = torch.where(table[0] == UNKNOWN, table[1], table[0])
        table = _sorted(table)
    return Plan(table[1], table[2], table[3], table[5].bool(), lengths)


def _row(row: list[Placed], words: Tensor, at: list[Tensor]) -> Tensor:
    """Sort key, prompt column, item, token of the item and token of the row, (5, n)."""
    text = words.nonzero()[:, 0]
    none = torch.full_like(text, -1)
    parts, start = [torch.stack([text, text, none, none, none])], 0
    for number, (placed, own) in enumerate(zip(row, at, strict=True)):
        token = torch.arange(len(own))
        # Tokens of a contiguous item keep the order that the method gave them.
        key = int(placed.columns[0]) if placed.contiguous else UNKNOWN
        of = [torch.full_like(token, x) for x in (key, -1, number)]
        parts.append(torch.stack([*of, token, token + start]))
        start += len(own)
    return torch.cat(parts, 1)


def _sorted(table: Tensor) -> Tensor:
    """Columns in ascending order of their keys, ties in the given order."""
    return table.gather(2, table[0].argsort(dim=1, stable=True).expand(len(table), -1, -1))
