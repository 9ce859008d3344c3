"""Choosing indices from scores."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k(scores: Tensor, k: int, mask: Tensor | None = None) -> Tensor:
    """Ascending indices (B, k) of the k largest of `scores` (B, N); ties go to the lower index.

    mask (B, N) bool: where given, False entries are chosen only when nothing else is left.
    """
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    return order[:, :k].sort(1).values


def top_mask(scores: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """(B, N) bool: the k[b] largest of row b of `scores` (B, N) among the True entries of `mask`.

    k (B,) int; a row that has fewer entries keeps them all. Ties go to the lower index.
    """
    scores = scores.masked_fill(~mask, float("-inf"))
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(order.shape[1], device=order.device).expand_as(order))
    return (rank < k[:, None]) & mask


def columns_of(mask: Tensor, most: int | None = None) -> tuple[Tensor, Tensor]:
    """Columns (B, M) of the True entries of each row of mask (B, N) in order, and which are real.

    M is what the fullest row has, at least 1. most: a bound that is known, in place of M; to find
    it out stops a GPU.
    """
    most = max(1, int(mask.sum(1).max()) if most is None else most)
    index = mask.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    return index, mask.gather(1, index)


def soft_top_k(scores: Tensor, k: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """(B, N) in [0, 1]: sigmoid((score - kappa) / T) with kappa so that row b sums to k[b].

    Outside of mask (B, N) it is 1; a row that has no more than k entries keeps them whole.
    Gradients flow through the scores; kappa is a constant to them.
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
