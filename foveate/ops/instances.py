"""Assigns tokens to the object instances that masks mark in an image."""

from __future__ import annotations

import torch
from torch import Tensor


def instances(masks: Tensor, place: Tensor) -> Tensor:
    """Instance (N,) of every token, 0 to O - 1; O is the background.

    Args:
        masks: (O, h, w) bool. Where masks overlap, the smaller one counts; ties go to the lower
            index.
        place: (N, 3) int, (t, h, w) positions. Special tokens, at -1, are background.
    """
    if not len(masks):
        return torch.zeros_like(place[:, 0])
    by_size = masks.flatten(1).sum(1).argsort(stable=True)
    covers = masks[by_size][:, place[:, 1].clamp(min=0), place[:, 2].clamp(min=0)]
    covers = covers & (place[:, 1] >= 0)
    smallest = by_size[covers.byte().argmax(0)]
    return torch.where(covers.any(0), smallest, len(masks))


def quotas(sizes: list[int], total: int) -> list[int]:
    """max(1, floor(total * size / sum of sizes)) for every non-empty group, cut to `total`.

    If the ones are too many, the largest quotas are reduced first, higher index first. A group gets
    0 only where there are more groups than `total`.
    """
    share = [max(1, total * n // sum(sizes)) if n else 0 for n in sizes]
    while sum(share) > total:
        share[max(range(len(share)), key=lambda i: (share[i], i))] -= 1
    return share


def evenly_within(group: Tensor, total: int) -> Tensor:
    """Ascending indices (total,) of tokens at equal steps inside their groups (N,), by `quotas`.

    What rounding leaves is filled with other tokens at equal steps.
    """
    sizes = group.bincount().tolist()
    chosen = torch.zeros(len(group), dtype=torch.bool, device=group.device)
    for number, share in enumerate(quotas(sizes, total)):
        own = (group == number).nonzero()[:, 0]
        chosen[own[evenly(len(own), share).to(own.device)]] = True
    left = (~chosen).nonzero()[:, 0]
    chosen[left[evenly(len(left), total - int(chosen.sum())).to(left.device)]] = True
    return chosen.nonzero()[:, 0]


def evenly(n: int, k: int) -> Tensor:
    """Indices (k,) of n tokens at steps of floor(n / k), from 0."""
    return torch.arange(k) * (n // max(k, 1))
