"""Standardises the values of each row."""

from __future__ import annotations

from torch import Tensor


def standardised(x: Tensor, where: Tensor) -> Tensor:
    """x (B, N) minus its mean, divided by its standard deviation, over `where` (B, N); else 0."""
    x = x.float().masked_fill(~where, 0)
    count = where.sum(1, keepdim=True).clamp(min=1)
    off = (x - x.sum(1, keepdim=True) / count).masked_fill(~where, 0)
    return off / (off.square().sum(1, keepdim=True) / count).sqrt().clamp(min=1e-6)
