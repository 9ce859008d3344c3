"""Selects indices by score."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(scores: Tensor, k: int, mask: Tensor | None = None) -> Tensor:
    """Ascending indices (B, k) of the k largest scores. Ties go to the lower index.

    Args:
        scores: (B, N).
        k: Number of indices.
        mask: (B, N) bool. False entries are selected only when no others are left.
    """
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return order[:, :k].sort(1).values


def top_mask(scores: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """(B, N) bool: the k[b] largest scores of row b among the True entries of `mask`.

    Ties go to the lower index. A row with fewer entries keeps all of them.

    Args:
        scores: (B, N).
        k: (B,) int.
        mask: (B, N) bool.
    """
    scores = scores.masked_fill(~mask, float("-inf"))
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return (rank < k[:, None]) & mask


def columns_of(mask: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Columns (B, M) of the True entries of each row of mask (B, N), in order; and which are real.

    M is the largest count of a row, at least 1. `most` is a known bound to use instead; computing M
    is a device sync.
    """
    most = max(1, int(mask.sum(1).max()) if most is None else most)
    index = mask.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    return index, mask.gather(1, index)


def soft_top_k(scores: Tensor, k: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """Soft top-k (B, N) in [0, 1]: sigmoid((score - kappa) / temperature).

    kappa is such that row b sums to k[b]. Gradients flow through the scores, with kappa as a
    constant.

    Args:
        scores: (B, N).
        k: (B,) int. A row with no more than k entries gets 1 for all of them.
        mask: (B, N) bool. The result is 1 outside of it.
        temperature: Divides the scores.
    """
    scores = scores / temperature
    with torch.no_grad():
        inside = scores.masked_fill(~mask, float("-inf"))
        low = scores.masked_fill(~mask, float("inf")).amin(1, keepdim=True) - 20
        high = inside.amax(1, keepdim=True) + 20
        for _ in range(40):
            middle = (low + high) / 2
            more = (inside - middle).sigmoid().sum(1, keepdim=True) > k[:, None]
            low, high = torch.where(more, middle, low), torch.where(more, high, middle)
    full = mask.sum(1, keepdim=True) <= k[:, None]
    return (scores - middle).sigmoid().masked_fill(~mask | full, 1.0)
