"""A few centres that cover a set of tokens, and each token's share in the average around one."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.ops.farthest import farthest_point
from foveate.ops.gather import rows_at


def coreset(x: Tensor, k: int, first: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (B, N) that takes each of x (B, N, C) in, and its weight (B, N) there.

    k-centre greedy: from `first` (B,) on, each next centre is the token farthest from all before.
    A token goes to its nearest centre, at 1 / distance; 1 for the centre and its copies. Weights of
    one centre sum to 1.
    """
    picks = farthest_point(x, k, metric="euclidean", start=first)
    centres = rows_at(x, picks)
    # By products of matrices a centre would not be at distance 0 from itself.
    apart = torch.cdist(x.float(), centres.float(), compute_mode="donot_use_mm_for_euclid_dist")
    into = apart.argmin(-1)
    near = apart.gather(2, into[..., None])[..., 0]
    share = torch.where(near == 0, 1.0, 1 / near)
    total = share.new_zeros(len(x), k).scatter_add_(1, into, share)
    return into, share / total.gather(1, into)


def farthest_from_mean(x: Tensor) -> Tensor:
    """Index (B,) of the token of x (B, N, C) farthest from the mean of all."""
    return (x - x.mean(1, keepdim=True)).square().sum(-1).argmax(1)
