"""Facility location: few points that stand for all others."""

from __future__ import annotations

import torch
from torch import Tensor


def facility_location(alike: Tensor, bonus: Tensor, k: int) -> Tensor:
    """Indices (B, k) that greedily maximise coverage plus bonus, in pick order.

    Coverage of the picks Y is sum_x max_{y in Y} alike[y, x], alike (B, N, N) from 0 on; bonus
    (B, N) adds up. Ties go to the lower index.
    """
    b, n, _ = alike.shape
    covered, room = alike.new_zeros(b, 1, n), torch.empty_like(alike)
    bonus, rows = bonus.clone(), torch.arange(b, device=alike.device)
    picks = torch.empty(k, b, dtype=torch.long, device=alike.device)
    for i in range(k):
        # What is covered already counts for every candidate alike, so gains need no difference.
        torch.maximum(alike, covered, out=room)
        torch.argmax(room.sum(2) + bonus, dim=1, out=picks[i])
        bonus[rows, picks[i]] = float("-inf")
        torch.maximum(covered, alike[rows, picks[i]][:, None], out=covered)
    return picks.T
