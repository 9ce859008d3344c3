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
