"""Reads or sums rows of tensors by index."""

from __future__ import annotations

import torch
from torch import Tensor


def rows_at(x: Tensor, index: Tensor) -> Tensor:
    """Rows of x (B or 1, ..., N, D) at index (B, K) of the second last dimension, (B, ..., K, D).

    It copies whole rows, which is faster than `gather` with an expanded index.
    """
    if len(x) == len(index) == 1:
        return x.index_select(-2, index[0])
    lead, (n, d) = x.shape[:-2], x.shape[-2:]
    start = torch.arange(lead.numel(), device=x.device).view(*lead, 1) * n
    where = index.reshape(len(index), *(1 for _ in lead[1:]), -1) + start
    return x.reshape(-1, d).index_select(0, where.flatten()).view(*where.shape, d)


def rows_summed(x: Tensor, slot: Tensor, count: int) -> Tensor:
    """Sums (B, count, D) of the rows of x (B, N, D) with the same slot (B, N); -1 for none.

    It adds whole rows, which is faster than `scatter_add` with an expanded index.
    """
    b, n, d = x.shape
    start = torch.arange(b, device=x.device)[:, None] * (count + 1)
    where = torch.where(slot < 0, count, slot) + start
    total = x.new_zeros(b * (count + 1), d)
    return total.index_add_(0, where.flatten(), x.reshape(b * n, d)).view(b, -1, d)[:, :count]
