"""Gives each crop the number of merged tokens that its method promised.

The encoder merges whole crops. Some families cut the padding off a crop afterwards, and the number
of merged tokens that are left then depends on the image. Where too many are left, the most similar
ones merge further. Where too few are left, tokens that stand for several patches are split.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from foveate.ops.matching import bipartite_soft_matching, merge

# Larger than any number of a merged token.
_OWN = 1 << 40


def with_exact_counts(
    shares: Sequence[int], clusters: Tensor, features: Tensor, view: Tensor, whole: int
) -> Tensor:
    """Merged token (N,) of each slot, such that every view has its promised number of tokens.

    Returns `clusters` itself where every view has that number already.

    Args:
        shares: Tokens of each view to keep.
        clusters: (N,) int, merged token of each slot.
        features: (N, D) projected features, equal within a merged token.
        view: (N,) int on the CPU, crop or frame of each slot, -1 for none.
        whole: Patches of a view that was not cut.
    """
    held = clusters
    for number, share in enumerate(shares):
        own = (view == number).nonzero()[:, 0]
        if len(own) in (0, whole):
            continue
        own = own.to(clusters.device)
        found, into = clusters[own].unique(return_inverse=True)
        if len(found) > share:
            into = _merged_to(into, features[own], len(found), share)
        elif len(found) < share:
            into = _split_to(into, len(found), share)
        else:
            continue
        held = held.clone()
        held[own] = _OWN + number * whole + into
    return held


def ranks(x: Tensor) -> Tensor:
    """Ranks (N,) of the values of x (N,), from 0 without gaps; equal values get equal ranks."""
    order = x.argsort(stable=True)
    steps = (x[order].diff() != 0).long().cumsum(0)
    return torch.zeros_like(x).scatter(0, order[1:], steps)


def _merged_to(into: Tensor, x: Tensor, count: int, share: int) -> Tensor:
    """Merge `count` groups with members (N,) into `share` groups, most similar pairs first."""
    while count > share:
        means = merge(x[None].float(), into[None], count)
        assign, count = bipartite_soft_matching(means, count - share)
        into = assign[0][into]
    return into


def _split_to(into: Tensor, count: int, share: int) -> Tensor:
    """Split `count` groups with members (N,) into `share`; first members never leave a group."""
    steps = torch.arange(len(into), device=into.device)
    first = steps.new_full((count,), len(into)).scatter_reduce(0, into, steps, "amin")
    leaves = torch.ones_like(into, dtype=torch.bool)
    leaves[first] = False
    leaves &= leaves.cumsum(0) <= share - count
    return torch.where(leaves, count + leaves.cumsum(0) - 1, into)
