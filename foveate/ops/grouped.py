"""Selects tokens within groups, each with its own budget."""

from __future__ import annotations

import torch
from torch import Tensor


def top_per_group(scores: Tensor, group: Tensor, k: Tensor) -> Tensor:
    """(B, N) bool: the k[b, g] largest scores of every group g. Ties go to the lower index.

    Args:
        scores: (B, N).
        group: (N,) or (B, N) int, -1 for tokens that are never selected.
        k: (B, G) or (G,) int.
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
    """Sums (B, groups) of `values` (B, N) over each group; -1 is not counted."""
    slot = (group % (groups + 1)).expand_as(values)
    return values.new_zeros(len(values), groups + 1).scatter_add_(1, slot, values)[:, :groups]


def means(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """Means (B, groups) of `values` (B, N) over each group, 0 for empty groups."""
    count = sums(torch.ones_like(values), group, groups)
    return sums(values, group, groups) / count.clamp(min=1)


def chosen(mask: Tensor, k: int) -> Tensor:
    """Ascending indices (B, k) of the True entries of `mask` (B, N); every row has k of them."""
    return mask.byte().argsort(dim=1, descending=True, stable=True)[:, :k]


def apportion(shares: Tensor, caps: Tensor, total: int) -> Tensor:
    """Integers (B, G) that sum to `total`, in proportion to `shares` (B, G), at most `caps`.

    What full groups can't take goes to the others in proportion. The remainder of rounding goes to
    the largest fractions, lower index first. The result is on the CPU.

    Args:
        shares: (B, G).
        caps: (G,) int, with a sum of at least `total`.
        total: The sum.
    """
    # On the CPU, because not every accelerator has double precision.
    weight, caps = shares.double().cpu(), caps.double().cpu().expand(shares.shape)
    # Groups with weight 0 get tokens only when all others are full.
    weight = (weight / weight.sum(1, keepdim=True).clamp(min=1e-30)).clamp(min=1e-9)
    # Groups fill up in the order of cap / weight. The rest is split at the level that is left.
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
