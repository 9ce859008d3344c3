"""Choosing within groups of tokens, each with a budget of its own."""

from __future__ import annotations

import torch
from torch import Tensor


def top_per_group(scores: Tensor, group: Tensor, k: Tensor) -> Tensor:
    """(B, N) bool: of every group g the k[b, g] largest of `scores` (B, N); ties: lower index.

    group (N,) or (B, N) int: -1 is never chosen. k (B, G) or (G,) int.
    """
    b, n = scores.shape
    group = group.expand(b, n)
    groups = k.shape[-1]
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    inside, by_group = torch.sort(group.gather(1, order) % (groups + 1), dim=1, stable=True)
    order = order.gather(1, by_group)
    first = torch.searchsorted(inside, torch.arange(groups + 1, device=k.device).repeat(b, 1))
    rank = torch.arange(n, device=k.device) - first.gather(1, inside)
    limit = torch.nn.functional.pad(k.expand(b, -1), (0, 1)).gather(1, inside)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, order, rank < limit)


def sums(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Sums (B, groups) of `values` (B, N) over the members of every group; -1 counts nowhere."""
    slot = (group % (groups + 1)).expand_as(values)
    return values.new_zeros(len(values), groups + 1).scatter_add_(1, slot, values)[:, :groups]


def means(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Means (B, groups) of `values` (B, N) over the members of every group, 0 where none."""
    count = sums(torch.ones_like(values), group, groups)
    return sums(values, group, groups) / count.clamp(min=1)


def chosen(mask: Tensor, k: int) -> Tensor:
    """Ascending indices (B, k) of the True entries of `mask` (B, N), k in every row."""
    return mask.byte().argsort(dim=1, descending=True, stable=True)[:, :k]


def apportion(shares: Tensor, caps: Tensor, total: int) -> Tensor:
    """Whole numbers (B, G) that sum to `total`, in proportion to `shares` (B, G), none over caps.

    On the CPU. caps (G,) int, with at least `total` in sum. What full groups can't take goes to the
    others in proportion; what rounding leaves goes to the largest remainders, lower index first.
    """
    # A few numbers in double precision, which not every accelerator has.
    weight, caps = shares.double().cpu(), caps.double().cpu().expand(shares.shape)
    # Groups of no weight come in when all others are full.
    weight = (weight / weight.sum(1, keepdim=True).clamp(min=1e-30)).clamp(min=1e-9)
    # Groups fill up in the order of cap / weight; the level is where the rest takes what is left.
    level, order = (caps / weight).sort(1)
    held, heavy = caps.gather(1, order), weight.gather(1, order)
    before = held.cumsum(1) - held
    behind = heavy.flip(1).cumsum(1).flip(1)
    rest = ((total - before) / behind).clamp(min=0)
    at = (rest > level).sum(1, keepdim=True).clamp(max=caps.shape[1] - 1)
    exact = torch.minimum(weight * rest.gather(1, at), caps)
    whole = (exact + 1e-9).floor()
    left = (total - whole.sum(1, keepdim=True)).long()
    remainder = (exact - whole).masked_fill(whole >= caps, -1)
    order = remainder.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return whole.long() + (rank < left)
