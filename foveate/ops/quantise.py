"""Quantises numbers to codes of a few bits with a minimum and a step, and packs them into bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

WIDTHS = (2, 4, 8)
# Rows that are read at a time: few enough to stay in the CPU cache.
BLOCK = 2048


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack codes (..., C) below 2**bits, uint8, into bytes (..., ceil(C / (8 / bits))).

    The channels are split into 8 / bits equal runs; the first run has the lowest bits.
    """
    per = 8 // bits
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % per))
    packed = torch.zeros_like(codes[..., : codes.shape[-1] // per])
    for i, run in enumerate(codes.chunk(per, -1)):
        packed |= run << (bits * i)
    return packed


def unpack(packed: Tensor, bits: int, channels: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """The codes (..., channels) that `pack` packed."""
    top = 2**bits - 1
    runs = [packed >> shift if shift else packed for shift in range(0, 8, bits)]
    # The highest bits need no mask.
    runs = [run & top for run in runs[:-1]] + runs[-1:]
    return torch.cat(runs, -1)[..., :channels].to(dtype)


@dataclass(frozen=True, eq=False)
class Codes:
    """Quantised numbers (H, N, d): `low + step * code`.

    Attributes:
        data: (H, N, bytes) packed codes, or the unchanged numbers where `step` is None.
        low: (H, 1, d) or (1, N, 1) minimum, or None.
        step: (H, 1, d) or (1, N, 1) step, or None.
        bits: Bits per code.
        channels: d.
    """

    data: Tensor
    low: Tensor | None
    step: Tensor | None
    bits: int
    channels: int

    def __len__(self) -> int:
        return self.data.shape[1]

    def read(self, rows: slice = slice(None)) -> Tensor:
        """The numbers (H, N, d), or some of their rows."""
        data = self.data[:, rows]
        if self.low is None or self.step is None:
            return data
        codes = unpack(data, self.bits, self.channels, self.step.dtype)
        low, step = (x if x.shape[1] == 1 else x[:, rows] for x in (self.low, self.step))
        return torch.addcmul(low, codes, step)

    def read_into(self, out: Tensor, index: Tensor) -> None:
        """Write the numbers to the rows `index` (N,) of `out` (H, M, d), in blocks."""
        for start in range(0, len(index), BLOCK):
            rows = slice(start, start + BLOCK)
            out.index_copy_(1, index[rows], self.read(rows))

    def products_into(self, out: Tensor, rows: Tensor) -> None:
        """Write products of rows (H, R, d) with all numbers to `out` (H, R, N), float32.

        For ranges per channel. Minima and steps are applied to the rows, so codes are used
        directly.
        """
        if self.low is None or self.step is None:
            out.copy_(rows @ self.data.float().mT)
            return
        scaled, low = rows * self.step.float(), rows @ self.low.float().mT
        for some, codes in zip(out.split(self._block, -1), self._codes(), strict=True):
            some.copy_(torch.baddbmm(low, scaled, codes.mT))

    def mixed(self, weights: Tensor) -> Tensor:
        """Weighted sums (H, R, d) with weights (H, R, N), float32, for ranges per token.

        Minima and steps are applied to the weights, so codes are used directly.
        """
        if self.low is None or self.step is None:
            return weights @ self.data.float()
        parts = (weights * self.step.mT.float()).split(self._block, -1)
        out = weights @ self.low.float()
        for some, codes in zip(parts, self._codes(), strict=True):
            out = torch.baddbmm(out, some, codes)
        return out

    @property
    def _block(self) -> int:
        """Number of rows to read at a time; on a GPU all of them."""
        return max(1, len(self)) if self.data.is_cuda else BLOCK

    def _codes(self) -> Iterator[Tensor]:
        """The codes as numbers (H, n, d), a block of rows at a time."""
        for data in self.data.split(self._block, 1):
            yield unpack(data, self.bits, self.channels, torch.float32)

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return sum(t.nbytes for t in (self.data, self.low, self.step) if t is not None)


# Dimensions that share a range: all tokens of a channel, or all channels and heads of a token.
CHANNEL, TOKEN = (1,), (0, 2)


def quantise(x: Tensor, bits: int, over: tuple[int, ...]) -> Codes:
    """Asymmetric quantisation of x (H, N, d), with ranges over the dimensions `over`.

    Errors are at most half a step. With 16 bits or more x is unchanged.
    """
    if bits > max(WIDTHS) or not x.shape[1]:
        return Codes(x, None, None, bits, x.shape[2])
    top = 2**bits - 1
    low, high = x.amin(over, keepdim=True), x.amax(over, keepdim=True)
    # A constant range has step 0. Its codes are 0 and it is restored from the minimum.
    step = ((high.float() - low.float()) / top).to(x.dtype).clamp(min=torch.finfo(x.dtype).tiny)
    codes = ((x.float() - low.float()) / step.float()).round().clamp(0, top).to(torch.uint8)
    return Codes(pack(codes, bits), low, step, bits, x.shape[2])
