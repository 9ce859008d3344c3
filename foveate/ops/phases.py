"""Rotary embedding as one complex product, which needs a third of the memory passes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def phases(rotate: Callable[[Tensor], Tensor], like: Tensor) -> Tensor | None:
    """Complex numbers (B, 1, N, d / 2) that act like `rotate` on heads (B, 1, N, d).

    Channels i and i + d / 2 are the parts of one number. None where `rotate` pairs channels
    differently, and in half precision. like (B, 1, N, d) gives shape and dtype.
    """
    if like.dtype != torch.float32 or like.shape[-1] % 2:
        return None
    one = torch.zeros_like(like)
    one[..., : like.shape[-1] // 2] = 1
    real, imaginary = rotate(one).chunk(2, -1)
    if not torch.equal(rotate(1 - one), torch.cat([-imaginary, real], -1)):
        return None
    return torch.complex(real.contiguous(), imaginary.contiguous())


def paired(x: Tensor) -> Tensor:
    """Heads (..., d) as complex numbers (..., d / 2)."""
    return torch.complex(*(half.contiguous() for half in x.chunk(2, -1)))


def laid_out(x: Tensor) -> Tensor:
    """Complex numbers (..., d / 2) as heads (..., d) with the channels of each pair adjacent."""
    return torch.view_as_real(x).flatten(-2)
