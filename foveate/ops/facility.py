"""Facility location: greedy selection of points that represent all others."""

from __future__ import annotations

import torch
from torch import Tensor

# Largest number of similarities in memory: 16 MB in float32.
ELEMENTS = 2**22


def facility_location(alike: Tensor, bonus: Tensor, k: int) -> Tensor:
    """Indices (B, k) that greedily maximise coverage plus bonus, in the order of selection.

    The coverage of a selection Y is sum_x max_{y in Y} alike[y, x]. Ties go to the lower index.

    Args:
        alike: (B, N, N), symmetric, not negative.
        bonus: (B, N), added for each selected point.
        k: Number of points.
    """
    b, n, _ = alike.shape
    rows = torch.arange(b, device=alike.device)
    covered = alike.new_zeros(b, n)
    # Coverage with each candidate. In double precision, because it is updated in many steps.
    reached = alike.sum(2).double() + bonus
    picks = torch.empty(k, b, dtype=torch.long, device=alike.device)
    for i in range(k):
        torch.argmax(reached, dim=1, out=picks[i])
        reached[rows, picks[i]] = float("-inf")
        if i + 1 == k:
            break
        row = alike[rows, picks[i]]
        if alike.is_cuda:
            # Finding the few points that change would be a device sync for every pick.
            for at in torch.arange(n, device=alike.device).split(max(1, ELEMENTS // (b * n))):
                seen = torch.maximum(alike[:, at], covered[:, at, None])
                gained = (row[:, at, None] - seen).clamp_(min=0)
                reached += gained.sum(1, dtype=torch.double)
            covered = torch.maximum(covered, row)
            continue
        # Later picks improve the coverage of few points; update only these.
        which, where = (row > covered).nonzero(as_tuple=True)
        for some, at in zip(*(x.split(max(1, ELEMENTS // n)) for x in (which, where)), strict=True):
            seen = torch.maximum(alike[some, at], covered[some, at, None])
            gained = (row[some, at, None] - seen).clamp_(min=0)
            reached.index_add_(0, some, gained.double())
        covered = torch.maximum(covered, row)
    return picks.T
