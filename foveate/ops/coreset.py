"""k-centre selection, and the weight of each token in the average around its centre."""

from __future__ import annotations

import torch
from torch import Tensor

from foveate.ops.farthest import farthest_point
from foveate.ops.gather import rows_at


def coreset(x: Tensor, k: int, first: Tensor) -> tuple[Tensor, Tensor]:
    """Centre (B, N) of each token, and the token's weight (B, N) in the average around it.

    Greedy k-centre: the first centre is `first`, each next one is the token farthest from all
    centres. A token belongs to its nearest centre. Weights are proportional to 1 / distance (1 for
    the centre and its copies) and sum to 1 per centre.

    Args:
        x: (B, N, C).
        k: Number of centres.
        first: (B,) int.
    """
    picks = farthest_point(x, k, metric="euclidean", start=first)
    centres = rows_at(x, picks)
    # Distances by matrix products are not exactly 0 between a centre and itself.
    apart = torch.cdist(x.float(), centres.float(), compute_mode="donot_use_mm_for_euclid_dist")
    into = apart.argmin(-1)
    near = apart.gather(2, into[..., None])[..., 0]
    share = torch.where(near == 0, 1.0, 1 / near)
    total = share.new_zeros(len(x), k).scatter_add_(1, into, share)
    return into, share / total.gather(1, into)


def farthest_from_mean(x: Tensor) -> Tensor:
    """Index (B,) of the token of x (B, N, C) farthest from the mean."""
    return (x - x.mean(1, keepdim=True)).square().sum(-1).argmax(1)
