"""Numbers as codes of a few bits with a minimum and a step, several codes to a byte."""

from __future__ import annotations

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
    runs = packed.new_empty(*packed.shape[:-1], 8 // bits, packed.shape[-1], dtype=dtype)
    for i, shift in enumerate(range(0, 8, bits)):
        run = packed >> shift if shift else packed
        runs[..., i, :] = run & (2**bits - 1) if shift + bits < 8 else run
    return runs.flatten(-2)[..., :channels]


@dataclass(frozen=True, eq=False)
class Codes:
    """Numbers (N, C), each `low + step * code`, or as they were where `step` is None.

    data: packed codes (N, bytes), or the numbers themselves. low, step: (1, C) or (N, 1).
    """

    data: Tensor
    low: Tensor | None
    step: Tensor | None
    bits: int
    channels: int

    def read(self, rows: slice | None = None) -> Tensor:
        """The numbers (N, C), or some rows of them."""
        data = self.data if rows is None else self.data[rows]
        if self.low is None or self.step is None:
            return data
        codes = unpack(data, self.bits, self.channels, self.step.dtype)
        low, step = (x if rows is None or len(x) == 1 else x[rows] for x in (self.low, self.step))
        return torch.addcmul(low, codes, step)

    def read_into(self, out: Tensor, index: Tensor) -> None:
        """Write the numbers (N, C) to the rows `index` (N,) of `out`, a block of them at a time."""
        for start in range(0, len(index), BLOCK):
            rows = slice(start, start + BLOCK)
            out.index_copy_(0, index[rows], self.read(rows))

    @property
    def nbytes(self) -> int:
        """Bytes that are held."""
        return sum(t.nbytes for t in (self.data, self.low, self.step) if t is not None)


def quantise(x: Tensor, bits: int, dim: int) -> Codes:
    """Asymmetric codes of x (N, C), whose minimum and step are taken over dimension `dim`.

    dim=0: per channel over tokens; dim=1: per token over channels. Errors are at most half a step.
    16 bits and more leave x as it is.
    """
    if bits > max(WIDTHS) or not x.shape[0]:
        return Codes(x, None, None, bits, x.shape[1])
    top = 2**bits - 1
    low, high = x.aminmax(dim=dim, keepdim=True)
    # A flat range has step 0: codes are 0 then, and the minimum comes back.
    step = ((high.float() - low.float()) / top).to(x.dtype).clamp(min=torch.finfo(x.dtype).tiny)
    codes = ((x.float() - low.float()) / step.float()).round().clamp(0, top).to(torch.uint8)
    return Codes(pack(codes, bits), low, step, bits, x.shape[1])
