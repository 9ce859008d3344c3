"""Numbers as codes of a few bits with a minimum and a step, several codes to a byte."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

WIDTHS = (2, 4, 8)
# Rows that are read at a time: few enough to stay near the processor.
BLOCK = 2048


def pack(codes: Tensor, bits: int) -> Tensor:
    """Codes (..., C) below 2**bits, uint8, as bytes (..., ceil(C / (8 / bits))).

    The channels are cut into 8 / bits equal runs, of which the first has the lowest bits.
    """
    per = 8 // bits
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % per))
    packed = torch.zeros_like(codes[..., : codes.shape[-1] // per])
    for i, run in enumerate(codes.chunk(per, -1)):
        packed |= run << (bits * i)
    return packed


def unpack(packed: Tensor, bits: int, channels: int, dtype: torch.dtype = torch.uint8) -> Tensor:
    """The codes (..., channels) that `pack` put into bytes, as numbers of any type."""
    top = 2**bits - 1
    runs = [packed >> shift if shift else packed for shift in range(0, 8, bits)]
    # The highest bits come down alone.
    runs = [run & top for run in runs[:-1]] + runs[-1:]
    return torch.cat(runs, -1)[..., :channels].to(dtype)


@dataclass(frozen=True, eq=False)
class Codes:
    """Numbers (H, N, d), each `low + step * code`, or as they were where `step` is None.

    data: packed codes (H, N, bytes), or the numbers themselves. low, step: (H, 1, d) or (1, N, 1).
    """

    data: Tensor
    low: Tensor | None
    step: Tensor | None
    bits: int
    channels: int

    def __len__(self) -> int:
        return self.data.shape[1]

    def read(self, rows: slice = slice(None)) -> Tensor:
        """The numbers (H, N, d), or some rows of them."""
        data = self.data[:, rows]
        if self.low is None or self.step is None:
            return data
        codes = unpack(data, self.bits, self.channels, self.step.dtype)
        low, step = (x if x.shape[1] == 1 else x[:, rows] for x in (self.low, self.step))
        return torch.addcmul(low, codes, step)

    def read_into(self, out: Tensor, index: Tensor) -> None:
        """Write the numbers to the rows `index` (N,) of `out` (H, M, d), block by block."""
        for start in range(0, len(index), BLOCK):
            rows = slice(start, start + BLOCK)
            out.index_copy_(1, index[rows], self.read(rows))

    def products_into(self, out: Tensor, rows: Tensor) -> None:
        """Write products of rows (H, R, d) with all numbers to `out` (H, R, N), float32.

        For ranges of channels: minima and steps go to the rows, so that codes are read as they are.
        """
        if self.low is None or self.step is None:
            out.copy_(rows @ self.data.float().mT)
            return
        scaled, low = rows * self.step.float(), rows @ self.low.float().mT
        for some, codes in zip(out.split(self._block, -1), self._codes(), strict=True):
            some.copy_(torch.baddbmm(low, scaled, codes.mT))

    def mixed(self, weights: Tensor) -> Tensor:
        """Sums (H, R, d) weighted by (H, R, N), float32, for ranges of tokens.

        Minima and steps go to the weights, so that codes are read as they are.
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
        """Rows that are read at a time; a GPU reads them all."""
        return max(1, len(self)) if self.data.is_cuda else BLOCK

    def _codes(self) -> Iterator[Tensor]:
        """The codes as numbers (H, n, d), a block of rows at a time."""
        for data in self.data.split(self._block, 1):
            yield unpack(data, self.bits, self.channels, torch.float32)

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(t.nbytes for t in (self.data, self.low, self.step) if t is not None)


# What a range is taken over: all tokens of a channel, or all channels and heads of a token.
CHANNEL, TOKEN = (1,), (0, 2)


def quantise(x: Tensor, bits: int, over: tuple[int, ...]) -> Codes:
    """Asymmetric codes of x (H, N, d), whose minimum and step are taken over `over`.

    Errors are at most half a step. 16 bits and more leave x as it is.
    """
    if bits > max(WIDTHS) or not x.shape[1]:
        return Codes(x, None, None, bits, x.shape[2])
    top = 2**bits - 1
    low, high = x.amin(over, keepdim=True), x.amax(over, keepdim=True)
    # A flat range has step 0: codes are 0 then, and the minimum comes back.
    step = ((high.float() - low.float()) / top).to(x.dtype).clamp(min=torch.finfo(x.dtype).tiny)
    codes = ((x.float() - low.float()) / step.float()).round().clamp(0, top).to(torch.uint8)
    return Codes(pack(codes, bits), low, step, bits, x.shape[2])
