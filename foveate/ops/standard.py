"""Values of each row with mean 0 and variance 1."""

from __future__ import annotations

from torch import Tensor


def standardised(x: Tensor, where: Tensor) -> Tensor:
    """x (B, N) less its mean over its standard deviation, both over `where` (B, N); 0 elsewhere."""
    x = x.float().masked_fill(~where, 0)
    count = where.sum(1, keepdim=True).clamp(min=1)
    off = (x - x.sum(1, keepdim=True) / count).masked_fill(~where, 0)
    return off / (off.square().sum(1, keepdim=True) / count).sqrt().clamp(min=1e-6)
