"""Rotation as one product of complex numbers, in a third of the passes that halves take."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def phases(rotate: Callable[[Tensor], Tensor], like: Tensor) -> Tensor | None:
    """Complex numbers (B, 1, N, d / 2) that stand for `rotate` of heads (B, 1, N, d).

    Channel i and the one half of d behind it are the parts of one number. like (B, 1, N, d): of
    which shape and type. None where `rotate` pairs channels otherwise, and in half precision.
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
    """Complex numbers (..., d / 2) as heads (..., d), with the products of what was paired."""
    return torch.view_as_real(x).flatten(-2)
