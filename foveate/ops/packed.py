"""Quantised keys and values, with more bits for important tokens than for the rest."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from foveate.ops.gather import rows_at
from foveate.ops.quantise import CHANNEL, TOKEN, WIDTHS, Codes, quantise


@dataclass(frozen=True, eq=False)
class PackedRow:
    """The quantised keys and values of one sample.

    Attributes:
        keys: Codes of the important tokens and of the rest, each in ascending order.
        values: Likewise.
        scale: (H, 1, d) divisor of the value channels, or None.
    """

    keys: tuple[Codes, Codes]
    values: tuple[Codes, Codes]
    scale: Tensor | None

    def read_into(self, keys: Tensor, values: Tensor, index: Tensor) -> None:
        """Write keys and values to rows `index` of (H, N, d), important tokens first."""
        for codes, out in ((self.keys, keys), (self.values, values)):
            important = len(codes[0])
            codes[0].read_into(out, index[:important])
            codes[1].read_into(out, index[important:][: len(codes[1])])
        if self.scale is not None:
            values.mul_(self.scale)

    def products_into(self, out: Tensor, rows: Tensor) -> None:
        """Write products of rows (H, R, d) with the keys to (H, R, N), important tokens first."""
        many, few = out.split([len(codes) for codes in self.keys], -1)
        self.keys[0].products_into(many, rows)
        self.keys[1].products_into(few, rows)

    def mixed(self, weights: Tensor) -> Tensor:
        """Sum (H, R, d) of the values weighted by (H, R, N), important tokens first."""
        parts = weights.split([len(codes) for codes in self.values], -1)
        many, few = (c.mixed(w) for c, w in zip(self.values, parts, strict=True))
        return many + few if self.scale is None else (many + few) * self.scale

    @property
    def nbytes(self) -> int:
        """Size in bytes of codes, minima, steps and scales."""
        scale = 0 if self.scale is None else self.scale.nbytes
        return scale + sum(codes.nbytes for codes in (*self.keys, *self.values))


@dataclass(frozen=True, eq=False)
class Packed:
    """Quantised keys and values (B, H, N, d) of N columns, some of them padding.

    Attributes:
        rows: One `PackedRow` per sample.
        valid: (B, N) bool, False at padding.
        important: (B, N) bool, columns that are stored with more bits.
        index: (B, N) int, which columns of the prompt these are. None for all.
    """

    rows: tuple[PackedRow, ...]
    valid: Tensor
    important: Tensor
    index: Tensor | None = None

    def read(self) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, N, d) in the order of columns, 0 at padding."""
        some = self.rows[0].keys[0]
        b, n = self.valid.shape
        like = some.data if some.step is None else some.step
        size = b, some.data.shape[0], n, some.channels
        keys, values = like.new_zeros(size), like.new_zeros(size)
        # Important columns first, then the others, padding last.
        rank = self.valid.long() + (self.valid & self.important)
        order = rank.argsort(dim=1, descending=True, stable=True)
        for row, index, k, v in zip(self.rows, order, keys, values, strict=True):
            row.read_into(k, v, index)
        return keys, values

    def products_into(self, out: Tensor, rows: Tensor) -> None:
        """Write products of rows (B, Hkv, R, d) with keys to `out` (B, Hkv, R, N), float32.

        Columns are in the order of the codes, and keys are not unpacked. Padding comes last and is
        left unchanged.
        """
        for row, own, there in zip(self.rows, rows, out, strict=True):
            row.products_into(there[..., : sum(map(len, row.keys))], own)

    def mixed(self, weights: Tensor) -> Tensor:
        """Sum (B, Hkv, R, d) in float32 of the values weighted by (B, Hkv, R, N), in code order."""
        held = [
            own[..., : sum(map(len, row.values))]
            for row, own in zip(self.rows, weights, strict=True)
        ]
        return torch.stack([row.mixed(own) for row, own in zip(self.rows, held, strict=True)])

    def take(self, rows: Tensor) -> Packed:
        """The samples `rows` (R,); their codes are shared."""
        return replace(
            self,
            rows=tuple(self.rows[b] for b in rows.tolist()),
            valid=self.valid[rows],
            important=self.important[rows],
            index=None if self.index is None else self.index[rows],
        )

    @property
    def nbytes(self) -> int:
        """Size in bytes of codes, scales (shared ones once) and importance flags."""
        return sum({id(row): row.nbytes for row in self.rows}.values()) + self.important.nbytes


def pack_tokens(
    keys: Tensor,
    values: Tensor,
    valid: Tensor,
    important: Tensor,
    bits: tuple[int, int] | list[tuple[int, int]],
    counts: tuple[list[int], list[int]] | None = None,
) -> Packed:
    """Quantise keys and values (B, H, N, d).

    Keys have one range per channel over all tokens. Values have one range per token, after division
    by a scale per channel: the square root of the channel's largest magnitude.

    Args:
        keys: (B, H, N, d).
        values: (B, H, N, d).
        valid: (B, N) bool, False at padding.
        important: (B, N) bool.
        bits: Bits for important tokens and for the others; one pair for all samples, or one for
            each.
        counts: Valid and important tokens of each sample, if known. Computing them is a device
            sync.
    """
    important = important & valid
    each = bits if isinstance(bits, list) else [bits] * len(keys)
    if counts is None:
        counts = tuple(torch.stack([valid.sum(1), important.sum(1)]).tolist())
    # Important columns first, then the others, padding last.
    order = (valid.long() + important).argsort(dim=1, descending=True, stable=True)
    rows = []
    given = zip(keys, values, order, *counts, each, strict=True)
    for k, v, index, length, some, (many, few) in given:
        index, scale = index[:length], None
        k, v = k.index_select(1, index), v.index_select(1, index)
        if min(many, few) <= max(WIDTHS) and length:
            scale = v.abs().amax(1, keepdim=True).sqrt().clamp(min=torch.finfo(v.dtype).tiny)
            v = v / scale
        rows.append(
            PackedRow(
                (quantise(k[:, :some], many, CHANNEL), quantise(k[:, some:], few, CHANNEL)),
                (quantise(v[:, :some], many, TOKEN), quantise(v[:, some:], few, TOKEN)),
                scale,
            )
        )
    return Packed(tuple(rows), valid, important)


def pack_chosen(
    keys: Tensor,
    values: Tensor,
    chosen: Tensor,
    bits: int | list[int],
    counts: list[int] | None = None,
) -> Packed:
    """Quantise only the `chosen` (B, N) columns of keys and values (B, H, N, d).

    Args:
        keys: (B, H, N, d).
        values: (B, H, N, d).
        chosen: (B, N) bool.
        bits: One number for all samples, or one for each.
        counts: Chosen columns of each sample, if known. Computing them is a device sync.
    """
    pairs = [(n, n) for n in bits] if isinstance(bits, list) else (bits, bits)
    counts = chosen.sum(1).tolist() if counts is None else counts
    index = chosen.long().argsort(dim=1, descending=True, stable=True)[:, : max(counts)]
    real = chosen.gather(1, index)
    kept = rows_at(keys, index), rows_at(values, index)
    packed = pack_tokens(*kept, real, real, pairs, (counts, counts))
    return replace(packed, index=index)
