"""Facility location: few points that stand for all others."""

from __future__ import annotations

import torch
from torch import Tensor

# Likenesses in flight: 16 MB in float32.
ELEMENTS = 2**22


def facility_location(alike: Tensor, bonus: Tensor, k: int) -> Tensor:
    """Indices (B, k) that greedily maximise coverage plus bonus, in pick order.

    Coverage of the picks Y is sum_x max_{y in Y} alike[y, x], alike (B, N, N) symmetric and from 0
    on; bonus (B, N) adds up. Ties go to the lower index.
    """
    b, n, _ = alike.shape
    rows = torch.arange(b, device=alike.device)
    covered = alike.new_zeros(b, n)
    # Coverage with each candidate, kept up in double precision, for it is summed up step by step.
    reached = alike.sum(2).double() + bonus
    picks = torch.empty(k, b, dtype=torch.long, device=alike.device)
    for i in range(k):
        torch.argmax(reached, dim=1, out=picks[i])
        reached[rows, picks[i]] = float("-inf")
        if i + 1 == k:
            break
        row = alike[rows, picks[i]]
        if alike.is_cuda:
            # To find the few points that change would stop a GPU at every pick.
            for at in torch.arange(n, device=alike.device).split(max(1, ELEMENTS // (b * n))):
                seen = torch.maximum(alike[:, at], covered[:, at, None])
                gained = (row[:, at, None] - seen).clamp_(min=0)
                reached += gained.sum(1, dtype=torch.double)
            covered = torch.maximum(covered, row)
            continue
        # A pick soon covers few points better than those before it: only these change anything.
        which, where = (row > covered).nonzero(as_tuple=True)
        for some, at in zip(*(x.split(max(1, ELEMENTS // n)) for x in (which, where)), strict=True):
            seen = torch.maximum(alike[some, at], covered[some, at, None])
            gained = (row[some, at, None] - seen).clamp_(min=0)
            reached.index_add_(0, some, gained.double())
        covered = torch.maximum(covered, row)
    return picks.T
