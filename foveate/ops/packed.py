"""Keys and values of some tokens in few bits: more for important ones than for the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.ops.gather import rows_at
from foveate.ops.quantise import WIDTHS, Codes, quantise


@dataclass(frozen=True, eq=False)
class PackedRow:
    """One sample: codes of its important tokens and of the rest, each in ascending order.

    scale (1, C): what the channels of the values were divided by, None where they were not.
    """

    keys: tuple[Codes, Codes]
    values: tuple[Codes, Codes]
    scale: Tensor | None

    def read_into(self, keys: Tensor, values: Tensor, index: Tensor) -> None:
        """Write keys and values to rows of (N, C): index has the important ones' first."""
        for codes, out in ((self.keys, keys), (self.values, values)):
            important = len(codes[0].data)
            codes[0].read_into(out, index[:important])
            codes[1].read_into(out, index[important:][: len(codes[1].data)])
        if self.scale is not None:
            values.mul_(self.scale)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, minima, steps and scales."""
        scale = 0 if self.scale is None else self.scale.nbytes
        return scale + sum(codes.nbytes for codes in (*self.keys, *self.values))


@dataclass(frozen=True, eq=False)
class Packed:
    """Keys and values (B, H, N, d) of N columns of a prompt, some of them padding.

    valid, important (B, N) bool: no padding; stored with the wider codes. index (B, N): which
    columns these are, None where they are all.
    """

    rows: tuple[PackedRow, ...]
    valid: Tensor
    important: Tensor
    heads: int
    index: Tensor | None = None

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, N, d), columns in order, 0 at padding."""
        some = self.rows[0].keys[0]
        size = *self.valid.shape, some.channels
        like = some.data if some.step is None else some.step
        keys, values = (like.new_zeros(size) for _ in range(2))
        # Important columns first, then the others, padding behind them.
        rank = self.valid.long() + (self.valid & self.important)
        order = rank.argsort(dim=1, descending=True, stable=True)
        for row, index, k, v in zip(self.rows, order, keys, values, strict=True):
            row.read_into(k, v, index)
        return self._heads(keys), self._heads(values)

    def take(self, rows: Tensor) -> Packed:
        """Samples `rows` (R,); their codes are shared."""
        return replace(
            self,
            rows=tuple(self.rows[b] for b in rows.tolist()),
            valid=self.valid[rows],
            important=self.important[rows],
            index=None if self.index is None else self.index[rows],
        )

    @property
    def nbytes(self) -> int:
        """Bytes that are held: codes and scales, shared ones once, and the marks of importance."""
        return sum({id(row): row.nbytes for row in self.rows}.values()) + self.important.nbytes

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def pack_tokens(
    keys: Tensor, values: Tensor, valid: Tensor, important: Tensor, bits: tuple[int, int]
) -> Packed:
    """Keys and values (B, H, N, d) in `bits` for important (B, N) tokens and for the others.

    Keys get one range per channel of all heads, values one per token, behind a scale per channel
    that all tokens of a sample share: the root of its largest magnitude.
    """
    important = important & valid
    rows = []
    for k, v, real, chosen in zip(_flat(keys), _flat(values), valid, important, strict=True):
        k, v, chosen, scale = k[real], v[real], chosen[real], None
        if min(bits) <= max(WIDTHS):
            scale = v.abs().amax(0, keepdim=True).sqrt().clamp(min=torch.finfo(v.dtype).tiny)
            v = v / scale
        many, few = bits
        rows.append(
            PackedRow(
                (quantise(k[chosen], many, dim=0), quantise(k[~chosen], few, dim=0)),
                (quantise(v[chosen], many, dim=1), quantise(v[~chosen], few, dim=1)),
                scale,
            )
        )
    return Packed(tuple(rows), valid, important, keys.shape[1])


def pack_chosen(keys: Tensor, values: Tensor, chosen: Tensor, bits: int) -> Packed:
    """The `chosen` (B, N) columns of keys and values (B, H, N, d) alone, in `bits`."""
    count = chosen.sum(1, keepdim=True)
    index = chosen.long().argsort(dim=1, descending=True, stable=True)[:, : int(count.max())]
    real = torch.arange(index.shape[1], device=index.device) < count
    packed = pack_tokens(rows_at(keys, index), rows_at(values, index), real, real, (bits, bits))
    return replace(packed, index=index)


def _flat(x: Tensor) -> Tensor:
    """(B, H, N, d) as (B, N, H * d)."""
    return x.transpose(1, 2).flatten(2)
