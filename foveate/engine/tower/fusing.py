"""From merged rows of a vision tower to the tokens of one item, exactly as many as were promised.

Towers merge whole crops. Where a family cuts the padding off a crop later, it isn't known how many
of the merged tokens reach into what is left: the most similar of them merge on, or one that stands
for several patches is parted, until the crop has its share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foveate.ops.matching import bipartite_soft_matching, merge

# Above every number of a merged row.
_OWN = 1 << 40


def held_to(
    shares: Sequence[int], clusters: Tensor, features: Tensor, view: Tensor, whole: int
) -> Tensor:
    """Clusters (N,) of which each view has its share; the very ones where each has it already.

    features (N, D): what the tower made of each slot, alike within a cluster. view (N,), on the
    CPU: crop or frame of each slot, -1 for none. whole: patches of a view that nothing was cut off.
    """
    held = clusters
    for number, share in enumerate(shares):
        own = (view == number).nonzero()[:, 0]
        if len(own) in (0, whole):
            continue
        own = own.to(clusters.device)
        found, into = clusters[own].unique(return_inverse=True)
        if len(found) > share:
            into = _joined(into, features[own], len(found), share)
        elif len(found) < share:
            into = _parted(into, len(found), share)
        else:
            continue
        held = held.clone()
        held[own] = _OWN + number * whole + into
    return held


def numbered(x: Tensor) -> Tensor:
    """Numbers (N,) that ascend with the values of x (N,), from 0 on without gaps."""
    order = x.argsort(stable=True)
    steps = (x[order].diff() != 0).long().cumsum(0)
    return torch.zeros_like(x).scatter(0, order[1:], steps)


def _joined(into: Tensor, x: Tensor, count: int, share: int) -> Tensor:
    """Members (N,) of `count` groups in `share` of them: in every round, the best pairs merge."""
    while count > share:
        means = merge(x[None].float(), into[None], count)
        assign, count = bipartite_soft_matching(means, count - share)
        into = assign[0][into]
    return into


def _parted(into: Tensor, count: int, share: int) -> Tensor:
    """Members (N,) of `count` groups in `share` of them: all but the first may leave, in order."""
    steps = torch.arange(len(into), device=into.device)
    first = steps.new_full((count,), len(into)).scatter_reduce(0, into, steps, "amin")
    leaves = torch.ones_like(into, dtype=torch.bool)
    leaves[first] = False
    leaves &= leaves.cumsum(0) <= share - count
    return torch.where(leaves, count + leaves.cumsum(0) - 1, into)
