"""Attention under a rule's own mask, block by block of rows, with the keys that a block sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.attending import Attend, Attending, Columns
from foveate.ops.gather import rows_at

# Rows that are handed to the kernel at a time: few, so that little is computed in vain, and more
# where a launch costs more than that.
BLOCK = 128
BLOCK_ON_GPU = 1024


@dataclass(frozen=True, eq=False)
class Piece:
    """What layers that hold the same columns share of one block: facts, and the mask.

    rows: slice of the query rows. index (B, K): keys that any of them sees, None for all of the
    first K. spared (B,): pairs of row and key that a causal kernel would compute and this doesn't.
    """

    rows: slice
    index: Tensor | None
    queries: Columns
    keys: Columns
    mask: Tensor | None
    spared: Tensor

    def of(self, call: Attending) -> Attending:
        """This block of a layer's call."""
        return replace(
            call,
            query=call.query[:, :, self.rows],
            key=self._kept(call.key),
            value=self._kept(call.value),
            mask=self.mask,
            queries=self.queries,
            keys=self.keys,
            cos=call.cos[:, self.rows],
            sin=call.sin[:, self.rows],
        )

    def _kept(self, x: Tensor) -> Tensor:
        if self.index is None:
            return x[:, :, : self.keys.valid.shape[1]]
        return rows_at(x, self.index)


def in_pieces(
    call: Attending, proceed: Attend, visible: Callable[[Attending], Tensor]
) -> tuple[Tensor, Tensor]:
    """Output (B, q, H, d) where rows see what `visible` says of them, and the pairs (B,) it spares.

    visible(call): (B, 1 or H, q, K) bool, asked block by block and once for all layers that hold
    the same columns under the same mask, so that the whole of it never exists.
    """
    pieces = call.once(lambda: list(_cut(call, visible)))
    out = [proceed(piece.of(call)) for piece in pieces]
    return torch.cat(out, 1), torch.stack([piece.spared for piece in pieces]).sum(0)


def _cut(call: Attending, visible: Callable[[Attending], Tensor]):
    n = call.query.shape[2]
    block = BLOCK_ON_GPU if call.query.is_cuda else BLOCK
    for start in range(0, n, block):
        rows = slice(start, min(start + block, n))
        steps = torch.arange(rows.start, rows.stop, device=call.query.device)
        part = call.rows(steps.expand(len(call.query), -1))
        real = part.queries.valid
        seen = visible(part) & real[:, None, :, None]
        used = seen.any(2).any(1)
        most = max(1, int(used.sum(1).max()))
        last = max(1, int((used * torch.arange(1, used.shape[1] + 1, device=used.device)).amax()))
        part = part.masked(seen)
        # To leave some gaps in costs less than to move all the others.
        whole = most > 0.8 * last
        keep = torch.arange(last, device=used.device).expand(len(used), -1)
        if not whole:
            keep = used.long().argsort(dim=1, descending=True, stable=True)[:, :most]
        asked = part.keys.valid.gather(1, keep) if whole else used.gather(1, keep)
        part = part.columns(keep, asked)
        bare = call.keys.valid[:, : int(part.queries.at.max()) + 1].sum(1)
        spared = real.sum(1) * (bare - asked.sum(1))
        yield Piece(rows, None if whole else keep, part.queries, part.keys, part.mask, spared)
